//! A proxy in front of a store that injects faults: it forwards requests, except those that it answers itself.

use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, HeaderName, Response, StatusCode, request::Parts as Head};
use bytes::Bytes;

use super::front::{Behind, Front};

/// An answer to the next request with this method whose query contains the text.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) method: &'static str,
    pub(crate) query: &'static str,
    pub(crate) status: u16,
    pub(crate) body: &'static str,
    /// How many times it is given.
    pub(crate) times: usize,
    /// Whether the request is forwarded to the store nevertheless, and only the store's answer is lost.
    pub(crate) reaches_store: bool,
    /// Faults that begin after the first time.
    pub(crate) then: Vec<Self>,
}

/// A proxy between clients and a store.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Its URL, without a path.
    pub(crate) endpoint: String,
    shared: Arc<Shared>,
    _front: Front,
}

#[derive(Debug)]
struct Shared {
    behind: Behind,
    faults: Mutex<Vec<Fault>>,
    drops_names: bool,
}

// === impl Proxy ===

impl Proxy {
    /// Starts one in front of the store at `store`, `http://127.0.0.1:PORT`.
    pub(crate) async fn start(store: &str, faults: Vec<Fault>) -> Self {
        Self::begin(store, faults, false).await
    }

    /// As [`Proxy::start`]. It also drops request headers whose names contain `_` or `.`, as nginx does.
    pub(crate) async fn dropping_names(store: &str, faults: Vec<Fault>) -> Self {
        Self::begin(store, faults, true).await
    }

    async fn begin(store: &str, faults: Vec<Fault>, drops_names: bool) -> Self {
        let shared = Arc::new(Shared {
            behind: Behind::new(store),
            faults: Mutex::new(faults),
            drops_names,
        });
        let front = Front::start(Arc::clone(&shared), pass).await;
        Self {
            endpoint: front.endpoint.clone(),
            shared,
            _front: front,
        }
    }

    /// The number of faults that have not occurred yet.
    pub(crate) fn left(&self) -> Vec<Fault> {
        self.shared.faults.lock().unwrap().clone()
    }
}

async fn pass(shared: Arc<Shared>, mut head: Head, body: Bytes) -> Response<Bytes> {
    if shared.drops_names {
        head.headers = without_dropped_names(head.headers);
    }
    let query = head.uri.query().unwrap_or_default();
    let Some(fault) = shared.fault(head.method.as_str(), query) else {
        return shared.behind.pass(head, body).await;
    };
    if fault.reaches_store {
        shared.behind.pass(head, body).await;
    }
    let mut instead = Response::new(Bytes::from_static(fault.body.as_bytes()));
    *instead.status_mut() = StatusCode::from_u16(fault.status).unwrap();
    instead
}

fn without_dropped_names(headers: HeaderMap) -> HeaderMap {
    let is_dropped = |name: &HeaderName| name.as_str().contains(['_', '.']);
    // A name of `None` is the one before.
    let mut name = None;
    let named = headers.into_iter().filter_map(|(next, value)| {
        name = next.or_else(|| name.take());
        Some((name.clone()?, value))
    });
    named.filter(|(name, _)| !is_dropped(name)).collect()
}

// === impl Shared ===

impl Shared {
    fn fault(&self, method: &str, query: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let fits = |fault: &Fault| fault.method == method && query.contains(fault.query);
        let index = faults.iter().position(fits)?;
        faults[index].times -= 1;
        let fault = faults[index].clone();
        if fault.times == 0 {
            let met = faults.remove(index);
            faults.extend(met.then);
        }
        Some(fault)
    }
}
