//! One stream that writes to one upload.
//!
//! The receiver splits the bytes at the part boundaries of the plan, whatever the sizes of the sender's chunks. A full
//! part is dispatched while the next one is received.

mod copied;
mod dispatch;
mod finish;
mod pieces;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use tokio::{sync::watch, task::JoinSet};

use self::pieces::{Arriving, undispatched};
use super::{
    age::Age,
    budget::{MessageMemory, overloaded},
    buffers::PartBuffer,
    heartbeat::leave,
    min_rate::MinRate,
    overlap::Overlap,
    part::{Destination, DigestChain},
    shared::Shared,
    silence::Silence,
};
use crate::{
    error::{Error, Kind, Reason, Result},
    gateway::{
        copy_from::CopyFrom,
        digest::committed_digest,
        drain::Drain,
        message::{Chunk, Counts, Finish, Message},
        refusal::{budget_too_small, too_large},
        storage::{HeldPart, Storage, UNCOUNTED},
    },
    upload::{Md5, Part, Phase, Snapshot, Span, Trail, Upload, WriterTag},
};

/// One stream that writes to one upload.
#[derive(Debug)]
pub(super) struct Receiver {
    shared: Arc<Shared>,
    storage: Arc<Storage>,
    memory: Arc<MessageMemory>,
    writer: WriterTag,
    upload: Upload,
    counts: watch::Sender<Counts>,
    /// The offset at which the next chunk must start. `None` before the first chunk.
    next_offset: Option<u64>,
    current_part: Option<CurrentPart>,
    /// The chunk that is arriving in pieces.
    arriving: Option<Arriving>,
    /// How long the gateway has waited for its pieces.
    waited: Duration,
    in_flight: JoinSet<Result<Part>>,
    destination: Option<Arc<Destination>>,
    chain: Option<DigestChain>,
    /// What the store can copy by itself.
    copy_from: Option<Arc<CopyFrom>>,
    /// The MD5 of the whole file in the first message of this stream.
    promised: Option<Md5>,
    min_rate: MinRate,
    /// Identifies the committed parts in the store, for resume tokens.
    trail: Trail,
    /// The committed size in the sender's resume token, in bytes.
    token_size: u64,
    overlap: Overlap,
    age: Age,
}

/// The part that is being received.
#[derive(Debug)]
struct CurrentPart {
    number: u32,
    span: Span,
    buffer: PartBuffer,
}

// === impl Receiver ===

impl Receiver {
    /// A receiver for `upload`, which the stream `writer` has taken over.
    ///
    /// # Errors
    /// `Internal` if the digest state in the record is invalid.
    pub(super) fn new(
        shared: Arc<Shared>,
        storage: Arc<Storage>,
        memory: Arc<MessageMemory>,
        (upload, writer): (Upload, WriterTag),
        counts: watch::Sender<Counts>,
    ) -> Result<Self> {
        let chain = committed_digest(&upload)?.map(DigestChain::from);
        let settings = &shared.settings;
        let min_rate = MinRate::new(settings.min_rate, settings.min_rate_window);
        Ok(Self {
            trail: Trail::new(&storage.capabilities()),
            shared,
            storage,
            memory,
            writer,
            upload,
            counts,
            next_offset: None,
            current_part: None,
            arriving: None,
            waited: Duration::ZERO,
            in_flight: JoinSet::new(),
            destination: None,
            chain,
            copy_from: None,
            promised: None,
            min_rate,
            token_size: 0,
            overlap: Overlap::default(),
            age: Age::default(),
        })
    }

    /// Sets the MD5 from the first message, against which the file is checked.
    pub(super) fn promised(self, promised: Option<Md5>) -> Self {
        Self { promised, ..self }
    }

    /// Sets what the store can copy by itself.
    pub(super) fn with_copy_from(self, copy_from: Option<Arc<CopyFrom>>) -> Self {
        Self { copy_from, ..self }
    }

    /// Sets when the stream moves.
    pub(super) fn with_age(self, age: Age) -> Self {
        Self { age, ..self }
    }

    /// Sets the snapshot in the sender's resume token, and the trail to continue.
    pub(super) fn with_resume_token(self, snapshot: Option<&Snapshot>, trail: Trail) -> Self {
        Self {
            token_size: snapshot.map_or(0, Snapshot::size),
            trail,
            ..self
        }
    }

    /// Receives messages until the upload is finished or the stream fails. Can be cancelled at any time; call
    /// [`Receiver::end`] afterwards.
    pub(super) async fn run<S>(&mut self, messages: &mut S) -> Result<Upload>
    where
        S: Stream<Item = Result<Message>> + Unpin + Send,
    {
        let shared = Arc::clone(&self.shared);
        loop {
            match self.next(messages).await? {
                Some(Message::Chunk(chunk)) => tokio::select! {
                    taken = self.chunk(chunk) => taken?,
                    error = shared.drain.streams_end() => return Err(error),
                },
                Some(Message::Piece(piece)) => tokio::select! {
                    taken = self.piece(piece) => taken?,
                    error = shared.drain.streams_end() => return Err(error),
                },
                Some(Message::ChunkEnd(end)) => tokio::select! {
                    taken = self.end_chunk(end) => taken?,
                    error = shared.drain.streams_end() => return Err(error),
                },
                Some(Message::Void) => self.void(),
                Some(Message::Finish(finish)) => {
                    return Box::pin(self.finish(finish, None, messages)).await;
                }
                Some(Message::FinishCopy(proof)) => {
                    let finish = Finish::default();
                    return Box::pin(self.finish(finish, Some(proof), messages)).await;
                }
                Some(Message::CopyPart(number)) => tokio::select! {
                    copied = self.copy_part(number) => copied?,
                    error = shared.drain.streams_end() => return Err(error),
                },
                Some(Message::CopyObject) => return Box::pin(self.copy_object()).await,
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

    /// The next message. Parts that are stored in the meantime are counted.
    async fn next<S>(&mut self, messages: &mut S) -> Result<Option<Message>>
    where
        S: Stream<Item = Result<Message>> + Unpin + Send,
    {
        // What has arrived of the same chunk is taken first, which takes less time than to wait for everything below.
        if self.arriving.is_some()
            && let Some(message) = messages.next().now_or_never()
        {
            return self.received(message.transpose()?, Duration::ZERO);
        }
        let memory = Arc::clone(&self.memory);
        let limit = self.shared.settings.idle_timeout;
        let silence = Silence::begin(limit.saturating_sub(self.waited), &memory);
        let within_part = self.is_within_part();
        loop {
            tokio::select! {
                message = silence.next(messages) => return self.received(message?, silence.waited()),
                Some(stored) = self.in_flight.join_next() => self.settle(stored)?,
                () = recalled(&memory, undispatched(self.arriving.as_ref(), self.current_part.as_ref())) => return Err(overloaded(Kind::Unavailable)),
                error = must_leave(&self.shared.drain, &self.age), if !within_part => return Err(error),
                error = self.shared.drain.streams_end() => return Err(error),
            }
        }
    }

    /// A message for which the gateway has waited. All pieces of a chunk together must arrive within the limit for one message.
    fn received(&mut self, message: Option<Message>, waited: Duration) -> Result<Option<Message>> {
        let size = match &message {
            Some(Message::Piece(piece)) => {
                self.waited += waited;
                self.min_rate.record(waited, piece.len())?;
                return Ok(message);
            }
            Some(Message::ChunkEnd(_) | Message::Void) => 0,
            Some(_) if self.arriving.is_some() => {
                return Err(Error::fault("receive a message: a chunk has not ended"));
            }
            Some(Message::Chunk(chunk)) => chunk.data.len(),
            Some(_) | None => return Ok(message),
        };
        self.waited = Duration::ZERO;
        self.min_rate.record(waited, size)?;
        Ok(message)
    }

    /// Whether the end of the stream would lose something here: the bytes of a part, or the fact that the file is
    /// whole.
    fn is_within_part(&self) -> bool {
        let is_whole = self.next_offset.is_some() && self.next_offset == self.upload.settled_size();
        undispatched(self.arriving.as_ref(), self.current_part.as_ref()).is_some() || is_whole
    }

    async fn chunk(&mut self, chunk: Chunk) -> Result<()> {
        chunk.check()?;
        let Chunk { offset, data, .. } = chunk;
        if data.is_empty() {
            return Ok(());
        }
        self.check_offset(offset)?;
        self.check_end(offset, data.len())?;
        let end = offset + data.len() as u64;
        self.place(offset, data).await?;
        self.count_received(end);
        Ok(())
    }

    /// Copies bytes into their parts. A part that is full is dispatched, unless a chunk in it is still arriving.
    async fn place(&mut self, mut offset: u64, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            let mut current_part = match self.current_part.take() {
                Some(current_part) => current_part,
                None => self.begin_part(offset).await?,
            };
            let room = to_usize(current_part.span.size) - current_part.buffer.len();
            let piece = data.split_to(room.min(data.len()));
            let length = current_part.buffer.len() + piece.len();
            if length as u64 > UNCOUNTED && !current_part.buffer.is_held() {
                let held = self.hold(current_part.span).await;
                current_part.buffer.set_held(held);
            }
            current_part.buffer.extend(&piece).await?;
            if let Some(before) = self.arriving.as_ref().map(Arriving::full_size) {
                let received = before + current_part.buffer.len() as u64;
                current_part.buffer.reservation().fill(received);
            }
            offset += piece.len() as u64;
            if self.arriving.is_none() {
                self.next_offset = Some(offset);
            }
            if piece.len() < room || self.is_kept_for_single_put() {
                self.current_part = Some(current_part);
            } else if let Some(full) = self.held_back(current_part) {
                self.dispatch(full).await?;
                self.leave_between_parts()?;
            }
        }
        Ok(())
    }

    /// Ends the stream if it must end between two parts, and is there.
    fn leave_between_parts(&self) -> Result<()> {
        let leaves = || must_leave(&self.shared.drain, &self.age).now_or_never();
        match leaves().filter(|_| !self.is_within_part()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Counts the bytes up to `end` as received. Does not wake the observer, which reads it together with the committed size.
    fn count_received(&self, end: u64) {
        self.counts.send_if_modified(|counts| {
            counts.received_size = end.max(counts.received_size);
            false
        });
    }

    /// The first chunk must start at `committed_size` or at an earlier part boundary, every other chunk at the end of
    /// the one before.
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
        let is_lost = self.next_offset.is_none() && committed < self.token_size.min(offset);
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
                format!("the file ends at byte {size}, but the chunk ends at byte {end}"),
            )
            .with("file_size", size)),
            Some(_) => Ok(()),
            None => match self.shared.records.max_size(&self.upload, &self.storage) {
                max if end > max => Err(too_large(max)),
                _ => Ok(()),
            },
        }
    }

    /// The part that begins at `offset`.
    async fn begin_part(&self, offset: u64) -> Result<CurrentPart> {
        let number = self.upload.plan.part_beginning_at(offset);
        let planned = number.and_then(|number| self.upload.span(number).map(|span| (number, span)));
        let (number, span) =
            planned.ok_or_else(|| Error::fault("begin a part: outside the plan"))?;
        if !self.storage.holds_part(span.size) {
            let memory_budget = self.shared.settings.memory_budget;
            return Err(budget_too_small(span.size, memory_budget));
        }
        // A kept buffer counts fully from its first byte. So only a sender that has already sent a part gets one: a
        // slow sender must not occupy more memory than it has sent, nor wait before it has sent much.
        let reuses = self.next_offset.is_some();
        let held = match reuses && span.size > UNCOUNTED {
            true => Some(self.hold(span).await),
            false => None,
        };
        let budget = &self.shared.budget;
        let mut buffer = budget.buffer(
            &self.upload.owner,
            self.memory.stream(),
            to_usize(span.size),
            reuses,
        )?;
        if let Some(held) = held {
            buffer.set_held(held);
        }
        Ok(CurrentPart {
            number,
            span,
            buffer,
        })
    }

    /// Waits until a part may be in memory.
    async fn hold(&self, span: Span) -> HeldPart {
        let lanes = self.md5_lanes();
        let budget = &self.shared.budget;
        let intake = &self.storage.intake;
        let begun = intake.begin(&self.upload.owner, (span.size, lanes), || {
            budget.is_short_now()
        });
        begun.await
    }

    /// Whether the file is put as one object, after the sender has finished it.
    fn is_kept_for_single_put(&self) -> bool {
        self.upload
            .settled_size()
            .is_some_and(|size| self.upload.fits_single_put(size))
    }

    /// Waits until whole parts are stored before a failure is returned. After a takeover they are cancelled.
    pub(super) async fn end(mut self, result: Result<Upload>) -> Result<Upload> {
        let mut error = match result {
            Ok(upload) => return Ok(upload),
            Err(error) => error,
        };
        // The incomplete part is lost, and other streams may wait for its memory. So are the parts in which a chunk has not ended.
        (self.current_part, self.arriving) = (None, None);
        if matches!(error.reason(), Reason::TakenOver | Reason::StateLost) {
            self.in_flight.shutdown().await;
        }
        self.settle_rest().await;
        if error.reason() == Reason::SessionLost && self.upload.phase == Phase::Open {
            match self
                .shared
                .inspector
                .session_lost(&mut self.upload, error)
                .await
            {
                Ok(()) => return Ok(self.upload),
                Err(why) => error = why,
            }
        }
        let is_writer = !matches!(error.reason(), Reason::TakenOver | Reason::StateUnavailable);
        if is_writer && self.upload.phase == Phase::Open {
            leave(&self.shared.records, &mut self.upload).await;
        }
        Err(error
            .with("upload_id", &self.upload.id)
            .with("committed_size", self.upload.committed_size()))
    }
}

/// Waits until a stream must end between two parts.
async fn must_leave(drain: &Drain, age: &Age) -> Error {
    tokio::select! {
        error = drain.begun() => error,
        error = age.passed() => error,
    }
}

/// Returns when the memory of the stream is recalled for other streams.
async fn recalled(memory: &MessageMemory, part: Option<(&CurrentPart, u64)>) {
    let part = part.map(|(part, received)| (part.buffer.reservation(), received));
    memory.recalled(part).await;
}

/// Converts a size that is bounded by the memory budget.
fn to_usize(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
