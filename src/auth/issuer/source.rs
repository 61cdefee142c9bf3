//! Where the keys of an issuer come from, and when they are fetched.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::body::{Body, to_bytes};
use hyper::{Request, StatusCode, Uri, header::AUTHORIZATION};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    config::IssuerConfig,
    keys::{Key, KeySet},
};
use crate::{auth::rejection::Rejection, authorities};

/// How long one fetch may take, and how long a call waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest time between two fetches for unknown keys: forged tokens must not make the gateway flood the issuer.
const PAUSE: Duration = Duration::from_secs(5);

/// The same for a file, which is read at little cost.
const FILE_PAUSE: Duration = Duration::from_secs(1);

/// A call waits for a fetch that begins within this time.
const SOON: Duration = Duration::from_secs(1);

/// How many calls wait for a fetch at a time.
const MAX_WAITING: usize = 100;

/// How long keys are used while no fetch succeeds.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The largest key set, in bytes.
const MAX_SIZE: usize = 1024 * 1024;

/// The latest keys of an issuer.
#[derive(Debug)]
pub(super) struct Keys {
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
    waiting: Semaphore,
    pause: Duration,
    /// How long after one fetch the next one begins if no call wants it earlier.
    interval: Duration,
}

#[derive(Debug, Clone, Default)]
struct State {
    keys: Arc<KeySet>,
    /// When the last fetch began, also one that is running.
    begun: Option<Instant>,
    is_running: bool,
    /// How many fetches have ended.
    ended: u64,
    /// Why the last one failed.
    problem: Option<String>,
    /// When the last one that succeeded ended.
    fetched_at: Option<SystemTime>,
}

/// How keys are fetched.
enum Fetch {
    File(PathBuf),
    Url(Box<Remote>),
}

/// A URL, and how it is reached.
struct Remote {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    url: Uri,
    bearer_token_file: Option<PathBuf>,
}

/// Fetches keys again and again.
struct Fetcher {
    issuer: String,
    fetch: Fetch,
    state: watch::Sender<State>,
    wanted: Arc<Notify>,
    interval: Duration,
    pause: Duration,
    /// The document that was fetched last, and when.
    last: Vec<u8>,
    last_at: Instant,
}

// === impl Keys ===

impl Keys {
    /// The keys of an issuer. Those of a file are read now; those of a URL are fetched soon. Must be called in a runtime.
    ///
    /// # Errors
    /// Says which file cannot be used.
    pub(super) fn start(config: &IssuerConfig) -> Result<Self, String> {
        let refresh = Duration::from_secs(config.refresh_seconds);
        let (fetch, interval, pause) = match (&config.jwks_file, &config.jwks_url) {
            (Some(path), _) => (Fetch::File(path.clone()), FILE_PAUSE, FILE_PAUSE),
            (None, Some(_)) => (Fetch::from_url(config)?, refresh, PAUSE),
            (None, None) => {
                let secret = config.hs256_secret.as_ref();
                let secret = secret.ok_or("the issuer has no keys")?.expose();
                return Ok(Self::fixed(KeySet::of(Key::secret(secret))));
            }
        };
        let mut last = Vec::new();
        let mut state = State::default();
        if let Fetch::File(path) = &fetch {
            let unreadable = |error| format!("cannot read {}: {error}", path.display());
            last = std::fs::read(path).map_err(unreadable)?;
            state.keys = parsed(&config.issuer, &last)
                .map_err(|problem| format!("{}: {problem}", path.display()))?;
        }
        let (sender, receiver) = watch::channel(state);
        let wanted = Arc::new(Notify::new());
        let fetcher = Fetcher {
            issuer: config.issuer.clone(),
            fetch,
            state: sender,
            wanted: Arc::clone(&wanted),
            interval,
            pause,
            last,
            last_at: Instant::now(),
        };
        tokio::spawn(fetcher.run());
        Ok(Self {
            state: receiver,
            wanted,
            waiting: Semaphore::new(MAX_WAITING),
            pause,
            interval,
        })
    }

    fn fixed(keys: KeySet) -> Self {
        let state = State {
            keys: Arc::new(keys),
            ..State::default()
        };
        Self {
            state: watch::channel(state).1,
            wanted: Arc::default(),
            waiting: Semaphore::new(0),
            pause: PAUSE,
            interval: PAUSE,
        }
    }

    /// When the keys will be too old to be used, if they are not fetched again. `None`: they are not fetched, or were never.
    pub(super) fn expire_at(&self) -> Option<SystemTime> {
        Some(self.state.borrow().fetched_at? + MAX_AGE)
    }

    /// The latest keys.
    pub(super) fn latest(&self) -> Arc<KeySet> {
        Arc::clone(&self.state.borrow().keys)
    }

    /// A set that has the key with this id. If the latest one lacks it, waits for a fetch that begins after this call.
    ///
    /// # Errors
    /// `Invalid` if the fetched set lacks the key, too. `Unavailable` if the fetch fails or may not begin now.
    pub(super) async fn with(&self, id: Option<&str>) -> Result<Arc<KeySet>, Rejection> {
        let latest = self.latest();
        // A fixed key cannot be fetched.
        if latest.find(id).is_some() {
            return Ok(latest);
        }
        if self.state.has_changed().is_err() {
            return Err(Rejection::invalid("no key has this id"));
        }
        if id.is_none() && !latest.is_empty() {
            let cause = "a token without a key id, but the issuer has several keys";
            return Err(Rejection::invalid(cause));
        }
        let Ok(_waits) = self.waiting.try_acquire() else {
            let cause = "too many calls wait for keys".to_owned();
            return Err(Rejection::Unavailable(cause, self.pause));
        };
        let waited = timeout(FETCH_TIMEOUT, self.fetched(id)).await;
        waited.unwrap_or_else(|_| {
            let cause = "the keys did not arrive in time".to_owned();
            Err(Rejection::Unavailable(cause, self.pause))
        })
    }

    async fn fetched(&self, id: Option<&str>) -> Result<Arc<KeySet>, Rejection> {
        let (mut state, arrived) = (self.state.clone(), Instant::now());
        loop {
            let (ended, is_running, begun) = {
                let state = state.borrow_and_update();
                (state.ended, state.is_running, state.begun)
            };
            if !is_running {
                let since = begun.map(|begun| begun.elapsed());
                let next = since.map(|since| self.interval.saturating_sub(since));
                match since.filter(|since| *since < self.pause) {
                    None => self.wanted.notify_one(),
                    Some(_) if next.is_some_and(|next| next <= SOON) => {}
                    Some(since) => {
                        let cause = "the keys have just been fetched".to_owned();
                        let delay = self.pause.min(self.interval).saturating_sub(since);
                        return Err(Rejection::Unavailable(cause, delay));
                    }
                }
            }
            let changed = state.wait_for(|state| state.ended > ended).await;
            let state = changed
                .map_err(|_| Rejection::invalid("no key has this id"))?
                .clone();
            if state.keys.find(id).is_some() {
                return Ok(state.keys);
            }
            if let Some(problem) = state.problem {
                return Err(Rejection::Unavailable(problem, self.pause));
            }
            // One that began earlier may have missed a new key.
            if state.begun.is_some_and(|begun| begun >= arrived) {
                return Err(Rejection::invalid("the issuer has no key with this id"));
            }
        }
    }
}

// === impl Fetcher ===

impl Fetcher {
    async fn run(mut self) {
        loop {
            let begun = Instant::now();
            self.state.send_modify(|state| {
                state.begun = Some(begun);
                state.is_running = true;
            });
            let fetched = timeout(FETCH_TIMEOUT, self.fetch.get()).await;
            let fetched = fetched.unwrap_or_else(|_| Err("no answer within 5 seconds".into()));
            let keys = fetched.and_then(|document| self.accept(document));
            self.end(keys);
            tokio::select! {
                () = sleep(self.interval) => {}
                () = self.wanted_after(begun + self.pause) => {}
                () = self.state.closed() => return,
            }
        }
    }

    /// Waits until a call wants a fetch after that time. One that wanted it earlier waits for the fetch that has just ended.
    async fn wanted_after(&self, time: Instant) {
        loop {
            self.wanted.notified().await;
            if Instant::now() >= time {
                return;
            }
        }
    }

    /// The keys of a document. `None`: it has not changed.
    fn accept(&mut self, document: Vec<u8>) -> Result<Option<Arc<KeySet>>, String> {
        if document == self.last {
            self.last_at = Instant::now();
            return Ok(None);
        }
        let keys = parsed(&self.issuer, &document)?;
        (self.last, self.last_at) = (document, Instant::now());
        tracing::info!(issuer = self.issuer, "the keys of an issuer have changed");
        Ok(Some(keys))
    }

    fn end(&mut self, keys: Result<Option<Arc<KeySet>>, String>) {
        let is_too_old = self.last_at.elapsed() >= MAX_AGE;
        let known = self.state.borrow().problem.clone();
        let (keys, problem) = match keys {
            Ok(keys) => (keys, None),
            Err(problem) => {
                if known.as_ref() != Some(&problem) {
                    tracing::warn!(
                        issuer = self.issuer,
                        problem,
                        "the keys of an issuer cannot be fetched: the last ones are used for a day"
                    );
                }
                (is_too_old.then(Arc::default), Some(problem))
            }
        };
        self.state.send_modify(|state| {
            if let Some(keys) = keys {
                state.keys = keys;
            }
            if problem.is_none() {
                state.fetched_at = Some(SystemTime::now());
            }
            state.problem = problem;
            state.is_running = false;
            state.ended += 1;
        });
    }
}

/// The keys of a document. Logs those that are ignored.
fn parsed(issuer: &str, document: &[u8]) -> Result<Arc<KeySet>, String> {
    let (keys, ignored) = KeySet::parse(document)?;
    if !ignored.is_empty() {
        tracing::warn!(issuer, ?ignored, "keys of an issuer are ignored");
    }
    Ok(Arc::new(keys))
}

// === impl Fetch ===

impl Fetch {
    fn from_url(config: &IssuerConfig) -> Result<Self, String> {
        let url = config.jwks_url.as_ref().ok_or("jwks_url is not set")?;
        let url = url.as_str().parse().map_err(|_| "jwks_url is no URL")?;
        let tls = authorities::client_config(config.ca_file.as_deref());
        let tls = tls.map_err(|error| format!("ca_file: {error}"))?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        let connector = HttpsConnector::from((connector, tls));
        Ok(Self::Url(Box::new(Remote {
            client: Client::builder(TokioExecutor::new()).build(connector),
            url,
            bearer_token_file: config.bearer_token_file.clone(),
        })))
    }

    /// The document.
    async fn get(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::File(path) => read(path).await,
            Self::Url(remote) => remote.get().await,
        }
    }
}

// === impl Remote ===

impl Remote {
    async fn get(&self) -> Result<Vec<u8>, String> {
        let mut request = Request::get(self.url.clone());
        if let Some(path) = &self.bearer_token_file {
            let token = String::from_utf8(read(path).await?).unwrap_or_default();
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        let request = request.body(Body::empty());
        let request = request.map_err(|_| "the token for jwks_url is malformed".to_owned())?;
        let response = self.client.request(request).await;
        let response = response.map_err(|error| chain(&error))?;
        if response.status() != StatusCode::OK {
            return Err(format!("status {}", response.status()));
        }
        let body = to_bytes(Body::new(response.into_body()), MAX_SIZE).await;
        let body = body.map_err(|error| chain(&error))?;
        Ok(body.into())
    }
}

async fn read(path: &std::path::Path) -> Result<Vec<u8>, String> {
    let read = tokio::fs::read(path).await;
    read.map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    const KEYS: &str = r#"{"keys":[{"kid":"one","kty":"OKP","crv":"Ed25519","x":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}]}"#;

    fn keys(directory: &tempfile::TempDir) -> Keys {
        let path = directory.path().join("jwks.json");
        std::fs::write(&path, KEYS).unwrap();
        let config = IssuerConfig {
            issuer: "issuer".into(),
            jwks_file: Some(path),
            ..IssuerConfig::default()
        };
        Keys::start(&config).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_cause_few_fetches() {
        let directory = tempfile::tempdir().unwrap();
        let keys = keys(&directory);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            let calls = (0..50).map(|_| keys.with(Some("forged")));
            for refused in join_all(calls).await {
                assert!(refused.is_err());
            }
            sleep(Duration::from_millis(10)).await;
        }
        let fetches = keys.state.borrow().ended;
        assert!((5..=12).contains(&fetches), "{fetches} fetches");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_a_key_that_is_published_at_the_same_time() {
        let directory = tempfile::tempdir().unwrap();
        let keys = keys(&directory);
        let mut state = keys.state.clone();
        state.wait_for(|state| state.ended > 0).await.unwrap();
        sleep(keys.pause).await;
        let path = directory.path().join("jwks.json");
        std::fs::write(path, KEYS.replace("one", "two")).unwrap();
        assert!(keys.with(Some("two")).await.is_ok());
        assert!(keys.with(Some("one")).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_document_that_is_no_key_set_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let keys = keys(&directory);
        for document in ["<html>", "", r#"{"keys":[]}"#, &" ".repeat(2 * MAX_SIZE)] {
            std::fs::write(directory.path().join("jwks.json"), document).unwrap();
            sleep(3 * keys.pause).await;
            assert!(keys.with(Some("one")).await.is_ok());
            let unknown = keys.with(Some("two")).await.unwrap_err();
            assert!(matches!(unknown, Rejection::Unavailable(..)), "{unknown:?}");
        }
    }
}
