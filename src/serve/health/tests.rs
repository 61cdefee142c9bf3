//! What is reported and logged of stores that fail.

use std::{
    io,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tempfile::TempDir;
use upload_gateway_core::{
    decorate::{Around, Decorated},
    gateway::{Caller, Storages},
    state::StateStore,
};

use super::*;
use crate::{
    config::Config,
    serve::{Backends, connect},
};

/// How the store answers.
#[derive(Debug, Clone, Default)]
struct Answers {
    /// `None`: truthfully. An empty text: with an error without a code. `hang`: never.
    code: Arc<Mutex<Option<&'static str>>>,
    /// The only call that is answered so; all if it is not set.
    only: Arc<Mutex<Option<&'static str>>>,
}

/// A clock that a test moves.
#[derive(Debug, Default)]
struct Hands(AtomicU64);

/// What was logged.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

/// A gateway with two storages, `embedded` and `media`, whose health is checked.
struct Checked {
    gateway: Arc<Gateway>,
    reported: watch::Sender<Health>,
    state: Answers,
    storages: [Answers; 2],
    clock: Arc<Hands>,
    _backends: Backends,
    _directory: TempDir,
}

impl Around for Answers {
    async fn around<T, F>(
        &self,
        name: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let is_other = self.only.lock().unwrap().is_some_and(|only| only != name);
        let code = *self.code.lock().unwrap();
        match code.filter(|_| !is_other) {
            None => call().await,
            Some("") => Err(Error::store_unavailable("connection refused")),
            Some("hang") => std::future::pending().await,
            Some(code) => Err(Error::for_operator(code, "refused")),
        }
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Answers ===

impl Answers {
    fn give(&self, code: Option<&'static str>) {
        *self.code.lock().unwrap() = code;
    }

    fn refuse_only(&self, call: &'static str) {
        *self.only.lock().unwrap() = Some(call);
    }
}

// === impl Log ===

impl Log {
    /// Collects what this thread logs until the guard is dropped.
    fn collect(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || log.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }

    /// The lines since the last call.
    fn lines(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

// === impl Checked ===

impl Checked {
    async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let config = Config {
            data_dir: directory.path().join("data"),
            ..Config::default()
        };
        let backends = connect(&config).await.unwrap();
        let (state, storages) = (Answers::default(), <[Answers; 2]>::default());
        let inner = backends
            .storages
            .for_caller(&Caller::default(), "")
            .unwrap();
        let all = ["embedded", "media"].into_iter().zip(&storages);
        let all = all.map(|(id, answers)| {
            let store = Decorated::new(Arc::clone(&inner.store), answers.clone());
            Storage::new(id, Arc::new(store), "", inner.part_size)
        });
        let all = Storages::new(all.collect(), "embedded").unwrap();
        let clock = Arc::<Hands>::default();
        let hands = Arc::clone(&clock) as Arc<dyn Clock>;
        let answering =
            Decorated::<dyn StateStore, _>::new(Arc::clone(&backends.state), state.clone());
        let settings = config.settings().unwrap();
        let gateway = Gateway::new(Arc::new(answering), all, settings, hands).await;
        let gateway = Arc::new(gateway.unwrap());
        let health = unknown(&gateway, Timestamp(0));
        Self {
            gateway,
            reported: watch::channel(health).0,
            state,
            storages,
            clock,
            _backends: backends,
            _directory: directory,
        }
    }

    /// Checks all stores once.
    async fn check(&self) -> Health {
        let storages = self.gateway.storages.iter().map(Arc::clone);
        for store in std::iter::once(Watched::State).chain(storages.map(Watched::Storage)) {
            let watcher = Watcher {
                gateway: Arc::clone(&self.gateway),
                store,
                clock: Arc::clone(&self.clock) as _,
                reported: self.reported.clone(),
            };
            watcher.check().await;
        }
        self.reported.borrow().clone()
    }

    /// Checks at that second, and each second after it, three times in all.
    async fn check_thrice(&self, second: u64) -> Health {
        for second in second..second + 2 {
            self.clock.0.store(second * 1000, Ordering::Relaxed);
            self.check().await;
        }
        self.check().await
    }
}

/// The status of the storage `embedded`, and the second since when.
fn embedded(health: &Health) -> (StoreStatus, u64) {
    let (_, store) = &health.storages[0];
    (store.status.clone(), store.since.0 / 1000)
}

#[tokio::test]
async fn a_change_is_logged_once_with_its_cause_and_reported_with_its_time() {
    let log = Log::default();
    let _guard = log.collect();
    let checked = Checked::start().await;
    let unavailable = |cause: &str| StoreStatus::Unavailable(cause.into());
    checked.check_thrice(0).await;
    assert_eq!(log.lines(), Vec::<String>::new());
    for (second, answer, status, logged) in [
        (
            10,
            Some(""),
            unavailable("unavailable"),
            ["WARN", "connection refused"],
        ),
        (
            20,
            None,
            StoreStatus::Available,
            ["INFO", "can be used again"],
        ),
        (
            30,
            Some(""),
            unavailable("unavailable"),
            ["WARN", "cannot be used"],
        ),
        (
            40,
            Some("Denied"),
            unavailable("Denied"),
            ["WARN", "refuses requests"],
        ),
        (
            50,
            Some("NoBucket"),
            unavailable("NoBucket"),
            ["WARN", "refuses requests"],
        ),
        (
            55,
            None,
            StoreStatus::Available,
            ["INFO", "accepts requests again"],
        ),
    ] {
        checked.storages[0].give(answer);
        let health = checked.check_thrice(second).await;
        assert_eq!(embedded(&health), (status, second));
        assert_eq!(health.readiness, Readiness::Ready);
        let lines = log.lines();
        assert_eq!(lines.len(), 1, "{second}: {lines:?}");
        for text in logged.into_iter().chain(["embedded"]) {
            assert!(lines[0].contains(text), "{lines:?}");
        }
    }
}

#[tokio::test]
async fn a_refusal_of_some_requests_is_reported() {
    let log = Log::default();
    // Without it, tracing may turn off the same warnings in the other test.
    let _guard = log.collect();
    let checked = Checked::start().await;
    checked.storages[0].refuse_only("store.head");
    checked.storages[0].give(Some("AccessDenied"));
    let storage = checked
        .gateway
        .storages
        .for_caller(&Caller::default(), "")
        .unwrap();
    assert!(storage.store.head("key").await.is_err());
    let refusing = StoreStatus::Refusing("AccessDenied".into());
    assert_eq!(embedded(&checked.check().await).0, refusing);
    assert_eq!(log.lines().len(), 1);
    checked.storages[0].give(None);
    storage.store.head("key").await.unwrap();
    assert_eq!(embedded(&checked.check().await).0, StoreStatus::Available);
}

#[tokio::test]
async fn ready_needs_the_state_store_and_one_storage_once() {
    let checked = Checked::start().await;
    let [embedded, media] = &checked.storages;
    embedded.give(Some("NoSuchBucket"));
    media.give(Some(""));
    checked.state.give(Some(""));
    let readiness = async || checked.check().await.readiness;
    let cause = Readiness::NotReady("the state store was not reached yet");
    assert_eq!(readiness().await, cause);
    checked.state.give(None);
    let cause = Readiness::NotReady("no storage was reached yet");
    assert_eq!(readiness().await, cause);
    media.give(None);
    assert_eq!(readiness().await, Readiness::Ready);
    media.give(Some(""));
    checked.state.give(Some(""));
    let health = checked.check().await;
    assert_eq!(health.readiness, Readiness::Ready);
    let serving = services(&health)
        .into_iter()
        .filter(|(_, is_serving)| *is_serving);
    let serving: Vec<_> = serving.map(|(service, _)| service).collect();
    assert_eq!(serving, SERVICES);
}

#[tokio::test]
async fn a_store_that_hangs_delays_no_report_of_the_others() {
    let checked = Checked::start().await;
    checked.storages[0].give(Some("hang"));
    let (reporter, _service) = tonic_health::server::health_reporter();
    let (monitor, health) = Monitor::start(Arc::clone(&checked.gateway), reporter).await;
    let now = health.borrow().clone();
    assert_eq!(now.readiness, Readiness::Ready);
    let statuses = now.storages.iter().map(|(_, store)| store.status.clone());
    let statuses: Vec<_> = statuses.collect();
    assert_eq!(statuses, [StoreStatus::Unknown, StoreStatus::Available]);
    monitor.drain().await;
    assert_eq!(health.borrow().readiness, DRAINING);
}
