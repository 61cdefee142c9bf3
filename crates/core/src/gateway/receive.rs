//! A stream of messages becomes parts, and the parts an object.
//!
//! The receiver cuts what arrives at the plan's borders, whatever the sender's chunks are. A full part goes its own way
//! ([`dispatch`](super::dispatch)) while the next one fills.

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    Caller, Gateway, Storage,
    budget::overloaded,
    buffers::PartBuffer,
    drain::draining,
    message::{Chunk, Counts, Message, Observer},
    min_rate::MinRate,
    open::{Opened, too_large},
    overlap::{Overlap, digest_so_far},
    part::{Destination, DigestChain},
    to_usize,
    writer::WriterHeartbeat,
};
use crate::{
    error::{Error, Kind, Reason, Result},
    upload::{Md5, Part, Phase, Span, Trail, Upload, WriterTag},
};

/// One stream that writes to one upload.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) gateway: Arc<Gateway>,
    pub(super) storage: Arc<Storage>,
    pub(super) writer: WriterTag,
    pub(super) upload: Upload,
    pub(super) counts: watch::Sender<Counts>,
    /// Where the next chunk begins, once there was a first one.
    pub(super) next_offset: Option<u64>,
    pub(super) current_part: Option<CurrentPart>,
    pub(super) in_flight: JoinSet<Result<Part>>,
    pub(super) destination: Option<Arc<Destination>>,
    pub(super) chain: Option<DigestChain>,
    /// The MD5 of the whole file that this stream was opened with.
    pub(super) promised: Option<Md5>,
    min_rate: MinRate,
    /// What identifies the committed parts in the store.
    pub(super) trail: Trail,
    /// How many bytes were committed, by the sender's resume token.
    vouched_size: u64,
    pub(super) overlap: Option<Overlap>,
}

/// The part that is being received.
#[derive(Debug)]
pub(super) struct CurrentPart {
    pub(super) number: u32,
    pub(super) span: Span,
    pub(super) buffer: PartBuffer,
}

// === impl Gateway ===

impl Gateway {
    /// Takes one stream to its end: the finished upload, verified in the store. Whole parts that were received are
    /// committed also when it fails.
    ///
    /// # Errors
    /// All kinds but `PermissionDenied` and `Unauthenticated`; once an upload is open, the metadata names `upload_id` and
    /// `committed_size`.
    pub async fn receive<S>(
        self: Arc<Self>,
        caller: &Caller,
        messages: &mut S,
        mut observer: Observer,
    ) -> Result<Upload>
    where
        S: Stream<Item = Result<Message>> + Unpin + Send,
    {
        let _place = self.admit(caller)?;
        let first = tokio::select! {
            first = next_before(messages, Instant::now() + self.settings.idle_timeout) => first?,
            error = self.drained() => return Err(error),
        };
        let open = match first {
            Some(Message::Open(open)) => open,
            Some(_) => return Err(Error::sequence("the first message must be open")),
            None => {
                return Err(Error::sequence(
                    "the stream is empty; the first message must be open",
                ));
            }
        };
        let promised = open.promised_md5();
        let snapshot = self.snapshot(caller, &open)?;
        // What runs for a moment is boxed here and below: a stream's own future lasts as long as it does.
        let opened = tokio::select! {
            opened = Box::pin(self.open(caller, open, snapshot.as_ref())) => opened?,
            // It may be back with another stream by now, which this one must not end.
            () = observer.opened.closed() => return Err(abandoned()),
        };
        let (Opened::Writing(upload, ..) | Opened::Committing(upload) | Opened::Finished(upload)) =
            &opened;
        let mut trail = self.new_trail(upload);
        observer.counts.send_replace(Counts {
            committed_size: upload.committed_size(),
            received_size: upload.committed_size(),
            committing: false,
            resume_token: self.next_token(upload, &mut trail).into(),
        });
        // Whoever does not look at it does not get it.
        let _ = observer.opened.send(upload.clone());
        match opened {
            Opened::Finished(upload) => Ok(upload),
            Opened::Committing(upload) => {
                let (id, committed_size) = (upload.id.clone(), upload.committed_size());
                let joined = Box::pin(self.join_commit(upload)).await;
                joined.map_err(|error| {
                    error
                        .with("upload_id", &id)
                        .with("committed_size", committed_size)
                })
            }
            Opened::Writing(upload, writer, takeovers) => {
                let mut heartbeat = WriterHeartbeat {
                    gateway: Arc::clone(&self),
                    upload_id: upload.id.clone(),
                    version: upload.version,
                    writer,
                    takeovers,
                };
                let mut receiver = Receiver::new(self, upload, writer, observer.counts)?;
                receiver.promised = promised;
                receiver.trail = trail;
                receiver.vouched_size = snapshot.map_or(0, |snapshot| snapshot.size());
                let result = tokio::select! {
                    result = receiver.run(messages) => result,
                    error = heartbeat.fenced() => Err(error),
                };
                Box::pin(receiver.end(result)).await
            }
        }
    }
}

/// Nobody is there to be told.
fn abandoned() -> Error {
    let message = "the caller went away before its upload was open";
    Error::new(Kind::Cancelled, Reason::ClientGone, message)
}

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

/// Ends when others need the memory of the part that is being received more than it does.
async fn recalled(current_part: Option<&CurrentPart>) {
    match current_part {
        Some(current_part) => current_part.buffer.recalled().await,
        None => std::future::pending().await,
    }
}

// === impl Receiver ===

impl Receiver {
    fn new(
        gateway: Arc<Gateway>,
        upload: Upload,
        writer: WriterTag,
        counts: watch::Sender<Counts>,
    ) -> Result<Self> {
        let storage = gateway.storages.get(&upload.storage_id)?;
        let chain = digest_so_far(&upload)?.map(DigestChain::from);
        let settings = &gateway.settings;
        let min_rate = MinRate::new(settings.min_rate, settings.min_rate_window);
        Ok(Self {
            storage,
            writer,
            trail: gateway.new_trail(&upload),
            upload,
            counts,
            next_offset: None,
            current_part: None,
            in_flight: JoinSet::new(),
            destination: None,
            gateway,
            chain,
            promised: None,
            min_rate,
            vouched_size: 0,
            overlap: None,
        })
    }

    /// Takes messages to the finished upload, or to an error; may be dropped at any moment, and then be ended.
    async fn run<S>(&mut self, messages: &mut S) -> Result<Upload>
    where
        S: Stream<Item = Result<Message>> + Unpin + Send,
    {
        let gateway = Arc::clone(&self.gateway);
        loop {
            match self.next(messages).await? {
                Some(Message::Chunk(chunk)) => tokio::select! {
                    taken = self.chunk(chunk) => taken?,
                    error = gateway.ended() => return Err(error),
                },
                Some(Message::Finish(finish)) => {
                    return Box::pin(self.finish(finish, messages)).await;
                }
                Some(Message::Open(_)) => {
                    return Err(Error::sequence("the stream is open already"));
                }
                None => {
                    self.settle_all().await?;
                    return Err(Error::precondition(
                        Reason::Incomplete,
                        "the stream ended without finish; whole parts are kept, resume by upload_id",
                    ));
                }
            }
        }
    }

    /// The next message; parts that come to their end meanwhile are counted.
    async fn next<S>(&mut self, messages: &mut S) -> Result<Option<Message>>
    where
        S: Stream<Item = Result<Message>> + Unpin + Send,
    {
        let begun = Instant::now();
        let deadline = begun + self.gateway.settings.idle_timeout;
        let within_part = self.is_within_part();
        loop {
            tokio::select! {
                message = next_before(messages, deadline) => {
                    if let Ok(Some(Message::Chunk(chunk))) = &message {
                        self.min_rate.record(begun.elapsed(), chunk.data.len())?;
                    }
                    return message;
                }
                Some(stored) = self.in_flight.join_next() => self.settle(stored)?,
                () = recalled(self.current_part.as_ref()) => return Err(overloaded(Kind::Unavailable)),
                error = self.gateway.drained(), if !within_part => return Err(error),
                error = self.gateway.ended() => return Err(error),
            }
        }
    }

    /// Whether something is lost if the stream ends here: bytes of a part, or that the file is whole.
    fn is_within_part(&self) -> bool {
        let is_whole = self.next_offset.is_some() && self.next_offset == self.upload.settled_size();
        self.current_part.is_some() || is_whole
    }

    async fn chunk(&mut self, chunk: Chunk) -> Result<()> {
        chunk.check()?;
        let Chunk {
            offset, mut data, ..
        } = chunk;
        if data.is_empty() {
            return Ok(());
        }
        self.check_offset(offset)?;
        self.check_end(offset, data.len())?;
        let mut offset = offset;
        while !data.is_empty() {
            let mut current_part = match self.current_part.take() {
                Some(current_part) => current_part,
                None => self.begin_part(offset)?,
            };
            let room = to_usize(current_part.span.size) - current_part.buffer.len();
            let piece = data.split_to(room.min(data.len()));
            current_part.buffer.extend(&piece).await?;
            offset += piece.len() as u64;
            self.next_offset = Some(offset);
            if piece.len() == room && !self.is_held_for_single_put() {
                self.dispatch(current_part).await?;
                if self.gateway.is_draining() && !self.is_within_part() {
                    return Err(draining());
                }
            } else {
                self.current_part = Some(current_part);
            }
        }
        // Nobody is woken for it: it is read along with what is committed.
        self.counts.send_if_modified(|counts| {
            counts.received_size = offset.max(counts.received_size);
            false
        });
        Ok(())
    }

    /// The first chunk begins at `committed_size` or at an earlier part, every other where the one before ended.
    fn check_offset(&self, offset: u64) -> Result<()> {
        let committed = self.upload.committed_size();
        let (expected, fits) = match self.next_offset {
            Some(next) => (next, offset == next),
            None => {
                let begins_part = self.upload.plan.part_beginning_at(offset).is_some();
                (
                    committed,
                    offset == committed || (offset < committed && begins_part),
                )
            }
        };
        if fits {
            return Ok(());
        }
        let error = Error::wrong_offset(expected, offset);
        let is_lost = self.next_offset.is_none() && committed < self.vouched_size.min(offset);
        Err(if is_lost {
            error.because(Reason::StateLost)
        } else {
            error
        })
    }

    fn check_end(&self, offset: u64, length: usize) -> Result<()> {
        let end = offset.saturating_add(length as u64);
        match self.upload.settled_size() {
            Some(size) if end > size => Err(Error::new(
                Kind::OutOfRange,
                Reason::SizeExceeded,
                format!("the file ends at {size}, the chunk at {end}"),
            )
            .with("file_size", size)),
            Some(_) => Ok(()),
            None => match self.gateway.max_size(&self.upload) {
                max if end > max => Err(too_large(max)),
                _ => Ok(()),
            },
        }
    }

    pub(super) fn begin_part(&self, offset: u64) -> Result<CurrentPart> {
        let number = self.upload.plan.part_beginning_at(offset);
        let planned = number.and_then(|number| self.upload.span(number).map(|span| (number, span)));
        let (number, span) =
            planned.ok_or_else(|| Error::fault("begin a part: outside the plan"))?;
        // Only who has sent a part already gets used memory, all of which counts from the first byte on: a slow sender
        // must not hold more than it sent.
        let reuses = self.next_offset.is_some();
        let budget = &self.gateway.budget;
        let buffer = budget.buffer(&self.upload.owner, to_usize(span.size), reuses)?;
        Ok(CurrentPart {
            number,
            span,
            buffer,
        })
    }

    /// A small file goes to the store whole, and only once the sender has said that it is whole.
    fn is_held_for_single_put(&self) -> bool {
        self.upload
            .settled_size()
            .is_some_and(|size| self.upload.fits_single_put(size))
    }

    /// Lets whole parts come to their end before a failure is passed on; another writer's parts are not waited for.
    async fn end(mut self, result: Result<Upload>) -> Result<Upload> {
        let mut error = match result {
            Ok(upload) => return Ok(upload),
            Err(error) => error,
        };
        // It is lost, and others may be waiting for its memory.
        self.current_part = None;
        if matches!(error.reason(), Reason::TakenOver | Reason::StateLost) {
            self.in_flight.shutdown().await;
        }
        self.settle_rest().await;
        if error.reason() == Reason::SessionLost && self.upload.phase == Phase::Open {
            match self.gateway.session_lost(&mut self.upload, error).await {
                Ok(()) => return Ok(self.upload),
                Err(why) => error = why,
            }
        }
        let is_writer = !matches!(error.reason(), Reason::TakenOver | Reason::StateUnavailable);
        if is_writer && self.upload.phase == Phase::Open {
            self.gateway.leave(&mut self.upload).await;
        }
        Err(error
            .with("upload_id", &self.upload.id)
            .with("committed_size", self.upload.committed_size()))
    }
}
