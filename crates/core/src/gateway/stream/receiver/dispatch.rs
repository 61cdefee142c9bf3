//! The parts of a stream in flight: dispatched, awaited and counted.
//!
//! Their number is limited per stream, and for all streams to one storage. At the limit, the receiver stops reading. A stream has no
//! more in flight than its store needs, because each keeps its bytes in memory.

use std::sync::Arc;

use tokio::time::Instant;

use super::{CurrentPart, Receiver, to_usize};
use crate::{
    call,
    error::{Error, Reason, Result},
    gateway::{
        storage::Turn,
        stream::{
            hash::MIN_IN_FLIGHT,
            part::{Destination, DigestChain, ReceivedPart},
        },
    },
    observe,
    retry::CallWait,
    upload::{Integrity, PART_SIZE, Part},
};

// === impl Receiver ===

impl Receiver {
    /// Dispatches a part, or compares it if it was recorded before.
    pub(super) async fn dispatch(&mut self, current_part: CurrentPart) -> Result<()> {
        let CurrentPart {
            number,
            span,
            buffer,
        } = current_part;
        let bytes = buffer.freeze();
        let keeps_digest = self.chain.is_some();
        let recorded = self.overlap.is_recorded(
            &self.upload,
            &self.shared.hasher,
            (number, span),
            &bytes,
            keeps_digest,
        );
        if recorded.await? {
            return Ok(());
        }
        let integrity = self.destination().await?.integrity;
        let allowed = self.allowed_in_flight(integrity, span.size);
        let (destination, turn) = self.next_turn(allowed).await?;
        let end = span.offset + bytes.len() as u64;
        let is_last = bytes.len() < to_usize(span.size) || self.upload.settled_size() == Some(end);
        let link = self.chain.as_mut().map(DigestChain::link);
        let part = ReceivedPart {
            number,
            offset: span.offset,
            bytes,
            is_urgent: is_last || allowed < MIN_IN_FLIGHT,
            committed: self.upload.parts.committed(),
            link,
        };
        let shared = Arc::clone(&self.shared);
        self.in_flight.spawn(call::propagate(async move {
            let (observed, begun) = (part.observed(), Instant::now());
            let size = observed.size;
            let stored = shared.parts.store_part(&destination, turn, part);
            let stored = observe::part(observed, stored).await;
            // Shorter ones would be no measure.
            if stored.is_ok() && size >= PART_SIZE {
                destination.storage.intake.recorded(begun.elapsed());
            }
            stored
        }));
        Ok(())
    }

    /// How many parts of `size` bytes with this digest may be in flight.
    fn allowed_in_flight(&self, integrity: Integrity, size: u64) -> usize {
        let Self {
            shared, storage, ..
        } = self;
        let limit = storage.turns.limit().min(shared.settings.parts_in_flight);
        match integrity {
            // Side by side, more parts cost no more.
            Integrity::Md5 if shared.hasher.batches() => limit,
            Integrity::Md5 | Integrity::Crc64Nvme => storage.intake.needed(size).min(limit),
        }
    }

    /// In how many lanes the MD5s of a new part are computed, as far as is known. 0 if it has none.
    pub(super) fn md5_lanes(&self) -> u64 {
        let destination = self.destination.as_ref();
        let of_part = destination.is_some_and(|to| to.integrity == Integrity::Md5);
        let of_file = self.chain.is_some() && self.upload.file.file_digest.allows_md5();
        if of_part || of_file {
            self.shared.hasher.lanes()
        } else {
            0
        }
    }

    /// Where the next part is stored, and its turn. Waits until fewer than `allowed` parts are in flight.
    pub(super) async fn next_turn(&mut self, allowed: usize) -> Result<(Arc<Destination>, Turn)> {
        let destination = self.destination().await?;
        while self.in_flight.len() >= allowed {
            if let Some(stored) = self.in_flight.join_next().await {
                self.settle(stored)?;
            }
        }
        let turn = self.storage.turns.take(&self.upload.id).await?;
        Ok((destination, turn))
    }

    /// Where parts are stored. Creates the store's session for the first part.
    pub(super) async fn destination(&mut self) -> Result<Arc<Destination>> {
        if let Some(known) = &self.destination {
            return Ok(Arc::clone(known));
        }
        if self.upload.session.is_none() {
            let begun = self.shared.sessions.begin(&self.storage, &self.upload);
            self.upload = begun.await?;
        }
        let destination = Arc::new(Destination {
            upload_id: self.upload.id.clone(),
            key: self.upload.object_key.clone(),
            session: self.upload.session.clone().unwrap_or_default(),
            integrity: self.upload.session_integrity(),
            scope: self
                .upload
                .file
                .placement
                .encryption_scope()
                .map(str::to_owned),
            writer: self.writer,
            version: self.upload.version,
            storage: Arc::clone(&self.storage),
            copy_from: self.copy_from.clone(),
        });
        self.destination = Some(Arc::clone(&destination));
        Ok(destination)
    }

    pub(super) async fn settle_all(&mut self) -> Result<()> {
        while let Some(stored) = self.in_flight.join_next().await {
            self.settle(stored)?;
        }
        Ok(())
    }

    pub(super) fn settle(
        &mut self,
        stored: Result<Result<Part>, tokio::task::JoinError>,
    ) -> Result<()> {
        let part = stored.map_err(|error| Error::internal("store a part", error))??;
        self.count_part(part);
        Ok(())
    }

    pub(super) fn count_part(&mut self, part: Part) {
        let before = self.upload.committed_size();
        if part.number <= self.trail.parts() {
            // It replaces a part of the trail.
            self.trail = self.shared.tokens.new_trail(&self.upload);
        }
        self.upload.parts.insert(part);
        let committed_size = self.upload.committed_size();
        if committed_size > before {
            CallWait::reset();
            self.upload.expires_at = self.shared.records.times().expires_at;
            let token = self.shared.tokens.next_token(&self.upload, &mut self.trail);
            // It does not fail here: the stream's first token was sealed, so the secret is known.
            let token = token.unwrap_or_default();
            self.counts.send_modify(|counts| {
                counts.committed_size = committed_size;
                counts.resume_token = token.into();
            });
        }
    }

    /// Waits for the parts in flight, but no longer than the drain allows. If the store is unavailable for one of them, the
    /// others are cancelled: they would fail one after the other.
    pub(super) async fn settle_rest(&mut self) {
        let shared = Arc::clone(&self.shared);
        let settle = async {
            while let Some(stored) = self.in_flight.join_next().await {
                if let Err(late) = self.settle(stored) {
                    tracing::debug!(upload_id = %self.upload.id, error = %late, "a part of a failed stream was not stored");
                    if late.reason() == Reason::StoreUnavailable {
                        self.in_flight.shutdown().await;
                    }
                }
            }
        };
        tokio::select! {
            () = settle => {}
            () = shared.drain.parts_end() => self.in_flight.shutdown().await,
        }
    }
}
