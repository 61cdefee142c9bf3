//! What the use cases have done, and the sweeper.

use std::time::{Duration, SystemTime};

use upload_gateway_core::{
    error::{Error, Reason, Result},
    gateway::SweepReport,
    meter::{Done, Meter},
    upload::{Phase, Upload},
};

use super::{
    Metrics,
    families::{
        CauseLabel, DirectionLabels, Families, ResultLabel, StoreCauseLabels, TenantLabel,
        TenantTransitionLabels, TransitionLabels, WhatLabel, begin,
    },
    label, seconds,
};
use crate::status;

/// The first transition of an upload. The others are the results in the log.
const CREATED: &str = "created";

/// All transitions.
pub(super) const TRANSITIONS: [&str; 9] = [
    CREATED,
    "complete",
    "deleted",
    "restarted",
    "expired",
    "session_lost",
    "part_replaced",
    "digest_mismatch",
    "commit_failed",
];

const IN: &str = "in";
const OUT: &str = "out";

const UNAVAILABLE: &str = "unavailable";
const THROTTLED: &str = "throttled";
const REFUSED: &str = "refused";
const FULL: &str = "full";

const OK: &str = "ok";
const FAILED: &str = "failed";

// === impl Families ===

impl Families {
    /// Begins all counters of these storages and of the sweeper with 0.
    pub(super) fn begin_gateway(&self, storages: &[&str]) {
        for cause in [UNAVAILABLE, FULL] {
            begin(&self.state_retries, CauseLabel { cause });
        }
        for storage in storages.iter().map(|id| (*id).to_owned()) {
            begin(&self.parts, label(&storage));
            begin(&self.completed_bytes, label(&storage));
            for direction in [IN, OUT] {
                let storage = storage.clone();
                begin(&self.file_bytes, DirectionLabels { storage, direction });
            }
            for cause in [UNAVAILABLE, THROTTLED, REFUSED] {
                let storage = storage.clone();
                begin(&self.store_retries, StoreCauseLabels { storage, cause });
            }
            for transition in TRANSITIONS {
                let storage = storage.clone();
                begin(
                    &self.uploads,
                    TransitionLabels {
                        storage,
                        transition,
                    },
                );
            }
        }
        for result in [OK, FAILED] {
            begin(&self.sweeps, ResultLabel { result });
        }
        self.note_swept(&SweepReport::default());
    }

    fn note_bytes(&self, storage: &str, direction: &'static str, bytes: u64) {
        let storage = storage.to_owned();
        let labels = DirectionLabels { storage, direction };
        self.file_bytes.get_or_create(&labels).inc_by(bytes);
    }

    fn note_retry(&self, storage: Option<&str>, failed: &Error) {
        let cause = cause(failed);
        match storage {
            Some(storage) => {
                let storage = storage.to_owned();
                let labels = StoreCauseLabels { storage, cause };
                self.store_retries.get_or_create(&labels).inc();
            }
            None => {
                self.state_retries
                    .get_or_create(&CauseLabel { cause })
                    .inc();
            }
        }
    }

    fn note_swept(&self, report: &SweepReport) {
        let SweepReport {
            examined,
            expired,
            completed,
            finished_commits,
            expired_files,
            cleared,
            aborted_sessions,
            // Has a counter of its own: records are removed between runs, too.
            removed_records: _,
            failures,
        } = *report;
        for (what, count) in [
            ("examined", examined),
            ("expired", expired),
            ("completed", completed),
            ("finished_commits", finished_commits),
            ("expired_files", expired_files),
            ("cleared", cleared),
            ("aborted_sessions", aborted_sessions),
            ("failures", failures),
        ] {
            self.swept.get_or_create(&WhatLabel { what }).inc_by(count);
        }
    }
}

// === impl Metrics ===

impl Meter for Metrics {
    fn note(&self, done: Done<'_>) {
        let families = &self.0.families;
        match done {
            Done::Retried { storage, failed } => families.note_retry(storage, failed),
            Done::Hashed { took } => families.hashes.observe(took.as_secs_f64()),
            Done::Stored { storage, size } => {
                families.parts.get_or_create(&label(storage)).inc();
                families.note_bytes(storage, IN, size);
            }
            Done::Read { storage, bytes } => families.note_bytes(storage, OUT, bytes),
            Done::Created(upload) => self.note_transition(upload, CREATED),
            Done::Ended { upload, result } => self.note_transition(upload, result),
            Done::Restored => {
                families.restored_records.inc();
            }
            Done::Removed => {
                families.removed_records.inc();
            }
            Done::TookOver => {
                families.takeovers.inc();
            }
            Done::Committed { result, took } => {
                let result = match result {
                    Ok(()) => OK,
                    Err(error) => status::row(error.kind()).label,
                };
                let commits = families.commits.get_or_create(&ResultLabel { result });
                commits.observe(took.as_secs_f64());
            }
        }
    }
}

impl Metrics {
    fn note_transition(&self, upload: &Upload, transition: &'static str) {
        let families = &self.0.families;
        let labels = TransitionLabels {
            storage: upload.storage_id.clone(),
            transition,
        };
        families.uploads.get_or_create(&labels).inc();
        let object = upload.object.as_ref();
        let object = object.filter(|_| upload.phase == Phase::Complete);
        let size = object.map_or(0, |object| object.size);
        let completed = families
            .completed_bytes
            .get_or_create(&label(&upload.storage_id));
        completed.inc_by(size);
        self.note_tenant(&upload.owner.tenant, transition, size);
    }

    pub(super) fn note_tenant(&self, tenant: &str, transition: &'static str, size: u64) {
        let families = &self.0.families;
        if let Some(tenant) = self.0.tenants.label(tenant) {
            let labels = TenantTransitionLabels {
                tenant: tenant.clone(),
                transition,
            };
            families.tenant_uploads.get_or_create(&labels).inc();
            let labels = TenantLabel { tenant };
            let completed = families.tenant_completed_bytes.get_or_create(&labels);
            completed.inc_by(size);
        }
    }

    /// Notes a run of the sweeper of this process. One for which it was not the turn of this replica does not count.
    pub(crate) fn note_sweep(&self, swept: &Result<Option<SweepReport>>, took: Duration) {
        let families = &self.0.families;
        let result = match swept {
            Ok(None) => return,
            Ok(Some(report)) => {
                families.note_swept(report);
                families.last_sweep.set(seconds(SystemTime::now()));
                OK
            }
            Err(_) => FAILED,
        };
        families.sweeps.get_or_create(&ResultLabel { result }).inc();
        families.sweep.observe(took.as_secs_f64());
    }
}

/// Why a request is repeated.
fn cause(failed: &Error) -> &'static str {
    match failed.reason() {
        _ if failed.operator_code().is_some() => REFUSED,
        _ if failed.is_congestion() => THROTTLED,
        Reason::StateFull => FULL,
        _ => UNAVAILABLE,
    }
}
