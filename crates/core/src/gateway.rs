//! The use cases: they put the domain and the two ports in sequence, and decide nothing that the domain decides.
//!
//! [`Gateway::receive`] takes a stream of [`Message`]s to a verified object; the record's other calls are here.

mod admission;
mod budget;
mod buffers;
mod commit;
mod dispatch;
mod download;
mod drain;
mod finish;
mod hash;
mod inspect;
mod message;
mod min_rate;
mod open;
mod overlap;
mod part;
mod rebuild;
mod receive;
mod search;
mod session;
mod signing;
mod step;
mod storage;
mod sweep;
mod token;
mod writer;

use std::{
    fmt::Debug,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use self::{admission::Admission, budget::Budget, drain::Drain, hash::Hasher};
pub use self::{
    download::{DOWNLOAD_LIFETIME, Download},
    message::{Chunk, Counts, Finish, Message, Observer, Open, Takeover, Target},
    search::{Found, SEARCHED_UPLOADS, Search},
    signing::MAX_SIGNED_PARTS,
    step::{KnownPart, Next, PartToSign, Report, SignedStep, StepType},
    storage::{Storage, Storages},
    sweep::{Sweep, SweepReport},
    token::TokenKey,
};
use crate::{
    blobs::{Session, sign::sending_lifetime},
    error::{Error, Kind, Reason, Result},
    retry::Retry,
    state::{Cursor, ListPage, ListQuery, StateStore, Times, Update},
    upload::{
        ACTIVE_WINDOW, Event, MIB, Owner, Phase, Plan, SINGLE_PUT_MAX, Secret, StoreKind,
        Timestamp, Upload, UploadId,
    },
};

/// How often a watched upload is read.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// The size in bytes of a chunk that goes through best: big enough that its framing costs nothing, small enough that a
/// stream's window of 256 KiB does not wait for it.
const PREFERRED_CHUNK_SIZE: u64 = 256 * 1024;

/// What the gateway may use and how long it waits.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of files in memory, all streams together.
    pub memory_budget: u64,
    /// Parts of one upload that are on their way to the store at once.
    pub parts_in_flight: usize,
    /// Parts of all uploads that are on their way to one store at once.
    pub parts_in_flight_total: usize,
    /// The largest file in bytes, where the operator wants less than the store takes.
    pub max_file_size: Option<u64>,
    /// The largest message in bytes.
    pub max_message_size: u64,
    /// Streams that run at once.
    pub max_streams: usize,
    /// How long a stream may be silent.
    pub idle_timeout: Duration,
    /// The bytes a second that a sender must come to while it is waited for; 0: any.
    pub min_rate: u64,
    /// Over how much waiting that is averaged.
    pub min_rate_window: Duration,
    /// How long a stream is held while a store or the state store is away.
    pub store_retry_timeout: Duration,
    /// When another committer may begin: so long after the first, who gives up 30 s before, or a third of it, so that they
    /// are never two where clocks differ by less. Longer than the store's slowest answer and the patience with it.
    pub commit_lease: Duration,
    /// How long an OPEN upload is kept after its last change.
    pub upload_expiry: Duration,
    /// How old an OPEN upload may become, however much it changes.
    pub upload_max_age: Duration,
    /// The keys of resume tokens: the first seals, all open. None: a key made of the deployment's secret, which a state
    /// store that is flushed while no gateway runs does not keep.
    pub token_keys: Vec<TokenKey>,
}

/// Who calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// What the caller's uploads are filed under.
    pub owner: Owner,
}

/// What the gateway takes, for one storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The storage.
    pub storage_id: String,
    /// Its kind.
    pub store_kind: StoreKind,
    /// The largest file of declared size, in bytes.
    pub max_file_size: u64,
    /// The largest file of unknown size, in bytes.
    pub max_unknown_file_size: u64,
    /// The least part size, in bytes.
    pub part_size: u64,
    /// The largest file that is stored by a single put, in bytes.
    pub max_single_put_size: u64,
    /// The largest message, in bytes.
    pub max_message_size: u64,
    /// The chunk size that goes through best, in bytes.
    pub preferred_chunk_size: u64,
    /// How long a stream may be silent.
    pub idle_timeout: Duration,
    /// How long an OPEN upload is kept after its last change.
    pub expiry: Duration,
    /// The bytes a second that a sender must come to while it is waited for; 0: any.
    pub min_rate: u64,
    /// Over how much waiting that is averaged.
    pub min_rate_window: Duration,
}

/// Tells the time; injected so that tests can own it.
pub trait Clock: Send + Sync + Debug {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The gateway: all use cases over one state store and the configured storages.
#[derive(Debug)]
pub struct Gateway {
    state: Arc<dyn StateStore>,
    storages: Storages,
    settings: Settings,
    clock: Arc<dyn Clock>,
    secret: RwLock<Secret>,
    retry: Retry,
    budget: Arc<Budget>,
    hasher: Hasher,
    admission: Arc<Admission>,
    drain: Drain,
}

// === impl Gateway ===

impl Gateway {
    /// A gateway over `state` and `storages`; reads or makes the deployment's secret.
    ///
    /// # Errors
    /// The state store is away for longer than the patience, or the operating system gives no thread.
    pub async fn new(
        state: Arc<dyn StateStore>,
        storages: Storages,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let retry = Retry::new(settings.store_retry_timeout);
        let offered = Secret::random();
        let secret = retry.run(|| state.secret(&offered)).await?;
        let largest_part = settings.memory_budget / 4 / MIB * MIB;
        let storages = storages.with_parts(largest_part, settings.parts_in_flight_total);
        Ok(Self {
            budget: Budget::new(
                settings.memory_budget,
                storages.largest_part(),
                settings.store_retry_timeout,
            ),
            hasher: Hasher::start(settings.parts_in_flight)
                .map_err(|error| Error::internal("start the hashing thread", error))?,
            admission: Admission::new(settings.max_streams),
            drain: Drain::default(),
            state,
            storages,
            settings,
            clock,
            secret: RwLock::new(secret),
            retry,
        })
    }

    /// The configured storages.
    pub fn storages(&self) -> &Storages {
        &self.storages
    }

    /// Reads an upload of the caller's.
    ///
    /// # Errors
    /// `NotFound`, also for somebody else's.
    pub async fn get_upload(&self, caller: &Caller, id: &UploadId) -> Result<Upload> {
        let found = self.retry.run(|| self.state.get(id)).await?;
        found
            .filter(|upload| upload.owner == caller.owner)
            .ok_or_else(|| Error::upload_not_found(id))
    }

    /// Lists the caller's uploads, newest first.
    ///
    /// # Errors
    /// The state store is away.
    pub async fn list_uploads(
        &self,
        caller: &Caller,
        phase: Option<Phase>,
        limit: usize,
        after: Option<Cursor>,
    ) -> Result<ListPage> {
        let query = ListQuery {
            owner: caller.owner.clone(),
            phase,
            limit,
            after,
        };
        self.retry.run(|| self.state.list(&query)).await
    }

    /// Gives an OPEN upload up, and then its session in the store. Repeatable: repeated, it ends the session again.
    ///
    /// # Errors
    /// `NotFound`, also of its storage; `FailedPrecondition` while it is COMMITTING and when it is COMPLETE.
    pub async fn delete_upload(&self, caller: &Caller, id: &UploadId) -> Result<Upload> {
        let mut upload = self.get_upload(caller, id).await?;
        self.storages.get(&upload.storage_id)?;
        self.transition(&mut upload, &Event::Abandoned, Fence::None)
            .await?;
        self.discard(&upload).await?;
        Ok(upload)
    }

    /// Says what the gateway takes for a storage, the default one where `storage_id` is empty.
    ///
    /// # Errors
    /// `NotFound` where there is no such storage.
    pub fn limits(&self, storage_id: &str) -> Result<Limits> {
        let storage = self.storages.get(storage_id)?;
        let bounded = |size: u64| {
            self.settings
                .max_file_size
                .map_or(size, |max| max.min(size))
        };
        Ok(Limits {
            storage_id: storage.id.clone(),
            store_kind: storage.store.kind(),
            max_file_size: bounded(Plan::max_known(&storage.limits)),
            max_unknown_file_size: bounded(
                Plan::unknown(storage.part_size, &storage.limits).capacity(),
            ),
            part_size: storage.part_size,
            max_single_put_size: SINGLE_PUT_MAX,
            max_message_size: self.settings.max_message_size,
            preferred_chunk_size: PREFERRED_CHUNK_SIZE,
            idle_timeout: self.settings.idle_timeout,
            expiry: self.settings.upload_expiry,
            min_rate: self.settings.min_rate,
            min_rate_window: self.settings.min_rate_window,
        })
    }

    /// Waits until an upload differs from `seen` and returns it as it then is.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` when the gateway drains.
    pub async fn next_change(&self, caller: &Caller, seen: &Upload) -> Result<Upload> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(WATCH_INTERVAL) => {}
                error = self.drained() => return Err(error),
            }
            let upload = self.get_upload(caller, &seen.id).await?;
            if upload != *seen {
                return Ok(upload);
            }
        }
    }

    /// Whether the state store and every storage answer; the error names the first that does not. A state store that was
    /// flushed gets the deployment's secret back.
    ///
    /// # Errors
    /// What that one said.
    pub async fn check(&self) -> Result<()> {
        self.state.check().await?;
        self.keep_secret().await?;
        for storage in self.storages.iter() {
            storage.store.check().await?;
        }
        Ok(())
    }

    /// Offers the secret again, so that all gateways have the same one also after the state store lost it.
    async fn keep_secret(&self) -> Result<()> {
        let own = self.secret();
        let kept = self.state.secret(&own).await?;
        if kept != own {
            tracing::warn!(
                "the state store has another secret: resume tokens without configured keys are void"
            );
            *self.secret.write().unwrap_or_else(PoisonError::into_inner) = kept;
        }
        Ok(())
    }

    fn secret(&self) -> Secret {
        let secret = self.secret.read().unwrap_or_else(PoisonError::into_inner);
        secret.clone()
    }

    /// Applies an event and stores the record. Where somebody else changed it in between, the event is applied to what
    /// they left.
    async fn transition(&self, upload: &mut Upload, event: &Event, fence: Fence) -> Result<()> {
        loop {
            let mut changed = upload.clone();
            let applied = changed.apply(event.clone()).map_err(|rejected| {
                Error::precondition(Reason::WrongPhase, rejected.to_string())
                    .with("phase", rejected.0)
            })?;
            if applied == crate::upload::Applied::Same {
                return Ok(());
            }
            self.stamp(&mut changed);
            let update = || self.state.update(&changed, upload.writer);
            match self.retry.run(update).await? {
                Update::Updated(version) => {
                    changed.version = version;
                    *upload = changed;
                    return Ok(());
                }
                Update::Conflict(current) => {
                    if fence == Fence::Writer && current.version < upload.version {
                        return Err(state_lost());
                    }
                    if fence == Fence::Writer && current.writer != upload.writer {
                        return Err(taken_over());
                    }
                    *upload = *current;
                }
                Update::Missing if fence == Fence::Writer => return Err(state_lost()),
                Update::Missing => return Err(Error::upload_not_found(&upload.id)),
            }
        }
    }

    /// Applies an event that ends an OPEN upload, and tells whether it did: not where anybody has touched the record after
    /// `seen`.
    async fn end_untouched(
        &self,
        upload: &mut Upload,
        event: Event,
        seen: Timestamp,
    ) -> Result<bool> {
        let mut ended = upload.clone();
        if ended.apply(event).is_err() {
            return Ok(false);
        }
        self.stamp(&mut ended);
        let update = || self.state.update_untouched(&ended, seen);
        match self.retry.run(update).await? {
            Update::Updated(version) => {
                *upload = Upload { version, ..ended };
                Ok(true)
            }
            Update::Conflict(_) | Update::Missing => Ok(false),
        }
    }

    /// Leaves nothing of an abandoned upload in the store: neither its session nor an object that nobody came to record.
    /// Its key is nobody else's.
    async fn discard(&self, upload: &Upload) -> Result<()> {
        self.end_session(upload).await?;
        let (storage, key) = (self.storages.get(&upload.storage_id)?, &upload.object_key);
        self.retry.run(|| storage.store.delete(key)).await
    }

    async fn end_session(&self, upload: &Upload) -> Result<()> {
        let Some(id) = &upload.session else {
            return Ok(());
        };
        let storage = self.storages.get(&upload.storage_id)?;
        let session = Session {
            key: &upload.object_key,
            id,
        };
        self.retry.run(|| storage.store.abort(&session)).await
    }

    /// Ends a session that `why` kept out of the record; one that got there all the same is somebody's.
    async fn end_unrecorded(&self, upload: &Upload, session: &str, why: &Error) {
        // A lost answer tells nothing of what was recorded.
        if why.is_retryable() && why.reason() != Reason::StateLost {
            return;
        }
        let Ok(found) = self.state.get(&upload.id).await else {
            return;
        };
        if found.is_some_and(|found| found.session.as_deref() == Some(session)) {
            return;
        }
        let unrecorded = Upload {
            session: Some(session.to_owned()),
            ..upload.clone()
        };
        if let Err(error) = self.end_session(&unrecorded).await {
            tracing::warn!(upload_id = %upload.id, %error, "a session that nobody uses stays behind");
        }
    }

    /// Often enough that no sweeper takes a running stream's upload for abandoned.
    fn heartbeat_interval(&self) -> Duration {
        self.settings.upload_expiry.min(ACTIVE_WINDOW) / 3
    }

    /// Sets the times of a record that changes. One that is ABORTED lasts until no client can send anything of it any
    /// more: until the last signature has ended, and then as long again for what was begun just before.
    fn stamp(&self, upload: &mut Upload) {
        let Times { now, expires_at } = self.times();
        (upload.updated_at, upload.expires_at) = (now, expires_at);
        if upload.phase == Phase::Aborted {
            let part_size = upload.plan.part_size().unwrap_or(0);
            let signed = sending_lifetime(part_size.max(SINGLE_PUT_MAX));
            upload.expires_at = expires_at.max(now.plus(2 * signed));
        }
    }

    fn times(&self) -> Times {
        let now = self.clock.now();
        Times {
            now,
            expires_at: now.plus(self.settings.upload_expiry),
        }
    }
}

/// Whose change of a record is honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fence {
    /// Only the present writer's.
    Writer,
    /// Any change.
    None,
}

fn taken_over() -> Error {
    Error::new(
        Kind::Aborted,
        Reason::TakenOver,
        "a newer stream has taken this upload over",
    )
}

/// The end of a stream whose record the state store lost, or has as it was before the stream opened it.
fn state_lost() -> Error {
    Error::new(
        Kind::Unavailable,
        Reason::StateLost,
        "the state store lost what it had recorded; open again with the resume token",
    )
    .retry_after(Duration::from_millis(100))
}

/// A size that is bounded by the memory budget, as memory sizes are counted.
fn to_usize(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
