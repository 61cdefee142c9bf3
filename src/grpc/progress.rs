//! The progress of streams and copies, which tasks of their own receive.

use std::{pin::pin, time::Duration};

use futures::{StreamExt, stream, stream::BoxStream};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use upload_gateway_client::proto::v1::UploadProgress;
use upload_gateway_core::{
    error::{Error, Result},
    gateway::{Counts, Observer},
    upload,
};

use super::convert;
use crate::status::grpc_status;

/// How often received bytes are reported while nothing more is committed.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// After how long without progress the counts are sent again: proxies end streams that are silent for longer, while the
/// store makes the object.
const ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The messages of a call.
pub(super) type ProgressMessages = BoxStream<'static, Result<UploadProgress, Status>>;

/// How a receiving task reports its result.
pub(super) type Finished = oneshot::Sender<Result<upload::Upload>>;

/// A stream that its own task receives.
#[derive(Debug)]
pub(super) struct Receiving {
    opened: oneshot::Receiver<upload::Upload>,
    counts: watch::Receiver<Counts>,
    finished: oneshot::Receiver<Result<upload::Upload>>,
    /// Cancelled when this is dropped.
    cancelled: CancellationToken,
    _cancels: DropGuard,
}

/// The state of a stream of progress messages.
#[derive(Debug)]
enum Progress {
    Opening(Receiving),
    Running(upload::UploadId, Counts, Receiving),
    Ended,
}

/// What a receiving task reports to, and what follows it.
pub(super) fn observe(moves_on: CancellationToken) -> (Observer, Finished, Receiving) {
    let (opened, opened_by) = oneshot::channel();
    let (counts, counted) = watch::channel(Counts::default());
    let (finished, ended) = oneshot::channel();
    let cancelled = CancellationToken::new();
    let observer = Observer {
        opened,
        counts,
        moves_on,
    };
    let receiving = Receiving {
        opened: opened_by,
        counts: counted,
        finished: ended,
        _cancels: cancelled.clone().drop_guard(),
        cancelled,
    };
    (observer, finished, receiving)
}

/// The messages about a task: first the opened upload, then the latest sizes, last the complete upload.
pub(super) fn messages(receiving: Receiving) -> ProgressMessages {
    stream::unfold(Progress::Opening(receiving), Progress::next).boxed()
}

/// The result of the receiving task.
fn result_of<E>(received: Result<Result<upload::Upload>, E>) -> Result<upload::Upload> {
    received.unwrap_or_else(|_| {
        Err(Error::fault(
            "receive a stream: the task ended without a result",
        ))
    })
}

// === impl Receiving ===

impl Receiving {
    /// Cancelled when the client does not receive progress any more.
    pub(super) fn cancelled(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    /// Waits for the end of the stream.
    pub(super) async fn ended(self) -> Result<upload::Upload> {
        result_of(self.finished.await)
    }
}

// === impl Progress ===

impl Progress {
    /// The next message: first the opened upload, then the latest sizes, last the complete upload.
    async fn next(self) -> Option<(Result<UploadProgress, Status>, Self)> {
        match self {
            Self::Opening(mut receiving) => match (&mut receiving.opened).await {
                Ok(upload) => {
                    let counts = receiving.counts.borrow_and_update().clone();
                    let first = convert::progress_with_upload(
                        &upload,
                        counts.received_size,
                        &counts.resume_token,
                    );
                    Some((Ok(first), Self::Running(upload.id, counts, receiving)))
                }
                Err(_) => Some((Self::last(receiving.ended().await), Self::Ended)),
            },
            Self::Running(id, reported, receiving) => {
                Some(Self::run(id, reported, receiving).await)
            }
            Self::Ended => None,
        }
    }

    async fn run(
        id: upload::UploadId,
        reported: Counts,
        mut receiving: Receiving,
    ) -> (Result<UploadProgress, Status>, Self) {
        let Receiving {
            counts, finished, ..
        } = &mut receiving;
        let mut finished = pin!(finished);
        let alive = Instant::now() + ALIVE_INTERVAL;
        loop {
            tokio::select! {
                biased;
                result = finished.as_mut() => {
                    return (Self::last(result_of(result)), Self::Ended);
                }
                changed = counts.changed() => {
                    // The task has ended. Its result follows.
                    if changed.is_err() {
                        let result = finished.as_mut().await;
                        return (Self::last(result_of(result)), Self::Ended);
                    }
                }
                () = sleep(PROGRESS_INTERVAL) => {}
            }
            let latest = counts.borrow_and_update().clone();
            if latest != reported || Instant::now() >= alive {
                let has_moved = latest.committed_size != reported.committed_size;
                let token = has_moved.then_some(&*latest.resume_token);
                return (
                    Ok(convert::progress(&id, &latest, token)),
                    Self::Running(id, latest, receiving),
                );
            }
        }
    }

    fn last(result: Result<upload::Upload>) -> Result<UploadProgress, Status> {
        match result {
            Ok(upload) => Ok(convert::progress_with_upload(
                &upload,
                upload.committed_size(),
                "",
            )),
            Err(error) => Err(grpc_status(&error)),
        }
    }
}
