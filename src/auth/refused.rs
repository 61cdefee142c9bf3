//! The body of a request that is refused by its head.
//!
//! h2 resets a stream whose request is not read to its end, and forgets it soon. Data of its client that is in flight then counts
//! as an error of the connection, and 1,024 of these end it (ENHANCE_YOUR_CALM), with all calls of other callers behind the
//! same proxy. A caller whose token has expired sends many such calls. Each is usually small and in flight already.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use futures::StreamExt;
use tokio::{sync::Semaphore, time::timeout};

/// How many bytes are discarded.
const MAX_DISCARDED: usize = 64 * 1024;

/// How long they may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// How many bodies are discarded at a time in this process. Other streams are reset at once.
static DISCARDING: Semaphore = Semaphore::const_new(1024);

/// Receives the rest of a body for a moment, beside the response to its request.
pub(super) fn discard(body: Body) {
    if body.is_end_stream() {
        return;
    }
    let Ok(permit) = DISCARDING.try_acquire() else {
        return;
    };
    tokio::spawn(async move {
        let _permit = permit;
        // What has not arrived by then is refused by the reset of the stream.
        let _ = timeout(DISCARD_TIMEOUT, receive(body)).await;
    });
}

async fn receive(body: Body) {
    let mut pieces = body.into_data_stream();
    let mut left = MAX_DISCARDED;
    while let Some(Ok(piece)) = pieces.next().await {
        match left.checked_sub(piece.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
