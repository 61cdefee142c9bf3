//! The age of a stream: an old one ends between two parts, and its sender resumes over another connection.
//!
//! Connections stay where they are, often for days, so a replica that starts later would get none of the streams that run.

use std::{convert::Infallible, future::pending, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Reason};

/// How long before its end a stream announces that it moves, so that the connection has sent GOAWAY by then.
const NOTICE: Duration = Duration::from_millis(200);

/// The longest delay after which a sender resumes. Spread out, but shorter than people notice.
const RESUME_WITHIN: Duration = Duration::from_millis(100);

/// When a stream moves.
#[derive(Debug, Clone, Default)]
pub(super) struct Age {
    /// None: never.
    announced: Option<Instant>,
    moves_on: CancellationToken,
}

// === impl Age ===

impl Age {
    /// A stream that begins now and announces its move after `limit` ± 10 %, by cancelling `moves_on`.
    pub(super) fn begin(limit: Option<Duration>, moves_on: CancellationToken) -> Self {
        // Spread out, so that streams that began together do not move together.
        let age = limit.map(|limit| limit.mul_f64(rand::random_range(0.9..=1.1)));
        Self {
            announced: age.map(|age| Instant::now() + age),
            moves_on,
        }
    }

    /// Announces the move. Never returns.
    pub(super) async fn announce(&self) -> Infallible {
        if let Some(announced) = self.announced {
            sleep_until(announced).await;
            self.moves_on.cancel();
        }
        pending().await
    }

    /// Waits until the stream must end between two parts.
    pub(super) async fn passed(&self) -> Error {
        match self.announced {
            Some(announced) => sleep_until(announced + NOTICE).await,
            None => pending().await,
        }
        let soon = RESUME_WITHIN.mul_f64(rand::random());
        Error::new(
            Kind::Unavailable,
            Reason::MoveOn,
            "the stream has reached limits.stream_age_seconds; resume by upload_id over a new connection",
        )
        .retry_after(soon)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(100);

    #[tokio::test(start_paused = true)]
    async fn a_stream_announces_its_move_within_ten_percent_of_the_limit_and_then_ends() {
        for _ in 0..100 {
            let (begun, moves_on) = (Instant::now(), CancellationToken::new());
            let age = Age::begin(Some(LIMIT), moves_on.clone());
            let announced = async {
                tokio::select! {
                    never = age.announce() => match never {},
                    () = moves_on.cancelled() => begun.elapsed(),
                }
            };
            let announced = announced.await;
            assert!((90..=110).contains(&announced.as_secs()), "{announced:?}");
            assert!(age.passed().now_or_never().is_none());
            let error = age.passed().await;
            assert_eq!(error.reason(), Reason::MoveOn);
            assert!(error.retry_delay().unwrap() <= RESUME_WITHIN);
            assert_eq!(begun.elapsed(), announced + NOTICE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_a_stream_never_moves() {
        let age = Age::begin(None, CancellationToken::new());
        let day = Duration::from_secs(24 * 60 * 60);
        assert!(tokio::time::timeout(day, age.passed()).await.is_err());
        assert!(!age.moves_on.is_cancelled());
    }
}
