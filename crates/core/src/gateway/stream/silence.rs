//! Waiting for a sender.

use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::time::{Instant, timeout_at};

use crate::{
    error::{Error, Kind, Reason, Result},
    gateway::message::Message,
};

/// The next message, if it arrives before `deadline`; `None` at the end of the stream.
///
/// # Errors
/// `Unavailable`, `IdleTimeout`; those of the stream.
pub(super) async fn next_before<S>(messages: &mut S, deadline: Instant) -> Result<Option<Message>>
where
    S: Stream<Item = Result<Message>> + Unpin + Send,
{
    let silent = |_| {
        Error::new(
            Kind::Unavailable,
            Reason::IdleTimeout,
            "the stream was silent for too long; resume it",
        )
        .retry_after(Duration::from_secs(1))
    };
    timeout_at(deadline, messages.next())
        .await
        .map_err(silent)?
        .transpose()
}
