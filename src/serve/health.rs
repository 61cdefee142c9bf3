//! The health of the server, which follows the real state of the state store and of every storage.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use upload_gateway_core::gateway::Gateway;

use crate::{
    proto::v1::{signing_service_server, upload_service_server},
    rest::Health,
};

/// The interval between two checks of the stores.
const INTERVAL: Duration = Duration::from_secs(2);

/// The time limit of one check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The services whose health is reported; the empty name is the whole server.
const SERVICES: [&str; 3] = [
    "",
    upload_service_server::SERVICE_NAME,
    signing_service_server::SERVICE_NAME,
];

/// Checks the stores until it is drained or dropped, and reports their health over gRPC and HTTP.
#[derive(Debug)]
pub(super) struct Monitor {
    reporter: HealthReporter,
    reported: watch::Sender<Health>,
    task: JoinHandle<()>,
}

// === impl Monitor ===

impl Monitor {
    /// Checks once, then continues in the background.
    pub(super) async fn start(
        gateway: Arc<Gateway>,
        reporter: HealthReporter,
    ) -> (Self, watch::Receiver<Health>) {
        let (reported, health) = watch::channel(Health::NotReady("starting"));
        report(&reporter, &reported, check(&gateway).await).await;
        let task = tokio::spawn({
            let (reporter, reported) = (reporter.clone(), reported.clone());
            async move {
                loop {
                    sleep(INTERVAL).await;
                    report(&reporter, &reported, check(&gateway).await).await;
                }
            }
        });
        (
            Self {
                reporter,
                reported,
                task,
            },
            health,
        )
    }

    /// Reports that the gateway is not ready, and ends every watch of its health: an open watch would keep its connection
    /// open.
    pub(super) async fn drain(mut self) {
        self.task.abort();
        report(&self.reporter, &self.reported, Health::NotReady("draining")).await;
        for service in SERVICES {
            self.reporter.clear_service_status(service).await;
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn check(gateway: &Gateway) -> Health {
    match timeout(CHECK_TIMEOUT, gateway.check()).await {
        Ok(Ok(())) => Health::Ready,
        Ok(Err(error)) if !gateway.is_usable() => {
            tracing::error!(%error, cause = error.causes(), "the state file cannot be opened again: {error}");
            Health::Broken
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, cause = error.causes(), "a store cannot be used: {error}");
            Health::NotReady("a store cannot be used; the log names it")
        }
        Err(_) => {
            tracing::warn!("a store does not answer in time");
            Health::NotReady("a store does not answer in time")
        }
    }
}

async fn report(reporter: &HealthReporter, reported: &watch::Sender<Health>, health: Health) {
    let status = match health {
        Health::Ready => ServingStatus::Serving,
        Health::NotReady(_) | Health::Broken => ServingStatus::NotServing,
    };
    let changed = reported.send_if_modified(|known| {
        let changed = *known != health;
        *known = health;
        changed
    });
    if changed {
        for service in SERVICES {
            reporter.set_service_status(service, status).await;
        }
    }
}
