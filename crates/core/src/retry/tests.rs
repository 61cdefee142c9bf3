//! Retries under a paused clock.

use std::cell::Cell;

use super::*;
use crate::error::Kind;

#[tokio::test(start_paused = true)]
async fn a_short_outage_causes_no_error() {
    let available_from = Instant::now() + Duration::from_secs(20);
    let retry = Retry::new(Duration::from_secs(30));
    let result = retry
        .run(|| async move {
            if Instant::now() < available_from {
                Err(Error::state_unavailable("unreachable"))
            } else {
                Ok(())
            }
        })
        .await;
    assert!(result.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_longer_outage_is_an_error_with_a_retry_delay() {
    let begin = Instant::now();
    let retry = Retry::new(Duration::from_secs(30));
    let error = retry
        .run(|| async { Err::<(), _>(Error::state_unavailable("unreachable")) })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.retry_delay().is_some());
    let waited = begin.elapsed();
    assert!(
        waited > Duration::from_secs(25) && waited <= Duration::from_secs(30),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_times_out_is_not_retried_longer_than_one_that_fails() {
    let begin = Instant::now();
    let retry = Retry::new(Duration::from_secs(30));
    let result = retry
        .run(|| async {
            sleep(Duration::from_secs(20)).await;
            Err::<(), _>(Error::store_unavailable("timed out"))
        })
        .await;
    assert!(result.is_err());
    assert!(
        begin.elapsed() <= Duration::from_secs(30),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_permanent_failure_is_not_retried() {
    let calls = Cell::new(0);
    let retry = Retry::new(Duration::from_secs(30));
    let result: Result<()> = retry
        .run(|| async {
            calls.set(calls.get() + 1);
            Err(Error::fault("no"))
        })
        .await;
    assert!(result.is_err());
    assert_eq!(calls.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_the_operator_is_tried_once_more_at_once() {
    let (begin, calls) = (Instant::now(), Cell::new(0));
    let retry = Retry::new(Duration::from_secs(30));
    let refused = retry
        .run(|| async {
            calls.set(calls.get() + 1);
            Err::<(), _>(Error::for_operator("AccessDenied", "no"))
        })
        .await
        .unwrap_err();
    assert_eq!((calls.get(), begin.elapsed()), (2, Duration::ZERO));
    assert_eq!(refused.kind(), Kind::Unavailable);
    assert_eq!(refused.retry_delay(), Some(Duration::from_secs(30)));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_not_retried_if_the_store_asks_for_more_time_than_is_left() {
    let retry = Retry::new(Duration::from_secs(30));
    let busy = || async {
        let error = Error::store_unavailable("busy");
        Err::<(), _>(error.retry_after(Duration::from_secs(u64::MAX)))
    };
    assert!(retry.run(busy).await.is_err());
}

/// A thousand calls wait for a store that is unavailable for 20 seconds.
#[tokio::test(start_paused = true)]
async fn the_retry_budget_limits_many_callers_and_lets_them_notice_the_end_of_an_outage() {
    let retry = Retry::new(Duration::from_secs(30));
    let available_from = Instant::now() + Duration::from_secs(20);
    let tries = Cell::new(0_u32);
    let calls = (0..1000).map(|_| {
        retry.run(|| async {
            if Instant::now() < available_from {
                tries.set(tries.get() + 1);
                Err(Error::store_unavailable("unreachable"))
            } else {
                Ok(())
            }
        })
    });
    let results = futures::future::join_all(calls).await;
    assert!(results.iter().all(Result::is_ok));
    // A tenth of the calls, the full budget, and 10 per second.
    let retries = tries.get() - 1000;
    assert!(retries <= 100 + 100 + 200, "{retries}");
    let delay = Instant::now() - available_from;
    assert!(delay < Duration::from_secs(9), "{delay:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_not_retried_before_the_delay_that_the_store_asks_for() {
    let begin = Instant::now();
    let asked = Cell::new(0);
    let retry = Retry::new(Duration::from_secs(30));
    let result = retry.run(|| async {
        asked.set(asked.get() + 1);
        if asked.get() < 3 {
            let busy = Error::store_unavailable("slow down");
            return Err(busy.retry_after(Duration::from_secs(4)));
        }
        Ok(())
    });
    result.await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(8));
}

/// A request that fails for 20 seconds and then succeeds.
async fn outage_of_20_seconds(retry: &Retry) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    let request = || async move {
        if Instant::now() < end {
            return Err(Error::store_unavailable("unreachable"));
        }
        Ok(())
    };
    retry.run(request).await
}

#[tokio::test(start_paused = true)]
async fn all_requests_of_a_call_share_one_retry_time_out() {
    let retry = Retry::new(Duration::from_secs(30));
    let begun = Instant::now();
    let call = async {
        outage_of_20_seconds(&retry).await.unwrap();
        sleep(Duration::from_secs(60)).await;
        outage_of_20_seconds(&retry).await
    };
    let second = call::scope(Arc::new(CallWait::default()), call).await;
    assert!(second.is_err());
    let waited = begun.elapsed() - Duration::from_secs(60);
    assert!(waited <= Duration::from_secs(31), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_of_a_call_wait_at_the_same_time() {
    let retry = Retry::new(Duration::from_secs(30));
    let call = async {
        let both = (outage_of_20_seconds(&retry), outage_of_20_seconds(&retry));
        futures::future::join(both.0, both.1).await
    };
    let (first, second) = call::scope(Arc::new(CallWait::default()), call).await;
    assert!(first.is_ok() && second.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_bytes_move_is_not_cut() {
    let retry = Retry::new(Duration::from_secs(30));
    let attempts = Cell::new(0);
    let put = retry.run_in_turns(|| async {
        attempts.set(attempts.get() + 1);
        sleep(Duration::from_secs(300)).await;
        let result = match attempts.get() {
            1 => Err(Error::store_unavailable("slow down")),
            _ => Ok(()),
        };
        (Duration::ZERO, result)
    });
    put.await.unwrap();
    assert_eq!(attempts.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_turn_does_not_count() {
    let retry = Retry::new(Duration::from_secs(30));
    let hour = Duration::from_secs(3600);
    let attempts = Cell::new(0);
    let put = retry.run_in_turns(|| async {
        attempts.set(attempts.get() + 1);
        sleep(hour).await;
        let result = match attempts.get() {
            ..4 => Err(Error::store_unavailable("slow down")),
            _ => Ok(()),
        };
        (hour, result)
    });
    let call = async {
        put.await.unwrap();
        outage_of_20_seconds(&retry).await
    };
    let after = call::scope(Arc::new(CallWait::default()), call).await;
    assert!(after.is_ok());
    assert_eq!(attempts.get(), 4);
}

#[tokio::test(start_paused = true)]
async fn puts_that_fail_are_retried_for_the_retry_time_out() {
    let begun = Instant::now();
    let retry = Retry::new(Duration::from_secs(30));
    let put = retry.run_in_turns(|| async {
        sleep(Duration::from_secs(20)).await;
        (
            Duration::ZERO,
            Err::<(), _>(Error::store_unavailable("timed out")),
        )
    });
    assert!(put.await.is_err());
    // One attempt before the time-out begins, and one that begins shortly before it ends.
    assert!(
        begun.elapsed() <= Duration::from_secs(70),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_makes_progress_gets_the_full_retry_time_out_again() {
    let retry = Retry::new(Duration::from_secs(30));
    let call = async {
        outage_of_20_seconds(&retry).await.unwrap();
        CallWait::reset();
        outage_of_20_seconds(&retry).await
    };
    let second = call::scope(Arc::new(CallWait::default()), call).await;
    assert!(second.is_ok());
}

/// Counts the retries of the state store.
#[derive(Debug, Default)]
struct Counted(std::sync::atomic::AtomicU32);

impl Meter for Counted {
    fn note(&self, done: Done<'_>) {
        if matches!(done, Done::Retried { storage: None, .. }) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_retry_is_measured_and_a_first_attempt_is_not() {
    let counted = Arc::new(Counted::default());
    let retry = Retry::new(Duration::from_secs(30)).measured(Arc::clone(&counted) as _);
    let (left, attempts) = (Cell::new(3), Cell::new(0));
    let answer = retry.run(|| {
        attempts.set(attempts.get() + 1);
        let fails = left.replace(left.get() - 1) > 0;
        async move {
            match fails {
                true => Err(Error::state_unavailable("unreachable")),
                false => Ok(()),
            }
        }
    });
    answer.await.unwrap();
    assert_eq!(attempts.get(), 4);
    assert_eq!(counted.0.load(std::sync::atomic::Ordering::Relaxed), 3);
}
