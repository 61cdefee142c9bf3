//! Waits for the messages of a sender.

use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::budget::MessageMemory;
use crate::{
    error::{Error, Kind, Reason, Result},
    gateway::message::Message,
};

/// The wait for one message, from its first missing byte. Time in which the gateway has no memory for it does not count.
#[derive(Debug)]
pub(super) struct Silence<'a> {
    begun: Instant,
    limit: Duration,
    memory: &'a MessageMemory,
    /// How long the stream had waited for memory before.
    waited_before: Duration,
}

// === impl Silence ===

impl<'a> Silence<'a> {
    /// Begins to wait, for at most `limit`.
    pub(super) fn begin(limit: Duration, memory: &'a MessageMemory) -> Self {
        Self {
            begun: Instant::now(),
            limit,
            memory,
            waited_before: memory.waited(),
        }
    }

    /// The next message, if it arrives within the limit; `None` at the end of the stream.
    ///
    /// # Errors
    /// `Unavailable` with `IdleTimeout` after the limit; the errors of the stream.
    pub(super) async fn next<S>(&self, messages: &mut S) -> Result<Option<Message>>
    where
        S: Stream<Item = Result<Message>> + Unpin + Send,
    {
        loop {
            let deadline = self.begun + self.limit + self.without_memory();
            match timeout_at(deadline, messages.next()).await {
                Ok(message) => return message.transpose(),
                Err(_) if self.waited() < self.limit => {}
                Err(_) => return Err(too_long()),
            }
        }
    }

    /// How long the gateway has waited for the sender.
    pub(super) fn waited(&self) -> Duration {
        self.begun.elapsed().saturating_sub(self.without_memory())
    }

    /// How long it has waited for memory instead.
    fn without_memory(&self) -> Duration {
        self.memory.waited() - self.waited_before
    }
}

fn too_long() -> Error {
    Error::new(
        Kind::Unavailable,
        Reason::IdleTimeout,
        "the stream was silent for too long; resume it",
    )
    .retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::stream::pending;
    use tokio::time::sleep;

    use super::*;
    use crate::{gateway::stream::budget::Budget, upload::Owner};

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn time_without_memory_does_not_count_as_silence() {
        let budget = Budget::new(100, 100, 0, Duration::from_secs(100));
        let memory = || MessageMemory::new(&budget, &Owner::default());
        let (other, stream) = (memory(), Arc::new(memory()));
        other.arrive(100, 0).await.unwrap();
        let begun = Instant::now();
        let waits = Arc::clone(&stream);
        tokio::spawn(async move {
            sleep(Duration::from_secs(10)).await;
            waits.arrive(1, 0).await
        });
        tokio::spawn(async move {
            sleep(Duration::from_secs(90)).await;
            drop(other);
        });
        let silence = Silence::begin(LIMIT, &stream);
        let error = silence.next(&mut pending()).await.unwrap_err();
        assert_eq!(error.reason(), Reason::IdleTimeout);
        // 80 s of them without memory.
        assert_eq!(begun.elapsed().as_secs(), 140);
        assert_eq!(silence.waited(), LIMIT);
    }
}
