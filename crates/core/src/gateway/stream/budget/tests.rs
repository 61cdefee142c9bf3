//! Tests of the memory budget under pressure.

use futures::{FutureExt, poll};

use super::*;

const WAIT_LIMIT: Duration = Duration::from_secs(30);

const CALLER: Owner = Owner {
    tenant: String::new(),
    subject: String::new(),
};

fn owner(subject: &str) -> Owner {
    Owner {
        subject: subject.into(),
        ..CALLER
    }
}

/// A part of a stream of its own.
fn part_of(budget: &Arc<Budget>, owner: &Owner) -> Reservation {
    budget.begin(owner, budget.number())
}

/// Waits until a part that waits for its sender is recalled.
async fn recalled(part: Reservation, received: u64) {
    let memory = MessageMemory::new(&part.budget, &part.owner);
    memory.recalled(Some((&part, received))).await;
}

#[tokio::test]
async fn half_full_parts_cannot_deadlock() {
    // 100 bytes are free in addition to a reserve of 50. Four parts of 50 bytes reserve 25 each, and then need 25 more.
    let budget = Budget::new(150, 50, 0, WAIT_LIMIT);
    let mut parts: Vec<Reservation> = (0..4).map(|_| part_of(&budget, &CALLER)).collect();
    for part in &mut parts {
        part.reserve(25, false).await.unwrap();
    }
    let mut finishing: Vec<_> = parts
        .into_iter()
        .map(|mut part| async move { part.reserve(25, false).await }.boxed())
        .collect();
    // The first part gets the reserve. When it ends, the next one gets its bytes.
    for part in &mut finishing {
        part.await.unwrap();
    }
}

#[tokio::test]
async fn under_pressure_the_part_with_the_largest_reservation_is_served_first() {
    let budget = Budget::new(150, 50, 0, WAIT_LIMIT);
    let mut reserved = part_of(&budget, &CALLER);
    let (mut small, mut large, mut holder) = (
        part_of(&budget, &CALLER),
        part_of(&budget, &CALLER),
        part_of(&budget, &CALLER),
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
async fn the_reserve_is_lent_to_the_part_with_the_largest_reservation() {
    let budget = Budget::new(150, 50, 0, WAIT_LIMIT);
    let mut holder = part_of(&budget, &CALLER);
    holder.reserve(60, false).await.unwrap();
    let (mut small, mut large) = (part_of(&budget, &CALLER), part_of(&budget, &CALLER));
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
async fn a_reservation_fails_after_the_wait_limit() {
    let budget = Budget::new(50, 50, 0, WAIT_LIMIT);
    let mut first = part_of(&budget, &CALLER);
    first.reserve(50, false).await.unwrap();
    let mut second = part_of(&budget, &CALLER);
    let error = second.reserve(1, false).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Overloaded);
    drop(first);
    second.reserve(50, false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn memory_is_short_once_a_part_has_waited_for_a_quarter_of_the_limit() {
    let budget = Budget::new(50, 50, 0, WAIT_LIMIT);
    let mut first = part_of(&budget, &CALLER);
    first.reserve(50, false).await.unwrap();
    let mut second = part_of(&budget, &CALLER);
    let mut waits = std::pin::pin!(second.reserve(1, false));
    assert!(poll!(waits.as_mut()).is_pending());
    assert!(!budget.is_short(&CALLER));
    tokio::time::advance(WAIT_LIMIT / 3).await;
    assert!(budget.is_short(&CALLER));
    drop(first);
    waits.await.unwrap();
    assert!(!budget.is_short(&CALLER));
}

#[tokio::test(start_paused = true)]
async fn the_slowest_waiting_part_is_recalled() {
    let budget = Budget::new(150, 50, 0, WAIT_LIMIT);
    let (mut slow, mut slower) = (part_of(&budget, &CALLER), part_of(&budget, &CALLER));
    slow.reserve(60, false).await.unwrap();
    slower.reserve(40, false).await.unwrap();
    let mut reserved = part_of(&budget, &CALLER);
    reserved.reserve(50, false).await.unwrap();
    let slow_idles = tokio::spawn(recalled(slow, 60));
    let slower_idles = tokio::spawn(recalled(slower, 40));
    tokio::task::yield_now().await;
    let mut waiting = part_of(&budget, &CALLER);
    waiting.reserve(30, false).await.unwrap();
    slower_idles.await.unwrap();
    assert!(!slow_idles.is_finished());
}

#[tokio::test(start_paused = true)]
async fn no_more_parts_are_recalled_than_are_needed() {
    let budget = Budget::new(150, 50, 0, WAIT_LIMIT);
    let mut idling = Vec::new();
    for _ in 0..10 {
        let mut part = part_of(&budget, &CALLER);
        part.reserve(10, false).await.unwrap();
        idling.push(tokio::spawn(recalled(part, 10)));
    }
    let mut reserved = part_of(&budget, &CALLER);
    reserved.reserve(50, false).await.unwrap();
    tokio::task::yield_now().await;
    // All of them wait equally long, and the bytes of one recalled part are enough for all.
    let mut waiting: Vec<Reservation> = (0..10).map(|_| part_of(&budget, &CALLER)).collect();
    let reservations = waiting.iter_mut().map(|part| part.reserve(1, false));
    for reserved in futures::future::join_all(reservations).await {
        reserved.unwrap();
    }
    assert_eq!(idling.iter().filter(|idle| idle.is_finished()).count(), 1);
}

#[tokio::test]
async fn dropped_parts_return_their_reservations() {
    let budget = Budget::new(150, 50, 0, WAIT_LIMIT);
    for _ in 0..10 {
        let mut part = part_of(&budget, &CALLER);
        part.reserve(100, false).await.unwrap();
        part.reserve(50, false).await.unwrap();
    }
    let state = budget.lock();
    assert_eq!(
        (state.free, state.reserve, state.waiting.len()),
        (100, 50, 0)
    );
}

#[tokio::test]
async fn a_grant_to_a_cancelled_reservation_is_returned() {
    for bytes in [60, 10] {
        let budget = Budget::new(150, 50, 0, WAIT_LIMIT);
        let (mut reserved, mut holder) = (part_of(&budget, &CALLER), part_of(&budget, &CALLER));
        holder.reserve(100, false).await.unwrap();
        reserved.reserve(50, false).await.unwrap();
        let mut part = part_of(&budget, &CALLER);
        let mut waits = Box::pin(part.reserve(bytes, false));
        assert!(poll!(waits.as_mut()).is_pending());
        // Granted from the free bytes in the first case, and from the reserve in the second.
        drop(if bytes > 50 { holder } else { reserved });
        drop(waits);
        drop(part);
        let ledger = budget.lock();
        let left = if bytes > 50 { (100, 0) } else { (0, 50) };
        assert_eq!((ledger.free, ledger.reserve), left);
    }
}

/// A greedy caller reserves all memory: two parts that wait for their sender, the slower one last, and the reserve.
async fn reserve_everything(budget: &Arc<Budget>) -> [Reservation; 3] {
    let mut parts = [(); 3].map(|()| part_of(budget, &owner("greedy")));
    for (part, bytes) in parts.iter_mut().zip([60, 40, 50]) {
        part.reserve(bytes, false).await.unwrap();
    }
    parts
}

#[tokio::test]
async fn a_caller_beyond_its_share_is_served_after_the_others() {
    let budget = Budget::new(150, 50, 0, WAIT_LIMIT);
    let [first, mut fuller, _reserved] = reserve_everything(&budget).await;
    let mut part = part_of(&budget, &owner("modest"));
    let mut fuller_waits = std::pin::pin!(fuller.reserve(60, false));
    let mut modest_waits = std::pin::pin!(part.reserve(60, false));
    assert!(poll!(fuller_waits.as_mut()).is_pending());
    assert!(poll!(modest_waits.as_mut()).is_pending());
    drop(first);
    assert!(poll!(fuller_waits.as_mut()).is_pending());
    assert!(poll!(modest_waits.as_mut()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn only_parts_of_a_caller_beyond_its_share_are_recalled_early() {
    let budget = Budget::new(160, 50, 0, WAIT_LIMIT);
    let mut crawling = part_of(&budget, &owner("modest"));
    crawling.reserve(10, false).await.unwrap();
    let crawling = tokio::spawn(recalled(crawling, 1));
    let [first, second, _reserved] = reserve_everything(&budget).await;
    let first = tokio::spawn(recalled(first, 60));
    let second = tokio::spawn(recalled(second, 40));
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let mut part = part_of(&budget, &owner("modest"));
    part.reserve(30, false).await.unwrap();
    assert!(begun.elapsed() <= 2 * SHARE_PAUSE);
    second.await.unwrap();
    assert!(!first.is_finished() && !crawling.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_caller_beyond_its_share_does_not_block_other_callers() {
    let budget = Budget::new(150, 50, 0, WAIT_LIMIT);
    let [mut waiting, _second, _reserved] = reserve_everything(&budget).await;
    let _modest = part_of(&budget, &owner("modest"));
    let mut waits = std::pin::pin!(waiting.reserve(1, false));
    assert!(poll!(waits.as_mut()).is_pending());
    tokio::time::advance(WAIT_LIMIT / 3).await;
    assert!(budget.is_short(&owner("greedy")));
    assert!(!budget.is_short(&owner("modest")));
}

#[tokio::test]
async fn a_part_that_is_larger_than_the_budget_does_not_wait() {
    let budget = Budget::new(150, 50, 0, WAIT_LIMIT);
    let mut part = part_of(&budget, &CALLER);
    part.reserve(100, false).await.unwrap();
    let error = part.reserve(51, false).now_or_never().unwrap().unwrap_err();
    assert_eq!(error.reason(), Reason::BudgetTooSmall);
    assert!(!budget.is_short(&CALLER));
}

#[tokio::test]
async fn streams_one_after_the_other_do_not_add_kept_buffers() {
    let budget = Budget::new(10 * PART_SIZE, PART_SIZE, 0, WAIT_LIMIT);
    for _ in 0..4 {
        let mut parts = Vec::new();
        for number in 0..3 {
            let reuses = number > 0;
            let part = budget.buffer(&CALLER, budget.number(), 5 << 20, reuses);
            let mut part = part.unwrap();
            part.extend(&[7; 5 << 20]).await.unwrap();
            parts.push(part);
        }
        drop(parts);
        assert_eq!(budget.lock().spare.len(), 3);
        assert_eq!(budget.lock().free, 6 * PART_SIZE);
    }
}
