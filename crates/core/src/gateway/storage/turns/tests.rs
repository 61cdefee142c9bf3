use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use tokio::time::sleep;

use super::*;

fn upload() -> UploadId {
    UploadId::generate(None)
}

fn throttled() -> Result<()> {
    Err(Error::store_unavailable("slow down").congested())
}

/// How many parts per second a stream with eight parts in flight puts into a store that needs `latency` for each, from
/// `from` to `to` seconds. The store throttles one part after 20 seconds.
async fn rate(max: usize, latency: Duration, [from, to]: [u64; 2]) -> f64 {
    let (turns, upload, begun) = (Turns::new(max), upload(), Instant::now());
    let (counted, throttle) = (AtomicU32::new(0), AtomicBool::new(true));
    let senders = (0..8).map(|_| async {
        while begun.elapsed().as_secs() < to {
            let turn = turns.take(&upload).await.unwrap();
            let put = Instant::now();
            sleep(latency).await;
            if begun.elapsed().as_secs() >= 20 && throttle.swap(false, Ordering::Relaxed) {
                turn.report(put, &throttled());
                continue;
            }
            turn.report(put, &Ok(()));
            let seconds = begun.elapsed().as_secs();
            let counts = u32::from((from..to).contains(&seconds));
            counted.fetch_add(counts, Ordering::Relaxed);
        }
    });
    join_all(senders).await;
    f64::from(counted.into_inner()) / (to - from) as f64
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_nine_tenths_of_its_rate_ten_seconds_after_it_was_throttled() {
    for (max, latency) in [(16, 2500), (16, 100), (8, 1000), (8, 50)] {
        let latency = Duration::from_millis(latency);
        let before = rate(max, latency, [0, 20]).await;
        let after = rate(max, latency, [30, 50]).await;
        assert!(after >= 0.9 * before, "{max} {latency:?}: {before} {after}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_parts_are_in_flight_than_the_limit_allows() {
    let (turns, upload) = (Turns::new(4), upload());
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(turns.take(&upload).await.unwrap());
    }
    let mut next = Box::pin(turns.take(&upload));
    assert!(next.as_mut().now_or_never().is_none());
    taken[0].report(Instant::now(), &throttled());
    assert_eq!(turns.limit(), 2);
    // Three, then two parts are still in flight.
    taken.truncate(2);
    assert!(next.as_mut().now_or_never().is_none());
    taken.pop();
    assert!(next.now_or_never().is_some());
}

#[tokio::test]
async fn uploads_that_wait_get_turns_one_after_the_other() {
    let turns = Turns::new(1);
    let (greedy, modest) = (upload(), upload());
    let first = turns.take(&greedy).await.unwrap();
    let order = Mutex::new(Vec::new());
    let mut waiting: Vec<_> = [("greedy", &greedy); 3]
        .into_iter()
        .chain([("modest", &modest)])
        .map(|(name, upload)| {
            let (turns, order) = (&turns, &order);
            let wait = async move {
                let turn = turns.take(upload).await.unwrap();
                order.lock().unwrap().push(name);
                drop(turn);
            };
            Box::pin(wait)
        })
        .collect();
    // All wait before the first turn is returned.
    for wait in &mut waiting {
        assert!(wait.as_mut().now_or_never().is_none());
    }
    drop(first);
    join_all(waiting).await;
    assert_eq!(
        *order.lock().unwrap(),
        ["greedy", "modest", "greedy", "greedy"]
    );
}

#[tokio::test]
async fn parts_that_have_stopped_waiting_hold_up_no_others() {
    let turns = Turns::new(1);
    let first = turns.take(&upload()).await.unwrap();
    for _ in 0..100 {
        assert!(turns.take(&upload()).now_or_never().is_none());
    }
    assert!(turns.lock().waiting.len() <= 1, "the queue does not grow");
    let mut last = Box::pin(async { turns.take(&upload()).await });
    assert!(last.as_mut().now_or_never().is_none());
    drop(first);
    last.await.unwrap();
    assert_eq!(turns.lock().taken, 0);
}
