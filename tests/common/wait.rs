//! Waiting for events in other tasks and processes.

use std::{thread, time::Duration};

use tokio::time::{sleep, timeout};

/// How long an event may take on a busy machine. No test waits this long if it passes.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The time between two attempts.
const INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `is_done` returns true; panics with `what` after [`WAIT_TIMEOUT`].
pub async fn until(what: &str, mut is_done: impl AsyncFnMut() -> bool) {
    let done = timeout(WAIT_TIMEOUT, async {
        while !is_done().await {
            sleep(INTERVAL).await;
        }
    });
    done.await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// Repeats a call while it is refused with UNAVAILABLE, as it is between the two observations of a store. Returns the last
/// refusal.
pub async fn refused_for_good<T: std::fmt::Debug>(
    mut call: impl AsyncFnMut() -> Result<T, tonic::Status>,
) -> tonic::Status {
    let mut last = None;
    until("the second observation", async || {
        let refused = call().await.unwrap_err();
        let is_final = refused.code() != tonic::Code::Unavailable;
        last = Some(refused);
        is_final
    })
    .await;
    last.unwrap()
}

/// Calls `ask` until it returns an answer; `None` after [`WAIT_TIMEOUT`]. It blocks the thread, and also works in tests
/// that pause tokio's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "waits for another process, also in tests that pause tokio's clock"
)]
pub fn poll<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let attempts = WAIT_TIMEOUT.as_millis() / INTERVAL.as_millis();
    for _ in 0..attempts {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        thread::sleep(INTERVAL);
    }
    None
}
