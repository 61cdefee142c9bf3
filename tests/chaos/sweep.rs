//! The sweep at the end, with a clock by which everything that is left has expired.

use std::{
    path::Path,
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
    error::Result,
    gateway::{Caller, Gateway, Sweep, SweepReport},
    upload::{Phase, Timestamp},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A clock that is days ahead.
#[derive(Debug)]
struct LateClock;

/// The result of the sweep.
#[derive(Debug)]
pub(crate) struct Swept {
    /// The report of the sweeper.
    pub(crate) report: SweepReport,
    /// Records that are neither COMPLETE nor ABORTED.
    pub(crate) live_records: Vec<String>,
}

/// Sweeps the storages of the gateway with this configuration file, and sessions of any age.
pub(crate) async fn sweep(file: &Path) -> std::result::Result<Swept, ServeError> {
    let config = config::load(Some(file), [], &Flags::default())?;
    let backends = connect(&config).await?;
    let (state, storages) = (Arc::clone(&backends.state), backends.storages.clone());
    let gateway = Gateway::new(state, storages, config.settings()?, Arc::new(LateClock)).await?;
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
    let live = [Phase::Open, Phase::Committing].map(|phase| in_phase(&gateway, phase));
    let live_records = try_join_all(live).await?.concat();
    backends.stop().await;
    Ok(Swept {
        report,
        live_records,
    })
}

async fn in_phase(gateway: &Gateway, phase: Phase) -> Result<Vec<String>> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let caller = Caller::default();
        let listed = gateway
            .records
            .list_uploads(&caller, Some(phase), 1_000, after);
        let page = listed.await?;
        let records = page.uploads.iter();
        found.extend(records.map(|upload| format!("{} {}", upload.object_key, upload.phase)));
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
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
