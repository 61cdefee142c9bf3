//! The sweeper of a server, and a single sweep.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use upload_gateway_core::{
    error::Result,
    gateway::{Gateway, Sweep, SweepReport},
};

use crate::{config, metrics::Metrics};

/// How often the memory of the state store is checked between two sweeps. In this time, clients create uploads: with 64 MiB of
/// Redis, up to 10,000 a second fill no more than what the default limit leaves.
const ROOM_INTERVAL: Duration = Duration::from_secs(2);

/// Sweeps until it is dropped.
#[derive(Debug)]
pub(super) struct Sweeper {
    running: DropGuard,
    task: Option<JoinHandle<()>>,
}

/// Sweeps once, also if the sweeper is disabled. `None`: another replica sweeps right now.
pub(super) async fn sweep_once(
    gateway: &Gateway,
    config: &config::Sweeper,
    dry_run: bool,
) -> Result<Option<SweepReport>> {
    let sweep = Sweep {
        dry_run,
        interval: None,
        ..pass(config)
    };
    gateway
        .sweeper
        .sweep(&sweep, &CancellationToken::new())
        .await
}

fn pass(config: &config::Sweeper) -> Sweep {
    Sweep {
        dry_run: false,
        operations_per_second: config.operations_per_second,
        session_age: None,
        interval: Some(Duration::from_secs(config.interval_seconds)),
    }
}

// === impl Sweeper ===

impl Sweeper {
    /// Starts to sweep, if the configuration enables it.
    pub(super) fn start(
        gateway: &Arc<Gateway>,
        config: &config::Sweeper,
        metrics: &Metrics,
    ) -> Self {
        let stop = CancellationToken::new();
        let sweep = pass(config);
        let interval = Duration::from_secs(config.interval_seconds);
        let task = config.enabled.then(|| {
            let (stop, gateway, metrics) = (stop.clone(), Arc::clone(gateway), metrics.clone());
            tokio::spawn(async move {
                let sweeps = async {
                    // So that replicas that were started together sweep at different times.
                    while pause(interval.mul_f64(rand::random_range(0.5..1.0)), &stop).await {
                        let begun = Instant::now();
                        let swept = gateway.sweeper.sweep(&sweep, &stop).await;
                        metrics.note_sweep(&swept, begun.elapsed());
                        report(swept);
                    }
                };
                let room = async {
                    while pause(ROOM_INTERVAL, &stop).await {
                        report_room(gateway.sweeper.memory.make_room(&stop).await);
                    }
                };
                tokio::join!(sweeps, room);
            })
        });
        let running = stop.drop_guard();
        Self { running, task }
    }

    /// Starts no further sweep. The returned future ends with the current one.
    pub(super) fn drain(self) -> impl Future<Output = ()> {
        let Self { running, task } = self;
        drop(running);
        async {
            if let Some(task) = task
                && let Err(error) = task.await
            {
                tracing::error!(%error, "the sweeper stopped: {error}");
            }
        }
    }
}

/// Waits. Returns `false` if no further sweep may start.
async fn pause(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = sleep(time) => true,
    }
}

fn report_room(made: Result<u64>) {
    match made {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed records to make room"),
        Err(error) => {
            let cause = error.causes();
            tracing::warn!(%error, cause, "no room was made for records: {error}");
        }
    }
}

fn report(swept: Result<Option<SweepReport>>) {
    match swept {
        Ok(None) => {}
        Ok(Some(report)) if report.is_idle() => tracing::debug!(?report, "nothing to sweep"),
        Ok(Some(report)) => tracing::info!(?report, "swept"),
        Err(error) => {
            let cause = error.source().map(ToString::to_string);
            tracing::warn!(%error, cause, "a sweep failed: {error}");
        }
    }
}
