//! The sweeper beside the server, and one pass by hand.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use upload_gateway_core::gateway::{Gateway, Sweep, SweepReport};

use super::{ServeError, SystemClock, connect, settings};
use crate::config::{self, Config};

/// Sweeps until it is dropped.
#[derive(Debug)]
pub(super) struct Sweeper {
    running: DropGuard,
    task: Option<JoinHandle<()>>,
}

/// Makes one pass with the stores of `config`, whether or not its sweeper is enabled. `None` when a replica sweeps.
///
/// # Errors
/// The stores cannot be used, or the state store is away.
pub async fn sweep_once(config: &Config, dry_run: bool) -> Result<Option<SweepReport>, ServeError> {
    let backends = connect(config).await?;
    let gateway = Gateway::new(
        Arc::clone(&backends.state),
        backends.storages.clone(),
        settings(config)?,
        Arc::new(SystemClock),
    );
    let sweep = Sweep {
        dry_run,
        interval: None,
        ..pass(&config.sweeper)
    };
    let swept = gateway
        .await?
        .sweeper
        .sweep(&sweep, &CancellationToken::new())
        .await;
    backends.stop().await;
    Ok(swept?)
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
    /// Begins, if it is wanted.
    pub(super) fn start(gateway: Arc<Gateway>, config: &config::Sweeper) -> Self {
        let stop = CancellationToken::new();
        let sweep = pass(config);
        let interval = Duration::from_secs(config.interval_seconds);
        let task = config.enabled.then(|| {
            let stop = stop.clone();
            tokio::spawn(async move {
                loop {
                    // Replicas that were started together come at different times.
                    let pause = interval.mul_f64(rand::random_range(0.5..1.0));
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = sleep(pause) => report(gateway.sweeper.sweep(&sweep, &stop).await),
                    }
                }
            })
        });
        let running = stop.drop_guard();
        Self { running, task }
    }

    /// Begins nothing more; what is returned ends with what is being done.
    pub(super) fn drain(self) -> impl Future<Output = ()> {
        let Self { running, task } = self;
        drop(running);
        async {
            if let Some(task) = task
                && let Err(error) = task.await
            {
                tracing::error!(%error, "the sweeper broke off: {error}");
            }
        }
    }
}

fn report(swept: upload_gateway_core::error::Result<Option<SweepReport>>) {
    match swept {
        Ok(None) => {}
        Ok(Some(report)) if report.is_idle() => tracing::debug!(?report, "nothing to sweep up"),
        Ok(Some(report)) => tracing::info!(?report, "swept up"),
        Err(error) => {
            let cause = error.source().map(ToString::to_string);
            tracing::warn!(%error, cause, "the sweeper gave up for now: {error}");
        }
    }
}
