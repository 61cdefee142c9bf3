//! The sweep at the end, with a clock by which everything that is left has expired.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::try_join_all;
use tokio_util::sync::CancellationToken;
use upload_gateway::{
    config::{self, Flags},
    serve::{ServeError, connect},
};
use upload_gateway_core::{
    clock::Clock,
    error::{Kind, Result},
    gateway::{Action, Caller, Gateway, Search, Settings, Start, Sweep, SweepReport},
    upload::{Phase, Timestamp, UploadId},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A clock that is days ahead.
#[derive(Debug)]
struct LateClock;

/// The result of the sweep.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// The sum of the reports of the sweepers.
    pub(crate) report: SweepReport,
    /// Records that are OPEN.
    pub(crate) open: Vec<String>,
    /// Records that are COMMITTING.
    pub(crate) committing: Vec<String>,
    /// The uploads that were asked for and are found, after all that expires within some days has.
    pub(crate) found: BTreeSet<UploadId>,
}

/// Sweeps the storages of the gateways with these configuration files, and sessions of any age. Then asks for these uploads.
pub(crate) async fn sweep(
    files: &[PathBuf],
    asked: &[UploadId],
) -> std::result::Result<Swept, ServeError> {
    let mut all = Swept::default();
    for swept in try_join_all(files.iter().map(|file| sweep_one(file, asked))).await? {
        all.add(swept);
    }
    Ok(all)
}

async fn sweep_one(file: &Path, asked: &[UploadId]) -> std::result::Result<Swept, ServeError> {
    let config = config::load(Some(file), [], &Flags::default())?;
    let backends = connect(&config).await?;
    let (state, storages) = (Arc::clone(&backends.state), backends.storages.clone());
    let settings = Settings {
        rebuilds_per_second: 1_000,
        ..config.settings()?
    };
    let gateway = Gateway::new(state, storages, settings, Arc::new(LateClock)).await?;
    let sweep = Sweep {
        dry_run: false,
        operations_per_second: 1_000,
        session_age: Some(Duration::ZERO),
        interval: None,
    };
    // The gateways sweep, too, one at a time.
    let report = loop {
        match gateway
            .sweeper
            .sweep(&sweep, &CancellationToken::new())
            .await?
        {
            Some(report) => break report,
            None => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    let swept = Swept {
        report,
        open: in_phase(&gateway, Phase::Open).await?,
        committing: in_phase(&gateway, Phase::Committing).await?,
        found: find(&gateway, asked).await?,
    };
    drop(gateway);
    backends.stop().await;
    Ok(swept)
}

async fn in_phase(gateway: &Gateway, phase: Phase) -> Result<Vec<String>> {
    let (mut found, mut start) = (Vec::new(), Start::default());
    let search = Search {
        phase: Some(phase),
        ..Search::default()
    };
    loop {
        let caller = Caller::default();
        let listed = gateway.records.list_uploads(&caller, &search, start, 1_000);
        let page = listed.await?;
        let records = page.uploads.iter();
        found.extend(records.map(|upload| format!("{} {}", upload.object_key, upload.phase)));
        let Some(next) = page.next else {
            return Ok(found);
        };
        start = next;
    }
}

async fn find(gateway: &Gateway, asked: &[UploadId]) -> Result<BTreeSet<UploadId>> {
    let mut found = BTreeSet::new();
    for id in asked {
        let caller = Caller::default();
        let read = gateway.records.get_summary(&caller, Action::Read, id).await;
        match read {
            Ok(upload) => found.insert(upload.id),
            Err(error) if error.kind() == Kind::NotFound => continue,
            Err(error) => return Err(error),
        };
    }
    Ok(found)
}

// === impl Swept ===

impl Swept {
    fn add(&mut self, other: Self) {
        let (sum, report) = (&mut self.report, other.report);
        sum.examined += report.examined;
        sum.expired += report.expired;
        sum.completed += report.completed;
        sum.finished_commits += report.finished_commits;
        sum.cleared += report.cleared;
        sum.expired_files += report.expired_files;
        sum.aborted_sessions += report.aborted_sessions;
        sum.failures += report.failures;
        self.open.extend(other.open);
        self.committing.extend(other.committing);
        self.found.extend(other.found);
    }
}

// === impl LateClock ===

impl Clock for LateClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = since.unwrap_or_default() + 7 * DAY;
        Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
    }
}
