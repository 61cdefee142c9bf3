//! The budget under pressure.

use futures::{FutureExt, poll};

use super::*;

const WAIT_LIMIT: Duration = Duration::from_secs(30);

const NOBODY: Owner = Owner {
    tenant: String::new(),
    subject: String::new(),
};

fn owner(subject: &str) -> Owner {
    Owner {
        subject: subject.into(),
        ..NOBODY
    }
}

#[tokio::test]
async fn half_full_parts_cannot_wait_for_each_other_for_ever() {
    // Room for 100 bytes outside a reserve of 50: four parts of 50 come to 25 each, then all want more.
    let budget = Budget::new(150, 50, WAIT_LIMIT);
    let mut parts: Vec<Reservation> = (0..4).map(|_| budget.begin(&NOBODY)).collect();
    for part in &mut parts {
        part.reserve(25, false).await.unwrap();
    }
    let mut finishing: Vec<_> = parts
        .into_iter()
        .map(|mut part| async move { part.reserve(25, false).await }.boxed())
        .collect();
    // The first that asks gets the reserve, ends its part, and so frees the next.
    for part in &mut finishing {
        part.await.unwrap();
    }
}

#[tokio::test]
async fn under_pressure_the_fullest_part_goes_first() {
    let budget = Budget::new(150, 50, WAIT_LIMIT);
    let mut reserved = budget.begin(&NOBODY);
    let (mut small, mut large, mut holder) = (
        budget.begin(&NOBODY),
        budget.begin(&NOBODY),
        budget.begin(&NOBODY),
    );
    small.reserve(10, false).await.unwrap();
    large.reserve(30, false).await.unwrap();
    holder.reserve(60, false).await.unwrap();
    reserved.reserve(50, false).await.unwrap();
    let mut small_waits = std::pin::pin!(small.reserve(60, false));
    let mut large_waits = std::pin::pin!(large.reserve(60, false));
    assert!(poll!(small_waits.as_mut()).is_pending());
    assert!(poll!(large_waits.as_mut()).is_pending());
    drop(holder);
    assert!(poll!(small_waits.as_mut()).is_pending());
    assert!(poll!(large_waits.as_mut()).is_ready());
}

#[tokio::test]
async fn the_reserve_goes_to_the_part_that_is_nearest_to_full() {
    let budget = Budget::new(150, 50, WAIT_LIMIT);
    let mut holder = budget.begin(&NOBODY);
    holder.reserve(60, false).await.unwrap();
    let (mut small, mut large) = (budget.begin(&NOBODY), budget.begin(&NOBODY));
    small.reserve(10, false).await.unwrap();
    large.reserve(30, false).await.unwrap();
    holder.reserve(20, false).await.unwrap();
    let mut small_waits = std::pin::pin!(small.reserve(10, false));
    let mut large_waits = std::pin::pin!(large.reserve(10, false));
    assert!(poll!(small_waits.as_mut()).is_pending());
    assert!(poll!(large_waits.as_mut()).is_pending());
    drop(holder);
    assert!(poll!(large_waits.as_mut()).is_ready());
    assert!(poll!(small_waits.as_mut()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_draw_gives_up_when_nobody_gives_anything_back() {
    let budget = Budget::new(50, 50, WAIT_LIMIT);
    let mut first = budget.begin(&NOBODY);
    first.reserve(50, false).await.unwrap();
    let mut second = budget.begin(&NOBODY);
    let error = second.reserve(1, false).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Overloaded);
    drop(first);
    second.reserve(50, false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_is_short_once_a_part_has_waited_for_some_time() {
    let budget = Budget::new(50, 50, WAIT_LIMIT);
    let mut first = budget.begin(&NOBODY);
    first.reserve(50, false).await.unwrap();
    let mut second = budget.begin(&NOBODY);
    let mut waits = std::pin::pin!(second.reserve(1, false));
    assert!(poll!(waits.as_mut()).is_pending());
    assert!(!budget.is_short(&NOBODY));
    tokio::time::advance(WAIT_LIMIT / 3).await;
    assert!(budget.is_short(&NOBODY));
    drop(first);
    waits.await.unwrap();
    assert!(!budget.is_short(&NOBODY));
}

#[tokio::test(start_paused = true)]
async fn the_slowest_part_that_waits_for_its_sender_is_recalled() {
    let budget = Budget::new(150, 50, WAIT_LIMIT);
    let (mut slow, mut slower) = (budget.begin(&NOBODY), budget.begin(&NOBODY));
    slow.reserve(60, false).await.unwrap();
    slower.reserve(40, false).await.unwrap();
    let mut reserved = budget.begin(&NOBODY);
    reserved.reserve(50, false).await.unwrap();
    let slow_idles = tokio::spawn(async move { slow.recalled(60).await });
    let slower_idles = tokio::spawn(async move { slower.recalled(40).await });
    tokio::task::yield_now().await;
    let mut waiting = budget.begin(&NOBODY);
    waiting.reserve(30, false).await.unwrap();
    slower_idles.await.unwrap();
    assert!(!slow_idles.is_finished());
}

#[tokio::test(start_paused = true)]
async fn no_more_parts_are_recalled_than_are_needed() {
    let budget = Budget::new(150, 50, WAIT_LIMIT);
    let mut idling = Vec::new();
    for _ in 0..10 {
        let mut part = budget.begin(&NOBODY);
        part.reserve(10, false).await.unwrap();
        idling.push(tokio::spawn(async move { part.recalled(10).await }));
    }
    let mut reserved = budget.begin(&NOBODY);
    reserved.reserve(50, false).await.unwrap();
    tokio::task::yield_now().await;
    // Many wait for as long, and what one recalled part gives back is enough for all of them.
    let mut waiting: Vec<Reservation> = (0..10).map(|_| budget.begin(&NOBODY)).collect();
    let draws = waiting.iter_mut().map(|part| part.reserve(1, false));
    for reserved in futures::future::join_all(draws).await {
        reserved.unwrap();
    }
    assert_eq!(idling.iter().filter(|idle| idle.is_finished()).count(), 1);
}

#[tokio::test]
async fn what_was_drawn_comes_back() {
    let budget = Budget::new(150, 50, WAIT_LIMIT);
    for _ in 0..10 {
        let mut part = budget.begin(&NOBODY);
        part.reserve(100, false).await.unwrap();
        part.reserve(50, false).await.unwrap();
    }
    let state = budget.lock();
    assert_eq!(
        (state.free, state.reserve_lent, state.waiting.len()),
        (100, false, 0)
    );
}

#[tokio::test]
async fn what_is_granted_to_a_draw_that_is_given_up_comes_back() {
    for bytes in [60, 10] {
        let budget = Budget::new(150, 50, WAIT_LIMIT);
        let (mut reserved, mut holder) = (budget.begin(&NOBODY), budget.begin(&NOBODY));
        holder.reserve(100, false).await.unwrap();
        reserved.reserve(50, false).await.unwrap();
        let mut part = budget.begin(&NOBODY);
        let mut waits = Box::pin(part.reserve(bytes, false));
        assert!(poll!(waits.as_mut()).is_pending());
        // Once out of the free bytes, once out of the reserve.
        drop(if bytes > 50 { holder } else { reserved });
        drop(waits);
        drop(part);
        let ledger = budget.lock();
        let lent = if bytes > 50 { (100, true) } else { (0, false) };
        assert_eq!((ledger.free, ledger.reserve_lent), lent);
    }
}

/// A greedy caller that has all memory: two parts that wait for their sender, the slower one last, and the reserve.
async fn all_of_it(budget: &Arc<Budget>) -> [Reservation; 3] {
    let mut parts = [(); 3].map(|()| budget.begin(&owner("greedy")));
    for (part, bytes) in parts.iter_mut().zip([60, 40, 50]) {
        part.reserve(bytes, false).await.unwrap();
    }
    parts
}

#[tokio::test]
async fn a_caller_beyond_its_share_waits_behind_the_others() {
    let budget = Budget::new(150, 50, WAIT_LIMIT);
    let [first, mut fuller, _reserved] = all_of_it(&budget).await;
    let mut part = budget.begin(&owner("modest"));
    let mut fuller_waits = std::pin::pin!(fuller.reserve(60, false));
    let mut modest_waits = std::pin::pin!(part.reserve(60, false));
    assert!(poll!(fuller_waits.as_mut()).is_pending());
    assert!(poll!(modest_waits.as_mut()).is_pending());
    drop(first);
    assert!(poll!(fuller_waits.as_mut()).is_pending());
    assert!(poll!(modest_waits.as_mut()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_caller_beyond_its_share_are_recalled_soon_and_alone() {
    let budget = Budget::new(160, 50, WAIT_LIMIT);
    let mut crawling = budget.begin(&owner("modest"));
    crawling.reserve(10, false).await.unwrap();
    let crawling = tokio::spawn(async move { crawling.recalled(1).await });
    let [first, second, _reserved] = all_of_it(&budget).await;
    let first = tokio::spawn(async move { first.recalled(60).await });
    let second = tokio::spawn(async move { second.recalled(40).await });
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let mut part = budget.begin(&owner("modest"));
    part.reserve(30, false).await.unwrap();
    assert!(begun.elapsed() <= 2 * SHARE_PAUSE);
    second.await.unwrap();
    assert!(!first.is_finished() && !crawling.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_caller_beyond_its_share_keeps_nobody_else_out() {
    let budget = Budget::new(150, 50, WAIT_LIMIT);
    let [mut waiting, _second, _reserved] = all_of_it(&budget).await;
    let _modest = budget.begin(&owner("modest"));
    let mut waits = std::pin::pin!(waiting.reserve(1, false));
    assert!(poll!(waits.as_mut()).is_pending());
    tokio::time::advance(WAIT_LIMIT / 3).await;
    assert!(budget.is_short(&owner("greedy")));
    assert!(!budget.is_short(&owner("modest")));
}
