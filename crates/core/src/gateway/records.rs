//! Reads, lists, creates and updates records. Updates are compare-and-set.

pub(super) mod adopt;
mod complete;
mod create;
mod end;
pub(super) mod read;
mod room;
pub(super) mod search;
pub(super) mod times;
pub(super) mod watch;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use self::{
    room::Room,
    watch::{RecordWatch, Watches},
};
use super::{
    caller::{Caller, Scope},
    drain::Drain,
    object_records::ObjectRecords,
    refusal::{state_lost, taken_over, too_many_open, wrong_phase},
    settings::Settings,
    stops::Stops,
};
use crate::{
    clock::Clock,
    decorate::Decorated,
    error::{Error, Result},
    meter::{Done, Meter},
    observe,
    retry::Retry,
    state::{
        Creation, ListingStore, PartRecord, PartStore, Predecessor, RecordStore, StateStore,
        TakeoverWatch, Update,
    },
    upload::{
        ACTIVE_WINDOW, AbortReason, Applied, Claim, Event, Owner, Part, Phase, Rejected, Secret,
        Timestamp, Upload, UploadId, WriterTag,
    },
};

/// The records of all uploads, and the secret of the deployment, which is stored with them.
#[derive(Debug)]
pub struct Records {
    records: Arc<dyn RecordStore>,
    parts: Arc<dyn PartStore>,
    listing: Arc<dyn ListingStore>,
    /// The state store without retries. The health check must report what it answers now, and best-effort writes must
    /// not delay the response to a sender.
    single_try: Arc<dyn StateStore>,
    /// Not known until the state store is first reached.
    secret: RwLock<Option<Secret>>,
    clock: Arc<dyn Clock>,
    settings: Arc<Settings>,
    watches: Arc<Watches>,
    room: Room,
    stops: Arc<Stops>,
    meter: Arc<dyn Meter>,
    /// What the stores keep of records.
    kept: ObjectRecords,
}

/// What records share with the other components.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) settings: Arc<Settings>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) drain: Arc<Drain>,
    pub(super) meter: Arc<dyn Meter>,
}

/// When to retry a call that needs the secret of the deployment before the state store was first reached.
const FIRST_CHECK_DELAY: Duration = Duration::from_secs(1);

/// Whether a change of a record requires the writer that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fence {
    /// Fails with `TakenOver` if the record has another writer, and with `StateLost` if it is missing or older than the
    /// record that was read.
    Writer,
    /// Applies whichever writer the record has.
    None,
}

// === impl Records ===

impl Records {
    /// The records in `state`. Reads the secret of the deployment, or creates it. If the state store is unavailable, the
    /// first [check](Records::check) that succeeds does that.
    ///
    /// # Errors
    /// The state store cannot be used, for another reason than that it is unavailable.
    pub(super) async fn open(
        state: Arc<dyn StateStore>,
        retry: &Arc<Retry>,
        base: Base,
        kept: ObjectRecords,
    ) -> Result<Self> {
        let Base {
            settings,
            clock,
            drain,
            meter,
        } = base;
        let retried = Arc::new(Decorated::new(Arc::clone(&state), Arc::clone(retry)));
        let secret = match state.secret(&Secret::random()).await {
            Ok(secret) => Some(secret),
            Err(error) if error.is_retryable() => None,
            Err(error) => return Err(error),
        };
        let watches = Watches::new(Arc::clone(&retried) as _, drain);
        let single_try = Arc::clone(&state) as _;
        let stops = Stops::new(Arc::clone(&retried) as _, single_try, Arc::clone(&clock));
        Ok(Self {
            records: Arc::clone(&retried) as _,
            parts: Arc::clone(&retried) as _,
            listing: retried,
            single_try: state,
            secret: RwLock::new(secret),
            clock,
            room: Room::new(settings.max_open_uploads),
            settings,
            watches,
            stops: Arc::new(stops),
            meter,
            kept,
        })
    }

    /// The stops of new uploads.
    pub(super) fn stops(&self) -> Arc<Stops> {
        Arc::clone(&self.stops)
    }

    /// Watches a record. All watchers in this process share its reads.
    pub fn watch(&self, id: &UploadId) -> RecordWatch {
        self.watches.watch(id)
    }

    /// Checks that the state store answers. After a flush the state store has no secret of the deployment. This call
    /// then stores this gateway's secret; if another gateway has stored a different one first, this gateway uses that
    /// one.
    pub(super) async fn check(&self) -> Result<()> {
        self.single_try.check().await?;
        let known = self.known_secret();
        let offered = known.clone().unwrap_or_else(Secret::random);
        let kept = self.single_try.secret(&offered).await?;
        if known.as_ref() == Some(&kept) {
            return Ok(());
        }
        if known.is_some() {
            tracing::warn!(
                "the secret in the state store has changed; resume tokens with keys derived from the previous one are invalid"
            );
        }
        *self.secret.write().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(())
    }

    /// See [`StateStore::is_usable`].
    pub(super) fn is_usable(&self) -> bool {
        self.single_try.is_usable()
    }

    /// The secret of the deployment.
    ///
    /// # Errors
    /// `Unavailable` if the state store was not reached yet.
    pub(super) fn secret(&self) -> Result<Secret> {
        self.known_secret().ok_or_else(|| {
            Error::state_unavailable("the secret of the deployment was not read yet")
                .retry_after(FIRST_CHECK_DELAY)
        })
    }

    fn known_secret(&self) -> Option<Secret> {
        let secret = self.secret.read().unwrap_or_else(PoisonError::into_inner);
        secret.clone()
    }

    /// Reads an upload with all its parts and claims, unless its file is deleted.
    pub(super) async fn find(&self, id: &UploadId) -> Result<Option<Upload>> {
        Ok(self.find_any(id).await?.filter(is_visible))
    }

    /// Reads an upload with all its parts and claims, in any phase.
    pub(super) async fn find_any(&self, id: &UploadId) -> Result<Option<Upload>> {
        self.records.get(id).await
    }

    /// Reads a summary of an upload, unless its file is deleted.
    pub(super) async fn find_summary(&self, id: &UploadId) -> Result<Option<Upload>> {
        Ok(self.records.summary(id).await?.filter(is_visible))
    }

    /// See [`PartStore::committed_parts`].
    ///
    /// # Errors
    /// `NotFound` if there is no such record.
    pub(super) async fn committed_parts(
        &self,
        id: &UploadId,
        after: u32,
        limit: u32,
    ) -> Result<Vec<Part>> {
        let parts = self.parts.committed_parts(id, after, limit).await?;
        parts.ok_or_else(|| Error::upload_not_found(id))
    }

    /// As [`Records::find_summary`], with a single try: for best-effort clean-up, which must not delay a response.
    pub(super) async fn find_summary_once(&self, id: &UploadId) -> Result<Option<Upload>> {
        self.single_try.summary(id).await
    }

    /// Stores a new record, however many uploads the owner has. Returns the upload that an identical create has made, if there
    /// is a live one; then nothing is stored. See [`RecordStore::create`].
    pub(super) async fn create(&self, upload: &Upload) -> Result<Option<Upload>> {
        self.create_within(upload, u64::MAX).await
    }

    /// As [`Records::create`], if new uploads are not stopped, and if there is room for another open upload, also for its
    /// owner. An identical create is found in any case.
    ///
    /// # Errors
    /// `Unavailable` if new uploads are stopped; `ResourceExhausted` if there is no room.
    pub(super) async fn create_if_room(&self, upload: &Upload) -> Result<Option<Upload>> {
        let Settings {
            per_owner,
            max_open_uploads,
            ..
        } = &*self.settings;
        let stopped = self.stops.check(&upload.owner.tenant, &upload.storage_id);
        let refusal = match stopped {
            Err(stopped) => stopped,
            Ok(()) if self.room.has_room(&*self.listing).await? => {
                return self.create_within(upload, per_owner.open_uploads).await;
            }
            Ok(()) => too_many_open("max_open_uploads", *max_open_uploads),
        };
        match self.records.find_identical(upload).await? {
            Some(known) => Ok(Some(known).inspect(observe::works_on)),
            None => Err(refusal),
        }
    }

    async fn create_within(&self, upload: &Upload, max_live: u64) -> Result<Option<Upload>> {
        match self.records.create(upload, max_live).await? {
            Creation::Created => {
                self.room.note_created();
                self.meter.note(Done::Created(upload));
                observe::works_on(upload);
                Ok(None)
            }
            Creation::Exists(known) => Ok(Some(*known).inspect(observe::works_on)),
            Creation::Full => Err(too_many_open("per_owner.max_open_uploads", max_live)),
        }
    }

    /// Makes `writer` the writer of an upload. See [`RecordStore::take_over`].
    pub(super) async fn take_over(
        &self,
        id: &UploadId,
        writer: WriterTag,
        from: Predecessor,
    ) -> Result<Option<Upload>> {
        let taken = self.records.take_over(id, writer, from, self.times());
        Ok(taken.await?.filter(is_visible))
    }

    pub(super) fn watch_takeovers(&self, id: &UploadId) -> TakeoverWatch {
        self.records.watch_takeovers(id)
    }

    /// Records claims. See [`PartStore::claim`].
    pub(super) async fn claim(
        &self,
        id: &UploadId,
        owner: &Owner,
        claims: &[Claim],
    ) -> Result<Option<Upload>> {
        let claimed = self.parts.claim(id, owner, claims, self.times()).await?;
        Ok(claimed.filter(is_visible).inspect(observe::works_on))
    }

    /// Takes over an upload, so that no stream can record parts of it. `None` if it is not OPEN any more.
    pub(super) async fn fence(&self, upload: &Upload) -> Result<Option<Upload>> {
        let taken = self.take_over(&upload.id, WriterTag::random(), Predecessor::Any);
        Ok(taken.await?.filter(|upload| upload.phase == Phase::Open))
    }

    /// Applies an event and stores the record. If the record has changed in the meantime, the event is applied to the
    /// new record.
    pub(super) async fn transition(
        &self,
        upload: &mut Upload,
        event: &Event,
        fence: Fence,
    ) -> Result<()> {
        loop {
            let mut changed = upload.clone();
            let applied = changed
                .apply(event.clone())
                .map_err(|Rejected(phase)| refused_in(phase, &upload.id))?;
            if applied == Applied::Same {
                return Ok(());
            }
            if !event.is_observation() {
                self.stamp(&mut changed);
            }
            match self.records.update(&changed, upload.writer).await? {
                Update::Updated(version) => {
                    changed.version = version;
                    if upload.is_live() && !changed.is_live() {
                        self.note_end(&changed);
                    }
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

    /// Aborts an upload for `reason`, because the caller asks for it.
    ///
    /// # Errors
    /// `FailedPrecondition` while a committer has the commit lease, or if the upload is COMPLETE.
    pub(super) async fn abandon(&self, upload: &mut Upload, reason: AbortReason) -> Result<()> {
        let now = self.now();
        let abandoned = Event::Abandoned { reason, now };
        self.transition(upload, &abandoned, Fence::None).await
    }

    /// Applies an event that ends an OPEN upload. Returns `false`, and changes nothing, if the record is missing, if
    /// its `updated_at` is not `seen` any more, or if its phase does not allow the event.
    pub(super) async fn end_untouched(
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
        match self.records.update_untouched(&ended, seen).await? {
            Update::Updated(version) => {
                *upload = Upload { version, ..ended };
                self.note_end(upload);
                Ok(true)
            }
            Update::Conflict(_) | Update::Missing => Ok(false),
        }
    }

    /// Called by the one update that ended the upload.
    fn note_end(&self, upload: &Upload) {
        end::log(upload, self.now());
        let result = end::result(upload);
        self.meter.note(Done::Ended { upload, result });
    }

    /// Stores a changed record, if it has not changed in the meantime.
    pub(super) async fn update(&self, upload: &Upload) -> Result<Update> {
        self.records.update(upload, upload.writer).await
    }

    /// As [`Records::update`], with a single try.
    pub(super) async fn update_once(&self, upload: &Upload) -> Result<Update> {
        self.single_try.update(upload, upload.writer).await
    }

    /// Records acknowledged parts for the stream `writer`. `version` is the latest version of the record that the stream
    /// knows. Returns how many parts are committed afterwards.
    pub(super) async fn record_parts(
        &self,
        id: &UploadId,
        version: u64,
        writer: WriterTag,
        parts: &[Part],
    ) -> Result<u32> {
        let recorded = self
            .parts
            .record_parts(id, writer, version, parts, self.times());
        match recorded.await? {
            PartRecord::Recorded { committed } => Ok(committed),
            PartRecord::TakenOver => Err(self.fenced_out(id, version).await),
            PartRecord::NotOpen(phase) => Err(refused_in(phase, id)),
            PartRecord::Missing => Err(state_lost()),
        }
    }

    /// The error of a stream that finds another writer in the record: `TakenOver`, or `StateLost` if the record is missing
    /// or older than `version`, the latest version that the stream knows.
    async fn fenced_out(&self, id: &UploadId, version: u64) -> Error {
        match self.find_summary(id).await {
            Ok(Some(current)) if current.version >= version => taken_over(),
            Ok(_) => state_lost(),
            Err(error) => error,
        }
    }

    /// The interval between heartbeats. It is so short that the sweeper does not expire the upload of an active stream.
    pub(super) fn heartbeat_interval(&self) -> Duration {
        self.settings.upload_expiry.min(ACTIVE_WINDOW) / 3
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Whether callers see the upload.
fn is_visible(upload: &Upload) -> bool {
    upload.phase != Phase::Deleting
}

/// The error of a request that the phase of the upload does not allow.
fn refused_in(phase: Phase, id: &UploadId) -> Error {
    match phase {
        Phase::Deleting => Error::upload_not_found(id),
        Phase::Open | Phase::Committing | Phase::Complete | Phase::Aborted => wrong_phase(phase),
    }
}
