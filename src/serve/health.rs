//! The health of the server, which follows the real state of the state store and of every storage.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use upload_gateway_core::{
    clock::Clock,
    error::{Error, Result},
    gateway::{Gateway, Storage},
    upload::Timestamp,
};

use super::clock::SystemClock;
use crate::{
    proto::v1::{signing_service_server, upload_service_server},
    rest::{Failing, Health, Readiness},
};

/// The interval between two checks of the stores.
const INTERVAL: Duration = Duration::from_secs(2);

/// The time limit of one check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The name of the state store in reports.
const STATE: &str = "state";

/// The longest error code that is reported, in characters. The known ones have at most 33.
const MAX_CODE: usize = 64;

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

/// Checks the stores again and again.
struct Checks {
    gateway: Arc<Gateway>,
    clock: Arc<dyn Clock>,
    /// The stores that fail, by name.
    failing: BTreeMap<String, (Problem, Timestamp)>,
}

/// Why a store fails.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Problem {
    /// It refuses requests with this code.
    Refuses(String),
    /// It cannot be used, and gave no code.
    Unavailable,
    /// It does not answer in time.
    Silent,
    /// Its file cannot be opened again, and only a restart may help.
    Broken,
}

/// The result of a check. `Err(None)`: no answer in time.
type Checked = std::result::Result<(), Option<Error>>;

// === impl Monitor ===

impl Monitor {
    /// Checks once, then continues in the background.
    pub(super) async fn start(
        gateway: Arc<Gateway>,
        reporter: HealthReporter,
    ) -> (Self, watch::Receiver<Health>) {
        let (reported, health) = watch::channel(Readiness::NotReady("starting").into());
        let mut checks = Checks {
            gateway,
            clock: Arc::new(SystemClock),
            failing: BTreeMap::new(),
        };
        report(&reporter, &reported, checks.run().await).await;
        let task = tokio::spawn({
            let (reporter, reported) = (reporter.clone(), reported.clone());
            async move {
                loop {
                    sleep(INTERVAL).await;
                    report(&reporter, &reported, checks.run().await).await;
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
        let draining = Readiness::NotReady("draining").into();
        report(&self.reporter, &self.reported, draining).await;
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

// === impl Checks ===

impl Checks {
    /// Checks all stores, and logs each store that fails differently than before.
    async fn run(&mut self) -> Health {
        let gateway = Arc::clone(&self.gateway);
        let stores = gateway
            .storages
            .iter()
            .map(|storage| within(storage.check()));
        let (state, stores) = tokio::join!(within(gateway.check_state()), join_all(stores));
        let is_ready = state.is_ok() && stores.iter().all(std::result::Result::is_ok);
        let is_silent = std::iter::once(&state)
            .chain(&stores)
            .any(|checked| matches!(checked, Err(None)));
        let is_broken = state.is_err() && !gateway.is_usable();
        let problem = is_broken.then_some(Problem::Broken);
        self.note(STATE.to_owned(), problem.or(unavailable(&state)), state);
        for (storage, checked) in gateway.storages.iter().zip(stores) {
            let refusal = || refusal(storage).map(Problem::Refuses);
            let problem = unavailable(&checked).or_else(refusal);
            self.note(format!("storage {}", storage.id), problem, checked);
        }
        Health {
            readiness: match (is_ready, is_silent) {
                _ if is_broken => Readiness::Broken,
                (true, _) => Readiness::Ready,
                (false, true) => Readiness::NotReady("a store does not answer in time"),
                (false, false) => Readiness::NotReady("a store cannot be used; the log names it"),
            },
            failing: self.failing.iter().map(failing).collect(),
        }
    }

    /// Notes the problem of one store, if it has one, and logs it if it is new. `checked` is the result of its check.
    fn note(&mut self, store: String, problem: Option<Problem>, checked: Checked) {
        let known = self.failing.get(&store).map(|(problem, _)| problem);
        if known == problem.as_ref() {
            return;
        }
        let error = checked.err().flatten();
        log(&store, known, problem.as_ref(), error.as_ref());
        match problem {
            Some(problem) => {
                let since = self.clock.now();
                self.failing.insert(store, (problem, since));
            }
            None => {
                self.failing.remove(&store);
            }
        }
    }
}

async fn within(check: impl Future<Output = Result<()>>) -> Checked {
    match timeout(CHECK_TIMEOUT, check).await {
        Ok(checked) => checked.map_err(Some),
        Err(_) => Err(None),
    }
}

/// The problem of a store that cannot be used and gave no code.
fn unavailable(checked: &Checked) -> Option<Problem> {
    match checked {
        Err(Some(error)) if error.operator_code().is_none() => Some(Problem::Unavailable),
        Err(None) => Some(Problem::Silent),
        Ok(()) | Err(Some(_)) => None,
    }
}

/// Logs that a store fails differently than before, or no longer. The gateway itself logs refusals.
fn log(store: &str, known: Option<&Problem>, problem: Option<&Problem>, error: Option<&Error>) {
    match (problem, error) {
        (Some(Problem::Refuses(_)), _) => {}
        (Some(Problem::Broken), Some(error)) => {
            tracing::error!(%error, cause = error.causes(), "the state file cannot be opened again: {error}");
        }
        (Some(_), Some(error)) => {
            tracing::warn!(store, %error, cause = error.causes(), "a store cannot be used: {error}");
        }
        (Some(_), None) => tracing::warn!(store, "a store does not answer in time"),
        (None, _) if matches!(known, Some(Problem::Refuses(_))) => {}
        (None, _) => tracing::warn!(store, "the store can be used again"),
    }
}

/// The code with which a store refuses requests, cut to what codes contain.
fn refusal(storage: &Storage) -> Option<String> {
    let code = storage.refusal()?;
    let is_usual = |character: &char| character.is_ascii_graphic() || *character == ' ';
    Some(code.chars().filter(is_usual).take(MAX_CODE).collect())
}

fn failing((store, (problem, since)): (&String, &(Problem, Timestamp))) -> Failing {
    Failing {
        store: store.clone(),
        problem: match problem {
            Problem::Refuses(code) => code.clone(),
            Problem::Unavailable => "unavailable".into(),
            Problem::Silent => "no answer in time".into(),
            Problem::Broken => "cannot be opened again".into(),
        },
        since: *since,
    }
}

async fn report(reporter: &HealthReporter, reported: &watch::Sender<Health>, health: Health) {
    let readiness = health.readiness;
    let status = match readiness {
        Readiness::Ready => ServingStatus::Serving,
        Readiness::NotReady(_) | Readiness::Broken => ServingStatus::NotServing,
    };
    let before = reported.send_replace(health).readiness;
    if before != readiness {
        for service in SERVICES {
            reporter.set_service_status(service, status).await;
        }
    }
}

#[cfg(test)]
mod tests;
