//! The events in the life of an upload, and what they do to its record.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Claims, Cleanup, Denial, Evidence, Integrity, Lease, Object, Parts, Phase, Plan, Timestamp,
    Upload, UploadId,
};

/// An event in the life of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The store has created a session for its parts.
    SessionStarted {
        /// The store's id of the session.
        session: String,
        /// Which digest its parts have.
        integrity: Integrity,
    },
    /// The store lost the session, which has no recorded parts.
    SessionForgotten,
    /// The parts of clients contradict each other: none of them counts any more.
    Recut {
        /// The cut to which they belong.
        cut: u8,
    },
    /// A client is shown parts of a file that clients cut, and continues.
    Continued {
        /// The number of parts that it is shown.
        with: u32,
        /// See [`Upload::unproven`].
        unproven: Option<u32>,
    },
    /// A stream continues an upload whose parts clients have cut. The plan is fixed from now on.
    PlanFixed {
        /// The plan that the parts show. `None`: they show none, and none of them counts any more.
        shown: Option<Plan>,
    },
    /// The writing stream has ended.
    WriterLeft,
    /// The gateway signs a request that makes the object.
    CommitSigned,
    /// All parts are recorded, and a committer starts.
    CommitStarted {
        /// The committer's lease.
        lease: Lease,
        /// The current time. The lease of any other committer must have ended.
        now: Timestamp,
        /// The size of the whole file in bytes, which is known by now.
        file_size: u64,
        /// Until when a commit that is sent under this lease can run in the store.
        runs_until: Timestamp,
    },
    /// The committer still waits for the store.
    LeaseRenewed {
        /// The committer's lease, with a later end.
        lease: Lease,
        /// Until when a commit that is sent under this lease can run in the store.
        runs_until: Timestamp,
    },
    /// The committer stops for now. Another committer may continue when this lease ends, which shortens the committer's
    /// own.
    CommitSuspended {
        /// The shortened lease.
        lease: Lease,
        /// Until when a commit without a response can run in the store. `None` if all were answered.
        runs_until: Option<Timestamp>,
        /// Whether the store acknowledged a commit.
        is_acknowledged: bool,
    },
    /// The committer found that parts are missing, before it sent a request to the store.
    CommitReopened,
    /// The object was verified in the store, no matter which gateway or client committed it.
    Committed {
        /// The object that was found.
        object: Object,
        /// The current time, from which the expiry of the file counts.
        at: Timestamp,
    },
    /// The store denied the session, the parts or the object for the first time.
    Denied(Denial),
    /// The store has again what it denied before.
    Undenied,
    /// An identical create makes another upload, because the store denied the session.
    Superseded,
    /// The store rejected the upload permanently, or its digest does not match.
    Refused(AbortReason),
    /// A caller deleted the file of a COMPLETE upload.
    Deleted,
    /// The file of a COMPLETE upload begins to move to this copy. A later move can replace it.
    MoveStarted {
        /// The copy.
        to: UploadId,
    },
    /// The file of a COMPLETE upload has moved to this copy, which is COMPLETE.
    Moved {
        /// The copy.
        to: UploadId,
        /// When the file of the copy expires, which must be when that of the upload does.
        expires: Option<Timestamp>,
    },
    /// The sweeper deletes the file of a COMPLETE upload, if it has expired: a caller may have changed the time meanwhile.
    FileExpired {
        /// The time by which it must have expired.
        by: Timestamp,
    },
    /// The object in the store is not the one that a COMPLETE upload made.
    ObjectChanged {
        /// The current time.
        at: Timestamp,
    },
    /// A live upload gets another owner.
    Amended,
    /// A caller has changed how long the file is kept.
    Kept {
        /// For how many seconds from completion, or from now if the upload is COMPLETE. `None`: for ever.
        expire_after: Option<u64>,
        /// The current time.
        now: Timestamp,
    },
    /// The file of a COMPLETE copy is kept as long as that of its source.
    KeptUntil {
        /// When it expires. `None`: never.
        at: Option<Timestamp>,
    },
    /// The owner deleted the upload or started it again, or the sweeper expired it.
    Abandoned {
        /// Which of them.
        reason: AbortReason,
        /// The current time. The commit lease must have ended.
        now: Timestamp,
    },
}

/// Why an upload was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortReason {
    /// The owner deleted it.
    Deleted,
    /// The owner started it again.
    Restarted,
    /// It expired.
    Expired,
    /// The store no longer has the session, and so not the parts.
    SessionLost,
    /// The store has other parts or another object than were recorded, or does not accept the parts.
    PartReplaced,
    /// The MD5 of the file is not the promised one.
    DigestMismatch,
    /// The store did not make the object before the maximum age of the upload.
    CommitFailed,
}

/// The effect of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The record has changed and must be stored.
    Changed,
    /// The event had happened before. The record is unchanged.
    Same,
}

/// The phase of the upload does not allow the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upload is {0}")]
pub struct Rejected(pub Phase);

// === impl Event ===

impl Event {
    /// Whether the event says something about the store only. Such an event does not prolong the life of the upload.
    pub fn is_observation(&self) -> bool {
        matches!(
            self,
            Self::Denied(_) | Self::Undenied | Self::Superseded | Self::ObjectChanged { .. }
        )
    }
}

// === impl Upload ===

impl Upload {
    /// Applies one event. An allowed event changes the phase or the record, a repeated one changes nothing.
    ///
    /// # Errors
    ///
    /// The phase does not allow the event; the record is unchanged.
    pub fn apply(&mut self, event: Event) -> Result<Applied, Rejected> {
        match self.phase {
            Phase::Open => self.apply_open(event),
            Phase::Committing => self.apply_committing(event),
            Phase::Complete | Phase::Aborted | Phase::Deleting => self.apply_ended(&event),
        }
    }

    fn apply_open(&mut self, event: Event) -> Result<Applied, Rejected> {
        match event {
            Event::SessionStarted { session, integrity } => match &self.session {
                Some(known) if *known == session => return Ok(Applied::Same),
                Some(_) => return Err(Rejected(self.phase)),
                None => (self.session, self.integrity) = (Some(session), integrity),
            },
            Event::SessionForgotten if self.session.is_none() => return Ok(Applied::Same),
            Event::SessionForgotten if !self.parts.is_empty() => return Err(Rejected(self.phase)),
            Event::SessionForgotten => {
                (self.session, self.integrity) = (None, Integrity::default());
                self.evidence.denial = None;
            }
            Event::Recut { cut } if cut != self.cut => return Ok(Applied::Same),
            Event::Recut { .. } => {
                self.cut = self.cut.saturating_add(1);
                (self.continued_with, self.unproven) = (0, None);
            }
            Event::Continued { with, unproven }
                if (with, unproven) == (self.continued_with, self.unproven) =>
            {
                return Ok(Applied::Same);
            }
            Event::Continued { with, unproven } => {
                (self.continued_with, self.unproven) = (with, unproven);
            }
            Event::PlanFixed { .. } if !self.is_cut_by_client => return Ok(Applied::Same),
            Event::PlanFixed { shown } => {
                self.is_cut_by_client = false;
                self.unproven = None;
                match shown {
                    Some(plan) => self.plan = plan,
                    None => self.cut = self.cut.saturating_add(1),
                }
            }
            Event::WriterLeft if self.writer.is_none() => return Ok(Applied::Same),
            Event::WriterLeft => self.writer = None,
            Event::CommitSigned if self.evidence.is_commit_sent => return Ok(Applied::Same),
            Event::CommitSigned => self.evidence.is_commit_sent = true,
            Event::CommitStarted { .. } => return self.start_commit(event),
            Event::CommitReopened => return Ok(Applied::Same),
            Event::Committed { object, at } => self.complete(object, at),
            Event::Denied(_) | Event::Undenied => return Ok(self.observe(&event)),
            Event::Superseded if self.is_superseded => return Ok(Applied::Same),
            Event::Superseded => self.is_superseded = true,
            Event::Refused(reason) => self.abort(reason, Cleanup::Now),
            Event::Abandoned { reason, .. } => self.abort(reason, Cleanup::AtExpiry),
            Event::Kept { expire_after, .. } => return Ok(self.keep(expire_after)),
            Event::Amended => return Ok(self.amend()),
            Event::LeaseRenewed { .. }
            | Event::CommitSuspended { .. }
            | Event::Deleted
            | Event::MoveStarted { .. }
            | Event::Moved { .. }
            | Event::ObjectChanged { .. }
            | Event::KeptUntil { .. }
            | Event::FileExpired { .. } => return Err(Rejected(self.phase)),
        }
        Ok(Applied::Changed)
    }

    fn apply_committing(&mut self, event: Event) -> Result<Applied, Rejected> {
        match event {
            Event::CommitStarted { .. } => return self.start_commit(event),
            Event::LeaseRenewed { lease, runs_until } => {
                if self.lease.is_none_or(|held| held.holder != lease.holder) {
                    return Err(Rejected(self.phase));
                }
                let runs_until = self.evidence.commit_runs_until.max(Some(runs_until));
                let known = (self.lease, self.evidence.commit_runs_until);
                if known == (Some(lease), runs_until) {
                    return Ok(Applied::Same);
                }
                (self.lease, self.evidence.commit_runs_until) = (Some(lease), runs_until);
            }
            Event::CommitSuspended {
                lease,
                runs_until,
                is_acknowledged,
            } => {
                if !self.lease.is_some_and(|held| held.can_shorten_to(&lease)) {
                    return Ok(Applied::Same);
                }
                self.lease = Some(lease);
                self.evidence.commit_runs_until = runs_until;
                self.evidence.is_acknowledged |= is_acknowledged;
            }
            Event::CommitReopened => {
                self.lease = None;
                self.phase = Phase::Open;
            }
            Event::Committed { object, at } => self.complete(object, at),
            Event::Denied(_) | Event::Undenied => return Ok(self.observe(&event)),
            Event::Refused(reason) => self.abort(reason, Cleanup::Now),
            Event::Abandoned { now, .. } if self.lease.is_some_and(|held| held.until > now) => {
                return Err(Rejected(self.phase));
            }
            Event::Abandoned { reason, .. } => self.abort(reason, Cleanup::AtExpiry),
            Event::Kept { expire_after, .. } => return Ok(self.keep(expire_after)),
            Event::Amended => return Ok(self.amend()),
            Event::SessionStarted { .. }
            | Event::SessionForgotten
            | Event::Recut { .. }
            | Event::Continued { .. }
            | Event::PlanFixed { .. }
            | Event::WriterLeft
            | Event::CommitSigned
            | Event::Superseded
            | Event::Deleted
            | Event::ObjectChanged { .. }
            | Event::KeptUntil { .. }
            | Event::MoveStarted { .. }
            | Event::Moved { .. }
            | Event::FileExpired { .. } => return Err(Rejected(self.phase)),
        }
        Ok(Applied::Changed)
    }

    /// An ended record never changes, except that of a COMPLETE upload. The event that ended it may be repeated.
    fn apply_ended(&mut self, event: &Event) -> Result<Applied, Rejected> {
        let applied = match self.phase {
            Phase::Complete => self.apply_complete(event),
            Phase::Aborted => matches!(event, Event::Refused(_) | Event::Abandoned { .. })
                .then_some(Applied::Same),
            Phase::Deleting => matches!(
                event,
                Event::Deleted | Event::FileExpired { .. } | Event::Moved { .. }
            )
            .then_some(Applied::Same),
            Phase::Open | Phase::Committing => None,
        };
        applied.ok_or(Rejected(self.phase))
    }

    /// The file of a COMPLETE upload can be deleted, moved, or kept for another time. `None`: the event is not allowed.
    fn apply_complete(&mut self, event: &Event) -> Option<Applied> {
        let has_expired = |by| self.file_expires_at.is_some_and(|at| at <= by);
        let has_changed = match *event {
            Event::Deleted => self.delete(None),
            Event::FileExpired { by } if has_expired(by) => self.delete(None),
            Event::Moved { ref to, expires } if self.file_expires_at == expires => {
                self.delete(Some(to.clone()))
            }
            Event::MoveStarted { ref to } => self.moves_to.replace(to.clone()).as_ref() != Some(to),
            Event::ObjectChanged { at } => {
                let first = self.object_changed_at.is_none();
                self.object_changed_at.get_or_insert(at);
                first
            }
            Event::KeptUntil { at } => std::mem::replace(&mut self.file_expires_at, at) != at,
            Event::Kept { expire_after, now } => {
                let until = expire_after.map(|seconds| now.plus(Duration::from_secs(seconds)));
                let is_moved = std::mem::replace(&mut self.file_expires_at, until) != until;
                self.keep(expire_after) == Applied::Changed || is_moved
            }
            Event::Committed { ref object, .. } => {
                let known = self.object.as_ref();
                let is_repeated = known.is_some_and(|known| known.is_same(object));
                return is_repeated.then_some(Applied::Same);
            }
            _ => return None,
        };
        Some(match has_changed {
            true => Applied::Changed,
            false => Applied::Same,
        })
    }

    /// The file of a COMPLETE upload is deleted, because it has moved to `to` if that is set.
    fn delete(&mut self, to: Option<UploadId>) -> bool {
        self.phase = Phase::Deleting;
        self.cleanup = Cleanup::Now;
        self.moves_to = to;
        true
    }

    fn start_commit(&mut self, event: Event) -> Result<Applied, Rejected> {
        let Event::CommitStarted {
            lease,
            now,
            file_size,
            runs_until,
        } = event
        else {
            return Err(Rejected(self.phase));
        };
        match self.lease {
            Some(held) if held == lease => return Ok(Applied::Same),
            Some(held) if held.blocks(&lease, now) => return Err(Rejected(self.phase)),
            Some(_) | None => {}
        }
        self.lease = Some(lease);
        self.file.file_size = Some(file_size);
        self.evidence.is_commit_sent = true;
        self.evidence.commit_runs_until = self.evidence.commit_runs_until.max(Some(runs_until));
        self.phase = Phase::Committing;
        Ok(Applied::Changed)
    }

    fn amend(&mut self) -> Applied {
        match std::mem::replace(&mut self.is_amended, true) {
            true => Applied::Same,
            false => Applied::Changed,
        }
    }

    fn keep(&mut self, expire_after: Option<u64>) -> Applied {
        if self.is_live() && self.file.expire_after != expire_after {
            self.is_amended = true;
        }
        match std::mem::replace(&mut self.file.expire_after, expire_after) == expire_after {
            true => Applied::Same,
            false => Applied::Changed,
        }
    }

    fn observe(&mut self, event: &Event) -> Applied {
        let denial = match event {
            Event::Denied(denial) => Some(*denial),
            _ => None,
        };
        let what = |denial: Option<Denial>| denial.map(|denial| denial.denied);
        if what(self.evidence.denial) == what(denial) {
            return Applied::Same;
        }
        self.evidence.denial = denial;
        Applied::Changed
    }

    fn complete(&mut self, object: Object, at: Timestamp) {
        self.end(Phase::Complete);
        self.file.file_size = Some(object.size);
        self.file_expires_at = self.file_expires(at);
        self.object = Some(object);
        // The object has the parts, and the store has ended the session.
        self.session = None;
        self.evidence = Evidence::default();
    }

    fn abort(&mut self, reason: AbortReason, cleanup: Cleanup) {
        self.end(Phase::Aborted);
        self.abort_reason = Some(reason);
        self.cleanup = cleanup;
    }

    fn end(&mut self, phase: Phase) {
        self.phase = phase;
        self.lease = None;
        self.evidence.denial = None;
        // Nothing needs them any more, and the state store is smaller without them.
        self.parts = Parts::default();
        self.claims = Claims::default();
    }
}
