//! What is reported and logged of stores that fail.

use std::{
    io,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tempfile::TempDir;
use upload_gateway_core::decorate::{Around, Decorated};

use super::*;
use crate::{
    config::Config,
    serve::{Backends, connect},
};

/// How the store answers.
#[derive(Debug, Clone, Default)]
struct Answers {
    /// `None`: truthfully. An empty text: with an error without a code.
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

/// A gateway with one storage, whose health is checked.
struct Checked {
    checks: Checks,
    answers: Answers,
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
            Some("") => Err(Error::store_unavailable("no code")),
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

    /// The warnings since the last call.
    fn warnings(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        let warnings = text.lines().filter(|line| line.contains(" WARN "));
        warnings.map(str::to_owned).collect()
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
        let answers = Answers::default();
        let storages = backends
            .storages
            .clone()
            .with_stores(|store| Arc::new(Decorated::new(store, answers.clone())));
        let clock = Arc::<Hands>::default();
        let settings = config.settings().unwrap();
        let state = Arc::clone(&backends.state);
        let hands = Arc::clone(&clock) as Arc<dyn Clock>;
        let gateway = Gateway::new(state, storages, settings, Arc::clone(&hands)).await;
        Self {
            checks: Checks {
                gateway: Arc::new(gateway.unwrap()),
                clock: hands,
                failing: BTreeMap::new(),
            },
            answers,
            clock,
            _backends: backends,
            _directory: directory,
        }
    }

    /// Checks at that second, and each second after it, three times in all, while the store answers so.
    async fn thrice(&mut self, second: u64, code: Option<&'static str>) -> Health {
        *self.answers.code.lock().unwrap() = code;
        for second in second..second + 2 {
            self.clock.0.store(second * 1000, Ordering::Relaxed);
            self.checks.run().await;
        }
        self.checks.run().await
    }
}

#[tokio::test]
async fn a_change_is_logged_once_and_reported_with_its_time() {
    let log = Log::default();
    let _guard = log.collect();
    let mut checked = Checked::start().await;
    assert_eq!(checked.thrice(0, None).await, Readiness::Ready.into());
    assert_eq!(log.warnings().len(), 0);
    let unavailable = Some("unavailable");
    for (second, answer, problem, logged) in [
        (10, Some(""), unavailable, "cannot be used"),
        (20, None, None, "can be used again"),
        (30, Some(""), unavailable, "cannot be used"),
        (40, Some("Denied"), Some("Denied"), "refuses requests"),
        (50, Some("NoBucket"), Some("NoBucket"), "refuses requests"),
        (55, None, None, "accepts requests again"),
    ] {
        let health = checked.thrice(second, answer).await;
        let reported = health.failing.iter().map(ToString::to_string);
        let line =
            |problem| format!("storage embedded: {problem} since 1970-01-01T00:00:{second}Z");
        let expected: Vec<_> = problem.into_iter().map(line).collect();
        assert_eq!(reported.collect::<Vec<_>>(), expected);
        assert_eq!(health.readiness == Readiness::Ready, problem.is_none());
        let warnings = log.warnings();
        assert_eq!(warnings.len(), 1, "{second}: {warnings:?}");
        assert!(warnings[0].contains(logged), "{warnings:?}");
    }
}

#[tokio::test]
async fn a_refusal_of_some_requests_is_reported_and_the_gateway_stays_ready() {
    let log = Log::default();
    // Without it, tracing may turn off the same warnings in the other test.
    let _guard = log.collect();
    let checked = &mut Checked::start().await;
    checked.answers.refuse_only("store.head");
    *checked.answers.code.lock().unwrap() = Some("AccessDenied");
    let storage = checked.checks.gateway.storages.get("").unwrap();
    assert!(storage.store.head("key").await.is_err());
    let health = checked.checks.run().await;
    assert_eq!(health.readiness, Readiness::Ready);
    assert_eq!(health.failing.len(), 1);
    assert_eq!(health.failing[0].problem, "AccessDenied");
    assert_eq!(log.warnings().len(), 1);
    *checked.answers.code.lock().unwrap() = None;
    storage.store.head("key").await.unwrap();
    assert_eq!(checked.checks.run().await, Readiness::Ready.into());
}
