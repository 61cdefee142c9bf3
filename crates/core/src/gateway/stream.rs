//! Upload streams: their messages become parts, and the parts become an object.

mod admission;
mod age;
mod budget;
mod buffers;
mod copied;
mod hash;
mod heartbeat;
mod min_rate;
mod open;
mod overlap;
mod part;
mod receiver;
mod shared;
mod silence;
mod single_put;

use std::{sync::Arc, time::Duration};

use futures::Stream;
use tokio::{sync::Semaphore, time::timeout};

pub use self::budget::MessageMemory;
use self::{
    admission::{Admission, Permit},
    age::Age,
    budget::{Budget, overloaded},
    hash::Hasher,
    heartbeat::WriterHeartbeat,
    open::{Opened, Opener},
    part::PartWriter,
    receiver::Receiver,
    shared::Shared,
    silence::Silence,
};
use super::{
    caller::Caller,
    commit::Commits,
    drain::{Drain, draining},
    load::Load,
    message::{Counts, Message, Observer, Open},
    records::Records,
    recovery::{inspect::Inspector, rebuild::Rebuilder, session::Sessions},
    refusal::client_gone,
    settings::Settings,
    storage::Storages,
    token::Tokens,
};
use crate::{
    call,
    error::{Error, Kind, Result},
    meter::Meter,
    retry::CallWait,
    upload::Upload,
};

/// How long a stream may take for its first message, `open`.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How many streams open their uploads at a time. Each takes some 50 KiB of memory meanwhile.
const OPENING: usize = 64;

/// How long a stream waits for the others that open their uploads: the state store may be slow.
const OPENING_WAIT: Duration = Duration::from_secs(1);

/// Receives upload streams, within the limits of the process.
#[derive(Debug)]
pub struct Streams {
    shared: Arc<Shared>,
    storages: Storages,
    opener: Opener,
    opening: Semaphore,
    admission: Arc<Admission>,
}

/// The components that streams need.
pub(super) struct Base {
    pub(super) settings: Arc<Settings>,
    pub(super) storages: Storages,
    pub(super) records: Arc<Records>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) inspector: Arc<Inspector>,
    pub(super) commits: Arc<Commits>,
    pub(super) drain: Arc<Drain>,
    pub(super) meter: Arc<dyn Meter>,
}

// === impl Streams ===

impl Streams {
    /// Starts the hashing thread, and tests the hashing of batches.
    ///
    /// # Errors
    /// `Internal` if the system cannot start a thread.
    pub(super) fn start(base: Base) -> Result<Self> {
        let Base {
            settings,
            storages,
            records,
            tokens,
            sessions,
            inspector,
            commits,
            drain,
            meter,
        } = base;
        let hasher = Hasher::start(settings.simd_md5, Arc::clone(&meter))
            .map_err(|error| Error::internal("start the hashing thread", error))?;
        let budget = Budget::new(
            settings.memory_budget,
            storages.largest_part(),
            settings.max_message_size,
            settings.store_retry_timeout,
        );
        let opener = Opener {
            records: Arc::clone(&records),
            storages: storages.clone(),
            sessions: Arc::clone(&sessions),
            inspector: Arc::clone(&inspector),
            rebuilder: Rebuilder::new(Arc::clone(&records), storages.clone()),
            idle_timeout: settings.idle_timeout,
            memory_budget: settings.memory_budget,
            meter: Arc::clone(&meter),
        };
        let admission = Admission::new(settings.max_streams, settings.per_owner.streams as usize);
        let shared = Arc::new(Shared {
            parts: PartWriter {
                records: Arc::clone(&records),
                hasher: hasher.clone(),
                inspector: Arc::clone(&inspector),
                meter,
            },
            settings,
            records,
            tokens,
            sessions,
            inspector,
            commits,
            hasher,
            budget,
            drain,
        });
        Ok(Self {
            shared,
            storages,
            opener,
            opening: Semaphore::new(OPENING),
            admission,
        })
    }

    /// The memory of the messages of a new stream of `caller`.
    pub fn memory(&self, caller: &Caller) -> Arc<MessageMemory> {
        Arc::new(MessageMemory::new(&self.shared.budget, &caller.owner))
    }

    /// Receives one stream, until its upload is finished and verified in the store. Whole parts that were received are
    /// committed even if the stream fails. `memory` has the bytes of `messages` that have arrived, if their transport
    /// reserves memory for them.
    ///
    /// # Errors
    /// All kinds except `PermissionDenied` and `Unauthenticated`. Once an upload is open, the metadata contains
    /// `upload_id` and `committed_size`.
    pub async fn receive<S>(
        &self,
        caller: &Caller,
        memory: Arc<MessageMemory>,
        messages: &mut S,
        observer: Observer,
    ) -> Result<Upload>
    where
        S: Stream<Item = Result<Message>> + Unpin + Send,
    {
        let open = self.first(caller, &memory, messages).await?;
        // A stream has no permit before it is open: one that sends nothing must not prevent others.
        let _permit = self.admit(caller)?;
        // Boxed, to keep the future small: a connection holds it for as long as the stream lasts.
        let received = Box::pin(self.receive_admitted(caller, memory, open, messages, observer));
        call::scope(Arc::new(CallWait::default()), received).await
    }

    /// The load of the process.
    pub(super) fn load(&self) -> Load {
        let Shared {
            settings,
            budget,
            hasher,
            ..
        } = &*self.shared;
        let (reserved, waiting) = budget.load();
        Load {
            streams: self.admission.running() as u64,
            max_streams: settings.max_streams as u64,
            waiting,
            reserved,
            budget: settings.memory_budget,
            hashing: hasher.running(),
        }
    }

    /// Waits until no stream is running, including those whose callers have disconnected.
    pub async fn ended(&self) {
        self.admission.all_ended().await;
    }

    /// The first message of a stream of `caller`.
    ///
    /// # Errors
    /// `Unavailable` if the gateway drains, or if the message does not arrive in time; `ResourceExhausted` if the running
    /// streams have too little memory; `InvalidArgument` if it is another one.
    async fn first<S>(
        &self,
        caller: &Caller,
        memory: &MessageMemory,
        messages: &mut S,
    ) -> Result<Open>
    where
        S: Stream<Item = Result<Message>> + Unpin + Send,
    {
        let Shared {
            settings,
            budget,
            drain,
            ..
        } = &*self.shared;
        if drain.has_begun() {
            return Err(draining());
        }
        if budget.is_short(&caller.owner) {
            return Err(overloaded(Kind::ResourceExhausted));
        }
        let silence = Silence::begin(OPEN_TIMEOUT.min(settings.idle_timeout), memory);
        let first = tokio::select! {
            first = silence.next(messages) => first?,
            () = memory.recalled(None) => return Err(overloaded(Kind::Unavailable)),
            error = drain.begun() => return Err(error),
        };
        match first {
            Some(Message::Open(open)) => Ok(open),
            Some(_) => Err(Error::sequence("the first message must be open")),
            None => Err(Error::sequence(
                "the stream is empty; the first message must be open",
            )),
        }
    }

    /// Admits a stream of `caller`.
    ///
    /// # Errors
    /// `ResourceExhausted` if there are too many streams.
    fn admit(&self, caller: &Caller) -> Result<Permit> {
        self.admission.admit(&caller.owner)
    }

    async fn receive_admitted<S>(
        &self,
        caller: &Caller,
        memory: Arc<MessageMemory>,
        open: Open,
        messages: &mut S,
        mut observer: Observer,
    ) -> Result<Upload>
    where
        S: Stream<Item = Result<Message>> + Unpin + Send,
    {
        let Shared {
            settings,
            records,
            tokens,
            commits,
            ..
        } = &*self.shared;
        let (promised, copy_from) = (open.promised_md5(), open.copy_from());
        let snapshot = tokens.snapshot(caller, &open)?;
        let opening = timeout(OPENING_WAIT, self.opening.acquire()).await;
        let opened = tokio::select! {
            // First, because a write of the state store is completed even if its future is dropped.
            biased;
            // The caller may have opened another stream in the meantime, which this one must not take over.
            () = observer.opened.closed() => return Err(client_gone()),
            opened = Box::pin(self.opener.open(caller, open, snapshot.as_ref())) => opened?,
        };
        drop(opening);
        let (Opened::Writing(upload, ..) | Opened::Committing(upload) | Opened::Finished(upload)) =
            &opened;
        let mut trail = tokens.new_trail(upload);
        observer.counts.send_replace(Counts {
            committed_size: upload.committed_size(),
            received_size: upload.committed_size(),
            committing: false,
            resume_token: tokens.next_token(upload, &mut trail)?.into(),
        });
        let age = Age::begin(settings.stream_age, observer.moves_on);
        // Fails if the observer is not interested in it.
        let _ = observer.opened.send(upload.clone());
        match opened {
            Opened::Finished(upload) => Ok(upload),
            Opened::Committing(upload) => {
                let (id, committed_size) = (upload.id.clone(), upload.committed_size());
                let joined = Box::pin(commits.join(upload)).await;
                joined.map_err(|error| {
                    error
                        .with("upload_id", &id)
                        .with("committed_size", committed_size)
                })
            }
            Opened::Writing(upload, writer, takeovers) => {
                let mut heartbeat = WriterHeartbeat {
                    records: Arc::clone(records),
                    idle_timeout: settings.idle_timeout,
                    upload_id: upload.id.clone(),
                    version: upload.version,
                    writer,
                    takeovers,
                    counts: observer.counts.subscribe(),
                };
                let storage = self.storages.get(&upload.storage_id)?;
                let shared = Arc::clone(&self.shared);
                let mut receiver =
                    Receiver::new(shared, storage, memory, (upload, writer), observer.counts)?
                        .with_age(age.clone())
                        .promised(promised)
                        .with_copy_from(copy_from)
                        .with_resume_token(snapshot.as_ref(), trail);
                let result = tokio::select! {
                    result = receiver.run(messages) => result,
                    error = heartbeat.fenced() => Err(error),
                    never = age.announce() => match never {},
                };
                Box::pin(receiver.end(result)).await
            }
        }
    }
}
