//! The use cases. They call the domain and the ports in the right order, and leave the decisions to the domain.
//!
//! [`Gateway`] is a façade of components that own their state: [`Records`], [`Streams`], [`Signing`], [`Downloads`] and
//! [`Sweeper`].

mod audit;
mod caller;
mod commit;
mod copy;
mod copy_from;
mod digest;
mod download;
mod drain;
mod load;
mod message;
mod object_records;
mod record_keys;
mod records;
mod recovery;
mod refusal;
mod settings;
mod signing;
mod stops;
mod storage;
mod stream;
mod token;
mod token_key;

use std::sync::Arc;

use self::{
    audit::audit,
    commit::Commits,
    object_records::ObjectRecords,
    record_keys::RecordKeys,
    records::Fence,
    recovery::{denials::Denials, inspect::Inspector, memory::RecordMemory, session::Sessions},
    stream::Base,
};
pub use self::{
    caller::{Action, Caller, Roles, Scope},
    copy::CopyTo,
    copy_from::CopyFrom,
    download::{DOWNLOAD_LIFETIME, Downloads, StoredFile},
    drain::Drain,
    load::Load,
    message::{
        Chunk, ChunkEnd, Counts, Finish, FinishCopy, Message, Observer, Open, Takeover, Target,
    },
    object_records::restore::{Restore, RestoreReport},
    records::{
        Records,
        adopt::AdoptReport,
        read::PartPage,
        search::{
            Found, MAX_PAGE_LENGTH, MAX_PAGE_SIZE, MAX_SKIPPED, SEARCHED_UPLOADS, Search, Start,
        },
        watch::RecordWatch,
    },
    recovery::sweep::{Sweep, SweepReport, Sweeper},
    settings::{EdgeLimits, Limits, OwnerLimits, Settings},
    signing::{
        MAX_SIGNED_PARTS, Signing,
        step::{KnownPart, Next, PartToSign, Report, SignedStep, StepType},
    },
    stops::{STOPS_INTERVAL, Stop, StopScope, Stops},
    storage::{FileExpiry, IntegrityChoice, Storage, Storages, compares_crc64},
    stream::{MessageMemory, Streams},
    token::Tokens,
    token_key::TokenKey,
};
use crate::{
    clock::Clock,
    decorate::Decorated,
    error::Result,
    meter::{Meter, Unmeasured},
    retry::Retry,
    state::StateStore,
    upload::{AbortReason, Event, MIB, Phase, Upload, UploadId},
};

/// All use cases, for one state store and the configured storages.
#[derive(Debug)]
pub struct Gateway {
    /// Reads, lists and watches records.
    pub records: Arc<Records>,
    /// Receives upload streams.
    pub streams: Streams,
    /// Signs requests for clients that send bytes to the store themselves.
    pub signing: Signing,
    /// Reads the objects of complete uploads.
    pub downloads: Downloads,
    /// Expires uploads and cleans up the stores.
    pub sweeper: Sweeper,
    /// Seals and opens resume tokens.
    pub tokens: Arc<Tokens>,
    /// Stops new uploads.
    pub stops: Arc<Stops>,
    /// Controls the shutdown.
    pub drain: Arc<Drain>,
    /// The configured storages.
    pub storages: Storages,
    /// The settings it was created with.
    pub settings: Arc<Settings>,
    sessions: Arc<Sessions>,
}

// === impl Gateway ===

impl Gateway {
    /// Creates a gateway for `state` and `storages`. Reads the secret of the deployment, or creates it. If the state store
    /// is unavailable, the first [check](Gateway::check_state) that succeeds does that, and creates fail until then.
    ///
    /// # Errors
    /// The state store cannot be used, for another reason than that it is unavailable; `Internal` if the system cannot
    /// start a thread.
    pub async fn new(
        state: Arc<dyn StateStore>,
        storages: Storages,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        Self::measured(state, storages, settings, clock, Arc::new(Unmeasured)).await
    }

    /// As [`Gateway::new`], with what the use cases do noted by `meter`.
    ///
    /// # Errors
    /// As [`Gateway::new`].
    pub async fn measured(
        state: Arc<dyn StateStore>,
        storages: Storages,
        settings: Settings,
        clock: Arc<dyn Clock>,
        meter: Arc<dyn Meter>,
    ) -> Result<Self> {
        let retry = Retry::new(settings.store_retry_timeout);
        let retry = Arc::new(retry.measured(Arc::clone(&meter)));
        let storages = prepared(storages, &settings, (&meter, &state));
        let (settings, drain) = (Arc::new(settings), Arc::new(Drain::default()));
        let kept = ObjectRecords::new(storages.clone(), &settings, Arc::clone(&clock));
        let base = records::Base {
            settings: Arc::clone(&settings),
            clock,
            drain: Arc::clone(&drain),
            meter: Arc::clone(&meter),
        };
        let records = Records::open(Arc::clone(&state), &retry, base, kept);
        let records = Arc::new(records.await?);
        let sessions = Arc::new(Sessions::new(Arc::clone(&records), storages.clone()));
        let denials = Denials::new(Arc::clone(&records), settings.store_settle);
        let inspector = Inspector::new(Arc::clone(&records), storages.clone(), denials);
        let inspector = Arc::new(inspector);
        let commits = Arc::new(Commits {
            records: Arc::clone(&records),
            storages: storages.clone(),
            inspector: Arc::clone(&inspector),
            drain: Arc::clone(&drain),
            lease: settings.commit_lease,
            meter: Arc::clone(&meter),
        });
        let keys = settings.token_keys.clone();
        let tokens = Arc::new(Tokens::new(keys, Arc::clone(&records), storages.clone()));
        let retried = Arc::new(Decorated::new(Arc::clone(&state), retry));
        let max_memory = settings.max_record_memory;
        let sweeper = Sweeper {
            memory: RecordMemory::new(&retried, &records, max_memory, &meter),
            records: Arc::clone(&records),
            storages: storages.clone(),
            sessions: Arc::clone(&sessions),
            inspector: Arc::clone(&inspector),
            commits: Arc::clone(&commits),
            schedule: retried,
            single_try: state,
            upload_max_age: settings.upload_max_age,
        };
        let signing = Signing::new(
            Arc::clone(&records),
            storages.clone(),
            Arc::clone(&sessions),
            Arc::clone(&inspector),
            Arc::clone(&commits),
        );
        let streams = Streams::start(Base {
            settings: Arc::clone(&settings),
            storages: storages.clone(),
            records: Arc::clone(&records),
            tokens: Arc::clone(&tokens),
            sessions: Arc::clone(&sessions),
            inspector,
            commits,
            drain: Arc::clone(&drain),
            meter: Arc::clone(&meter),
        })?;
        Ok(Self {
            downloads: Downloads {
                records: Arc::clone(&records),
                storages: storages.clone(),
                meter,
            },
            stops: records.stops(),
            records,
            streams,
            signing,
            sweeper,
            tokens,
            drain,
            storages,
            settings,
            sessions,
        })
    }

    /// Aborts an upload, or deletes its file if it is COMPLETE: then the record is DELETING, callers do not find it any more,
    /// and what this call does not reach, the sweeper deletes. A repeated call succeeds.
    ///
    /// # Errors
    /// `NotFound` if the upload or its storage does not exist; `FailedPrecondition` if a commit is running.
    pub async fn delete_upload(&self, caller: &Caller, id: &UploadId) -> Result<Upload> {
        let deleted = self.delete(caller, id).await;
        audit(&caller.owner, "delete", Some(id), &deleted);
        deleted
    }

    async fn delete(&self, caller: &Caller, id: &UploadId) -> Result<Upload> {
        let mut upload = self.records.get_to_delete(caller, id).await?;
        self.storages.get(&upload.storage_id)?;
        let abandoned = self.records.abandon(&mut upload, AbortReason::Deleted);
        match abandoned.await {
            Ok(()) => self.sessions.discard(&upload).await?,
            Err(_) if matches!(upload.phase, Phase::Complete | Phase::Deleting) => {
                let deleted = self.sessions.delete_file(&mut upload, &Event::Deleted);
                deleted.await?;
            }
            Err(error) => return Err(error),
        }
        Ok(upload)
    }

    /// Changes how long the file of an upload is kept: for this number of seconds from completion, or from now if it is
    /// COMPLETE. `None`: as long as the storage keeps files.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` if the storage does not keep files for so long; `FailedPrecondition` if the upload is
    /// ABORTED.
    pub async fn keep_upload(
        &self,
        caller: &Caller,
        id: &UploadId,
        expire_after: Option<u64>,
    ) -> Result<Upload> {
        let kept = async {
            let mut upload = self.records.get_summary(caller, Action::Delete, id).await?;
            let storage = self.storages.get(&upload.storage_id)?;
            let event = Event::Kept {
                expire_after: storage.expiry.of("expire_after", expire_after)?,
                now: self.records.now(),
            };
            let kept = self.records.transition(&mut upload, &event, Fence::None);
            kept.await?;
            self.records.keep_current(&upload).await?;
            Ok(upload)
        };
        let kept = kept.await;
        audit(&caller.owner, "keep", Some(id), &kept);
        kept
    }

    /// The limits that clients must respect for a storage, beside those in `settings`. An empty `storage_id` means the default
    /// storage of the caller.
    ///
    /// # Errors
    /// `NotFound` if there is no such storage for the caller.
    pub fn limits(&self, caller: &Caller, storage_id: &str) -> Result<Limits> {
        let storage = self.storages.for_caller(caller, storage_id)?;
        Ok(self.settings.limits(&storage))
    }

    /// The limits of each storage that a caller can use, its default one first.
    pub fn storages_of(&self, caller: &Caller) -> Vec<(Arc<Storage>, Limits)> {
        let storages = self.storages.of_caller(caller).into_iter();
        let with_limits = |storage: Arc<Storage>| {
            let limits = self.settings.limits(&storage);
            (storage, limits)
        };
        storages.map(with_limits).collect()
    }

    /// The load of this process.
    pub fn load(&self) -> Load {
        self.streams.load()
    }

    /// Whether the process can use its state store as soon as that works again. If not, it must be restarted.
    pub fn is_usable(&self) -> bool {
        self.records.is_usable()
    }

    /// Checks that the state store answers.
    ///
    /// # Errors
    /// The error of the state store.
    pub async fn check_state(&self) -> Result<()> {
        self.records.check().await
    }
}

/// The storages as a gateway with these settings uses them.
fn prepared(
    storages: Storages,
    settings: &Settings,
    with: (&Arc<dyn Meter>, &Arc<dyn StateStore>),
) -> Storages {
    let largest_part = settings.memory_budget / 4 / MIB * MIB;
    storages.prepared(
        settings.store_retry_timeout,
        largest_part,
        settings.parts_in_flight_total,
        with,
        &Arc::new(RecordKeys::new(settings.record_keys.clone())),
    )
}
