//! A running upload or download: a stream of what happens, and the result.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio_stream::Stream;

use crate::{
    error::ClientError,
    proto::v1::{Phase, Upload, UploadProgress},
};

/// The number of events that wait to be read. When there are more, the oldest is discarded.
const MAX_WAITING: usize = 64;

/// What happens during an upload or a download.
///
/// # Examples
/// ```
/// use upload_gateway_client::Event;
///
/// fn print(event: &Event) {
///     match event {
///         Event::Opened { upload, offset } => println!("{} from byte {offset}", upload.upload_id),
///         Event::Progress(progress) => println!("{} bytes are committed", progress.committed_size),
///         Event::Retrying { cause, delay } => println!("{cause}; next try in {delay:?}"),
///     }
/// }
/// ```
#[derive(Debug)]
pub enum Event {
    /// The gateway has opened the upload. Each try of an upload reports it; a download reports it when it begins, or begins
    /// again.
    Opened {
        /// The record.
        upload: Box<Upload>,
        /// Where the transfer begins, in bytes. 0 unless it continues an earlier one.
        offset: u64,
    },
    /// More bytes were transferred, or the phase has changed. If several wait to be read, only the newest is kept.
    Progress(Progress),
    /// A try has failed, and another one follows.
    Retrying {
        /// Why it failed.
        cause: ClientError,
        /// The time until the next try.
        delay: Duration,
    },
}

/// How far an upload or a download is.
///
/// # Examples
/// ```
/// use upload_gateway_client::Progress;
///
/// let progress = Progress { committed_size: 5, received_size: 7, ..Progress::default() };
/// assert_eq!(progress.size(), 7);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The upload.
    pub upload_id: String,
    /// The end of the contiguous committed bytes. Uploads through the gateway only.
    pub committed_size: u64,
    /// The bytes that have arrived: at the gateway, at the store (direct uploads), or here (downloads).
    pub received_size: u64,
    /// The phase of the upload.
    pub phase: Phase,
}

/// An upload or a download that runs while this is polled, and stops when this is dropped. It is a [`Stream`] of events;
/// [`Transfer::finish`] returns the result.
///
/// # Examples
/// ```no_run
/// use upload_gateway_client::{Client, Event, Source};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mut transfer = client.upload("report.pdf", Source::open("report.pdf").await?).start();
/// while let Some(event) = transfer.next().await {
///     if let Event::Progress(progress) = event {
///         println!("{} bytes", progress.size());
///     }
/// }
/// let uploaded = transfer.finish().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a transfer runs only while it is polled"]
pub struct Transfer<T> {
    events: Events,
    state: State<T>,
}

enum State<T> {
    Running(Pin<Box<dyn Future<Output = Result<T, ClientError>> + Send>>),
    Ended(Result<T, ClientError>),
}

/// Where a transfer reports its events. Clones report to the same place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Events(Arc<Mutex<VecDeque<Event>>>);

// === impl Event ===

impl Event {
    pub(crate) fn opened(upload: &Upload, offset: u64) -> Self {
        Self::Opened {
            upload: upload.clone().into(),
            offset,
        }
    }
}

// === impl Progress ===

impl Progress {
    /// The bytes that have arrived, received or committed.
    pub fn size(&self) -> u64 {
        self.received_size.max(self.committed_size)
    }
}

impl From<&UploadProgress> for Progress {
    fn from(progress: &UploadProgress) -> Self {
        Self {
            upload_id: progress.upload_id.clone(),
            committed_size: u64::try_from(progress.committed_size).unwrap_or_default(),
            received_size: u64::try_from(progress.received_size).unwrap_or_default(),
            phase: progress.phase(),
        }
    }
}

// === impl Transfer ===

impl<T> Transfer<T> {
    /// Runs `work`, which reports to the events that it is given.
    pub(crate) fn new<F>(work: impl FnOnce(Events) -> F) -> Self
    where
        F: Future<Output = Result<T, ClientError>> + Send + 'static,
    {
        let events = Events::default();
        Self {
            state: State::Running(Box::pin(work(events.clone()))),
            events,
        }
    }

    /// Runs until the next event. `None`: the transfer has ended. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| self.poll_event(context)).await
    }

    /// Runs to the end, and returns the result.
    ///
    /// # Errors
    /// Those of the call that began the transfer.
    pub async fn finish(mut self) -> Result<T, ClientError> {
        loop {
            if let State::Ended(result) = self.state {
                return result;
            }
            self.next().await;
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Some(event) = self.events.pop() {
            return Poll::Ready(Some(event));
        }
        let State::Running(work) = &mut self.state else {
            return Poll::Ready(None);
        };
        let polled = work.as_mut().poll(context);
        let is_running = polled.is_pending();
        if let Poll::Ready(result) = polled {
            self.state = State::Ended(result);
        }
        match self.events.pop() {
            Some(event) => Poll::Ready(Some(event)),
            None if is_running => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

impl<T: Unpin> Stream for Transfer<T> {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_event(context)
    }
}

impl<T: Send + 'static> IntoFuture for Transfer<T> {
    type Output = Result<T, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.finish())
    }
}

impl<T> fmt::Debug for Transfer<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.state {
            State::Running(_) => "Transfer(running)",
            State::Ended(_) => "Transfer(ended)",
        })
    }
}

// === impl Events ===

impl Events {
    /// Reports an event. A progress that was not read yet is replaced by a newer one.
    pub(crate) fn report(&self, event: Event) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(Event::Progress(last)), Event::Progress(progress)) =
            (waiting.back_mut(), &event)
        {
            last.clone_from(progress);
            return;
        }
        if waiting.len() == MAX_WAITING {
            waiting.pop_front();
        }
        waiting.push_back(event);
    }

    fn pop(&self) -> Option<Event> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(received_size: u64) -> Event {
        Event::Progress(Progress {
            received_size,
            ..Progress::default()
        })
    }

    #[tokio::test]
    async fn events_arrive_in_order_and_only_the_newest_progress_of_several() {
        let mut transfer = Transfer::new(|events| async move {
            events.report(Event::opened(&Upload::default(), 0));
            events.report(progress(1));
            events.report(progress(2));
            tokio::task::yield_now().await;
            events.report(progress(3));
            Ok(7)
        });
        assert!(matches!(transfer.next().await, Some(Event::Opened { .. })));
        for expected in [2, 3] {
            let Some(Event::Progress(progress)) = transfer.next().await else {
                panic!("no progress {expected}");
            };
            assert_eq!(progress.size(), expected);
        }
        assert!(transfer.next().await.is_none());
        assert_eq!(transfer.finish().await.unwrap(), 7);
    }

    #[tokio::test]
    async fn events_that_are_not_read_are_bounded() {
        let transfer = Transfer::new(|events| async move {
            for _ in 0..10 * MAX_WAITING {
                events.report(Event::opened(&Upload::default(), 0));
            }
            let waiting = events.0.lock().unwrap().len();
            Ok(waiting)
        });
        assert_eq!(transfer.await.unwrap(), MAX_WAITING);
    }
}
