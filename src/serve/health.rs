//! The health of the server, which follows the real state of the state store and of every storage.
//!
//! Each store is watched by a task of its own, so that one that hangs delays no news of the others.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
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
    rest::{Health, Readiness, StoreHealth, StoreStatus},
};

/// The interval between two checks of a store.
const INTERVAL: Duration = Duration::from_secs(2);

/// The first pause before the next check of a store that was never reached. Each further pause is twice as long, up to
/// [`INTERVAL`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The time limit of one check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server waits for its first checks before it accepts calls.
const START_TIMEOUT: Duration = Duration::from_secs(1);

/// The name of the state store in reports.
const STATE: &str = "state";

/// The cause that is reported if the store gave no code.
const UNAVAILABLE: &str = "unavailable";

/// The cause that is reported if a check has no result in time.
const SILENT: &str = "no answer in time";

/// The longest error code that is reported, in characters. The known ones have at most 33.
const MAX_CODE: usize = 64;

/// The services whose health is the readiness; the empty name is the whole server.
const SERVICES: [&str; 3] = [
    "",
    upload_service_server::SERVICE_NAME,
    signing_service_server::SERVICE_NAME,
];

const STARTING: Readiness = Readiness::NotReady("starting");
const DRAINING: Readiness = Readiness::NotReady("draining");

/// Checks the stores until it is drained or dropped, and reports their health over gRPC and HTTP.
#[derive(Debug)]
pub(super) struct Monitor {
    published: Published,
    reported: watch::Sender<Health>,
    /// Watch the stores and publish their health.
    tasks: JoinSet<()>,
}

/// What was reported over gRPC.
#[derive(Debug, Clone)]
struct Published {
    reporter: HealthReporter,
    /// Whether each service is SERVING.
    services: BTreeMap<String, bool>,
}

/// Checks one store again and again.
struct Watcher {
    gateway: Arc<Gateway>,
    store: Watched,
    clock: Arc<dyn Clock>,
    reported: watch::Sender<Health>,
}

/// The store that is checked.
enum Watched {
    State,
    Storage(Arc<Storage>),
}

/// The result of a check. `Err(None)`: no answer in time.
type Checked = std::result::Result<(), Option<Error>>;

// === impl Monitor ===

impl Monitor {
    /// Begins to check. Returns after the first checks, or earlier if a store does not answer soon.
    pub(super) async fn start(
        gateway: Arc<Gateway>,
        reporter: HealthReporter,
    ) -> (Self, watch::Receiver<Health>) {
        let clock = Arc::new(SystemClock);
        let (reported, mut health) = watch::channel(unknown(&gateway, clock.now()));
        let mut published = Published {
            reporter,
            services: BTreeMap::new(),
        };
        let mut tasks = JoinSet::new();
        let storages = gateway.storages.iter().map(Arc::clone);
        for store in std::iter::once(Watched::State).chain(storages.map(Watched::Storage)) {
            let watcher = Watcher {
                gateway: Arc::clone(&gateway),
                store,
                clock: Arc::clone(&clock) as _,
                reported: reported.clone(),
            };
            tasks.spawn(watcher.run());
        }
        // If it is late, the server starts and is not ready yet.
        let _ = timeout(START_TIMEOUT, health.wait_for(is_checked)).await;
        let now = health.borrow_and_update().clone();
        published.publish(&now).await;
        tasks.spawn(published.clone().follow(health.clone()));
        let monitor = Self {
            published,
            reported,
            tasks,
        };
        (monitor, health)
    }

    /// Reports that the gateway is not ready, and ends every watch of its health: an open watch would keep its connection
    /// open.
    pub(super) async fn drain(mut self) {
        self.tasks.shutdown().await;
        self.reported.send_modify(|health| {
            health.readiness = DRAINING;
            health.since = SystemClock.now();
        });
        let health = self.reported.borrow().clone();
        // Published since by the task that is stopped now.
        self.published.services.clear();
        self.published.publish(&health).await;
        for service in self.published.services.keys() {
            self.published.reporter.clear_service_status(service).await;
        }
    }
}

// === impl Published ===

impl Published {
    /// Publishes each change of `health`.
    async fn follow(mut self, mut health: watch::Receiver<Health>) {
        while health.changed().await.is_ok() {
            let now = health.borrow_and_update().clone();
            self.publish(&now).await;
        }
    }

    async fn publish(&mut self, health: &Health) {
        for (service, is_serving) in services(health) {
            if self.services.insert(service.clone(), is_serving) == Some(is_serving) {
                continue;
            }
            let status = match is_serving {
                true => ServingStatus::Serving,
                false => ServingStatus::NotServing,
            };
            self.reporter.set_service_status(service, status).await;
        }
    }
}

/// The names of all services, and whether each is SERVING. None of them while the gateway drains.
fn services(health: &Health) -> Vec<(String, bool)> {
    let is_ready = health.readiness == Readiness::Ready;
    let is_draining = health.readiness == DRAINING;
    let is_serving = |store: &StoreHealth| !is_draining && store.status == StoreStatus::Available;
    let whole = SERVICES.map(|service| (service.to_owned(), is_ready));
    let state = (STATE.to_owned(), is_serving(&health.state));
    let storages = health.storages.iter();
    let storages = storages.map(|(id, store)| (format!("storage/{id}"), is_serving(store)));
    whole.into_iter().chain([state]).chain(storages).collect()
}

// === impl Watcher ===

impl Watcher {
    async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            if self.check().await {
                pause = INTERVAL;
            }
            sleep(pause).await;
            pause = INTERVAL.min(pause * 2);
        }
    }

    /// Checks the store once, and reports and logs its status if it has changed. Returns whether it was reached.
    async fn check(&self) -> bool {
        let checked = match &self.store {
            Watched::State => within(self.gateway.check_state()).await,
            Watched::Storage(storage) => within(storage.check()).await,
        };
        let status = self.status(&checked);
        let now = self.clock.now();
        let mut before = None;
        self.reported.send_if_modified(|health| {
            let store = self.store.of(health);
            store.was_reached |= checked.is_ok();
            if store.status == status {
                return false;
            }
            before = Some(std::mem::replace(&mut store.status, status.clone()));
            store.since = now;
            let readiness = readiness(health);
            if health.readiness != readiness {
                (health.readiness, health.since) = (readiness, now);
            }
            true
        });
        if let Some(before) = before {
            let error = checked.as_ref().err().and_then(Option::as_ref);
            self.store.log(&before, &status, error);
        }
        checked.is_ok()
    }

    /// What the result of a check says about the store.
    fn status(&self, checked: &Checked) -> StoreStatus {
        if matches!(self.store, Watched::State) && checked.is_err() && !self.gateway.is_usable() {
            return StoreStatus::Broken;
        }
        let refusal = match &self.store {
            Watched::Storage(storage) => storage.refusal(),
            Watched::State => None,
        };
        match (checked, refusal) {
            (Ok(()), None) => StoreStatus::Available,
            (Ok(()), Some(code)) => StoreStatus::Refusing(printable(&code)),
            (Err(None), _) => StoreStatus::Unavailable(SILENT.into()),
            (Err(Some(error)), _) => {
                StoreStatus::Unavailable(printable(error.operator_code().unwrap_or(UNAVAILABLE)))
            }
        }
    }
}

// === impl Watched ===

impl Watched {
    /// Its entry in `health`.
    fn of<'a>(&self, health: &'a mut Health) -> &'a mut StoreHealth {
        let Self::Storage(storage) = self else {
            return &mut health.state;
        };
        let mut storages = health.storages.iter_mut();
        let entry = storages.find(|(id, _)| *id == storage.id);
        &mut entry.expect("every storage has an entry").1
    }

    /// Logs a change of the status. The storage itself logs refusals, because it is the first to notice them.
    fn log(&self, before: &StoreStatus, status: &StoreStatus, error: Option<&Error>) {
        let (name, storage) = match self {
            Self::State => ("the state store", None),
            Self::Storage(storage) => ("the storage", Some(storage.id.as_str())),
        };
        let cause = error.map(Error::causes);
        match status {
            StoreStatus::Broken => {
                tracing::error!(cause, "the state file cannot be opened again: restart");
            }
            StoreStatus::Unavailable(why) if why == SILENT => {
                tracing::warn!(storage, "{name} does not answer in time");
            }
            StoreStatus::Unavailable(why) if why == UNAVAILABLE => {
                tracing::warn!(storage, cause, "{name} cannot be used");
            }
            StoreStatus::Available | StoreStatus::Refusing(_) if is_without_code(before) => {
                tracing::info!(storage, "{name} can be used again");
            }
            StoreStatus::Unknown
            | StoreStatus::Available
            | StoreStatus::Refusing(_)
            | StoreStatus::Unavailable(_) => {}
        }
    }
}

/// The health before the first checks.
fn unknown(gateway: &Gateway, now: Timestamp) -> Health {
    let storages = gateway.storages.iter();
    Health {
        readiness: STARTING,
        since: now,
        state: StoreHealth::unknown(now),
        storages: storages
            .map(|storage| (storage.id.clone(), StoreHealth::unknown(now)))
            .collect(),
    }
}

fn stores(health: &Health) -> impl Iterator<Item = &StoreHealth> {
    std::iter::once(&health.state).chain(health.storages.iter().map(|(_, store)| store))
}

/// Whether every store was checked at least once.
fn is_checked(health: &Health) -> bool {
    stores(health).all(|store| store.status != StoreStatus::Unknown)
}

/// Ready: this replica has reached the state store and at least one storage since it started. Until then it may be
/// misconfigured or cut off from a network that others can use, so a rollout must stop at it. Later a store that is
/// unavailable takes no replica out: the others are no better, and one that is still called answers with an error that
/// names the store, and with the uploads to other storages.
fn readiness(health: &Health) -> Readiness {
    if health.state.status == StoreStatus::Broken {
        return Readiness::Broken;
    }
    if !health.state.was_reached {
        return Readiness::NotReady("the state store was not reached yet");
    }
    if !health.storages.iter().any(|(_, store)| store.was_reached) {
        return Readiness::NotReady("no storage was reached yet");
    }
    Readiness::Ready
}

async fn within(check: impl Future<Output = Result<()>>) -> Checked {
    match timeout(CHECK_TIMEOUT, check).await {
        Ok(checked) => checked.map_err(Some),
        Err(_) => Err(None),
    }
}

/// Whether the store could not be used, and gave no code.
fn is_without_code(status: &StoreStatus) -> bool {
    match status {
        StoreStatus::Broken => true,
        StoreStatus::Unavailable(why) => why == SILENT || why == UNAVAILABLE,
        StoreStatus::Unknown | StoreStatus::Available | StoreStatus::Refusing(_) => false,
    }
}

/// The code, cut to what codes contain.
fn printable(code: &str) -> String {
    let is_usual = |character: &char| character.is_ascii_graphic() || *character == ' ';
    code.chars().filter(is_usual).take(MAX_CODE).collect()
}

#[cfg(test)]
mod tests;
