use futures::{FutureExt, StreamExt};
use tokio::time::advance;
use upload_gateway_core::error::Kind;

use super::*;

const RULES: Rules = Rules {
    what: "things",
    limit: None,
    total: 10,
    per_owner: 2,
    reserve: 0,
    wait_limit: Duration::from_secs(2),
    yields_after: Duration::from_secs(5),
    ends_after: None,
};

fn place(room: &Arc<Room>, amount: u32) -> Place {
    let place = room.enter(CancellationToken::new());
    assert!(place.try_take(amount));
    place
}

#[tokio::test(start_paused = true)]
async fn a_call_without_room_is_refused_after_its_wait_limit() {
    let room = Room::new(RULES);
    let held = place(&room, 10);
    let begun = Instant::now();
    let refused = room.enter(CancellationToken::new()).take(1).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted);
    assert!(error.retry_delay().is_some());
    assert_eq!(begun.elapsed(), RULES.wait_limit);
    drop(held);
    assert_eq!(room.free.available_permits(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_call_gets_the_room_that_is_freed_while_it_waits() {
    let room = Room::new(RULES);
    let held = place(&room, 10);
    let waiting = room.enter(CancellationToken::new());
    let mut waits = std::pin::pin!(waiting.take(4));
    assert!(waits.as_mut().now_or_never().is_none());
    drop(held);
    waits.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn freed_room_goes_to_the_call_that_has_waited_longest() {
    let room = Room::new(RULES);
    let held: Vec<_> = (0..2).map(|_| place(&room, 5)).collect();
    let first = room.enter(CancellationToken::new());
    let mut first = std::pin::pin!(first.take(6));
    assert!(first.as_mut().now_or_never().is_none());
    let [one, other] = held.try_into().unwrap();
    drop(one);
    let second = room.enter(CancellationToken::new());
    assert!(!second.try_take(1));
    drop(other);
    first.await.unwrap();
    assert!(second.try_take(4));
}

#[tokio::test(start_paused = true)]
async fn only_some_calls_wait() {
    let room = Room::new(RULES);
    let _held = place(&room, 10);
    let place = || room.enter(CancellationToken::new());
    let places: Vec<_> = (0..=MAX_WAITING).map(|_| place()).collect();
    let takes = places.iter().map(|place| place.take(1));
    let begun = Instant::now();
    let mut waiting: futures::stream::FuturesUnordered<_> = takes.collect();
    assert!(waiting.next().await.unwrap().is_err());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    waiting.next().await.unwrap().unwrap_err();
    assert_eq!(begun.elapsed(), RULES.wait_limit);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_ends_otherwise_makes_room_for_others() {
    let room = Room::new(RULES);
    let end = CancellationToken::new();
    let ending = room.enter(end.clone());
    assert!(ending.try_take(5));
    ending.wait_for_client();
    end.cancel();
    drop(ending);
    let stalled = place(&room, 10);
    stalled.wait_for_client();
    advance(RULES.yields_after).await;
    let other = room.enter(CancellationToken::new());
    assert!(other.take(1).now_or_never().is_none());
    assert!(stalled.revoked().now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_place_of_the_client_that_did_nothing_for_longest_is_revoked() {
    let room = Room::new(RULES);
    let places: Vec<_> = (0..3).map(|_| place(&room, 3)).collect();
    places[1].wait_for_client();
    advance(Duration::from_secs(1)).await;
    places[0].wait_for_client();
    advance(Duration::from_secs(9)).await;
    let mut waits = {
        let room = Arc::clone(&room);
        Box::pin(async move { room.enter(CancellationToken::new()).take(2).await })
    };
    assert!(waits.as_mut().now_or_never().is_none());
    let revoked = |place: &Place| place.revoked().now_or_never().is_some();
    let all: Vec<_> = places.iter().map(revoked).collect();
    assert_eq!(all, [false, true, false]);
    drop(places);
    waits.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_makes_progress_keeps_its_place() {
    let room = Room::new(RULES);
    let held = place(&room, 10);
    held.wait_for_client();
    advance(Duration::from_secs(1)).await;
    let refused = room.enter(CancellationToken::new()).take(1).await;
    assert!(refused.is_err());
    held.wait_for_client();
    held.wait_for_gateway();
    advance(Duration::from_secs(100)).await;
    let refused = room.enter(CancellationToken::new()).take(1).await;
    assert!(refused.is_err());
    assert!(held.revoked().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_nothing_loses_its_place_after_the_limit() {
    let limit = Duration::from_secs(300);
    let room = Room::new(Rules {
        ends_after: Some(limit),
        ..RULES
    });
    let (held, begun) = (place(&room, 1), Instant::now());
    held.wait_for_client();
    held.revoked().await;
    assert!(begun.elapsed() >= limit && begun.elapsed() <= limit + limit / CHECKS);
}

fn owner(subject: &str) -> Owner {
    Owner {
        tenant: "acme".into(),
        subject: subject.into(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_with_many_waiting_calls_leaves_others_a_turn() {
    let room = Room::new(Rules {
        per_owner: u32::MAX,
        ..RULES
    });
    let held = place(&room, 10);
    let enter = |subject| room.enter_for(&owner(subject), CancellationToken::new());
    let places: Vec<_> = (0..=MAX_WAITING_OF_OWNER)
        .map(|_| enter("a").unwrap())
        .collect();
    let mut waits: Vec<_> = places.iter().map(|place| Box::pin(place.take(1))).collect();
    let refused = waits.iter_mut().filter_map(|wait| wait.now_or_never());
    assert_eq!(refused.filter(Result::is_err).count(), 1);
    let other = enter("b").unwrap();
    let mut waits_too = std::pin::pin!(other.take(1));
    assert!(waits_too.as_mut().now_or_never().is_none());
    // What no longer waits makes room for others of its owner.
    drop(waits);
    let another = enter("a").unwrap();
    assert!(another.take(1).now_or_never().is_none());
    drop(held);
    waits_too.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_owner_at_its_share_leaves_the_places_to_others() {
    let room = Room::new(RULES);
    let enter = |owner: &Owner| room.enter_for(owner, CancellationToken::new());
    let (first, second) = (enter(&owner("a")).unwrap(), enter(&owner("a")).unwrap());
    let error = enter(&owner("a")).unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted);
    assert_eq!(error.metadata()["limit"], "per_owner.things");
    assert!(error.retry_delay().is_some());
    assert!(enter(&owner("b")).is_ok());
    for _ in 0..5 {
        // Without a tenant all callers are one owner.
        std::mem::forget(enter(&Owner::default()).unwrap());
    }
    drop(first);
    assert!(enter(&owner("a")).is_ok());
    drop(second);
    assert_eq!(room.lock().owners.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_owner_with_few_places_need_not_wait_for_one_with_many() {
    let room = Room::new(Rules {
        per_owner: u32::MAX,
        reserve: 2,
        ..RULES
    });
    let enter = |subject| room.enter_for(&owner(subject), CancellationToken::new());
    let many: Vec<_> = (0..8).map(|_| enter("many").unwrap()).collect();
    assert!(many.iter().all(|place| place.try_take(1)));
    let waiting = enter("many").unwrap();
    assert!(!waiting.try_take(1));
    let mut waits = std::pin::pin!(waiting.take(1));
    assert!(waits.as_mut().now_or_never().is_none());

    let few = [enter("few").unwrap(), enter("few").unwrap()];
    assert!(few.iter().all(|place| place.try_take(1)));
    let next = enter("few").unwrap();
    assert!(!next.try_take(1));
    // What was of the reserve returns to it.
    drop(few);
    assert!(waits.as_mut().now_or_never().is_none());
    assert_eq!(room.reserve.available_permits(), 2);
    drop(many);
    waits.await.unwrap();
    assert_eq!(room.free.available_permits(), 7);
}

#[tokio::test(start_paused = true)]
async fn callers_without_a_tenant_get_all_places() {
    let room = Room::new(Rules {
        reserve: 2,
        ..RULES
    });
    let places: Vec<_> = (0..10).map(|_| place(&room, 1)).collect();
    let waiting = room.enter(CancellationToken::new());
    let mut waits = std::pin::pin!(waiting.take(1));
    assert!(waits.as_mut().now_or_never().is_none());
    // The last one is of the reserve.
    drop(places.into_iter().next_back());
    waits.await.unwrap();
}

/// Each holds a part of what it needs, and none can get the rest.
#[tokio::test(start_paused = true)]
async fn of_places_that_wait_for_each_other_the_oldest_is_revoked() {
    let room = Room::new(RULES);
    let places: Vec<_> = (0..5).map(|_| place(&room, 2)).collect();
    let begun = Instant::now();
    let waits = places.into_iter().map(|place| async move {
        let taken = place.take(2).await;
        // The call has ended, with all that it held.
        drop(place);
        taken.is_ok()
    });
    let done = futures::future::join_all(waits).await;
    assert_eq!(done, [false, true, true, true, true]);
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn places_that_wait_for_one_that_works_keep_what_they_have() {
    let room = Room::new(RULES);
    let held = place(&room, 6);
    let waiting = [place(&room, 2), place(&room, 2)];
    let takes = futures::future::join_all(waiting.iter().map(|place| place.take(3)));
    let mut waits = std::pin::pin!(takes);
    let early = tokio::time::timeout(Duration::from_secs(1), waits.as_mut()).await;
    assert!(early.is_err());
    drop(held);
    assert!(waits.await.iter().all(Result::is_ok));
}
