//! A server in front of a store that refuses what a policy of the bucket or the account would refuse: a new object without
//! certain headers. It remembers them, and says them when the object is described, as the store would.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, request::Parts as Head};
use bytes::Bytes;

use super::front::{Behind, Front, error};

/// The headers that a request must have, each with the only value that is allowed.
pub type Headers = &'static [(&'static str, &'static str)];

/// What the policy demands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demands {
    /// Of requests that name a new object: on S3 PutObject and CreateMultipartUpload, on Azure Put Blob and Put Block List.
    pub object: Headers,
    /// Of Put Block on Azure.
    pub block: Headers,
    /// What it adds to the description of every object.
    pub described: Headers,
    /// Whether it hides the demanded headers from the description of an object, as a store that ignores them does.
    pub forgets: bool,
    /// Whether objects cannot be read: S3 answers InvalidObjectState.
    pub archives: bool,
}

/// The server; it stops when dropped.
#[derive(Debug)]
pub struct BucketPolicy {
    /// Its URL, without a path.
    pub endpoint: String,
    shared: Arc<Shared>,
    _front: Front,
}

#[derive(Debug)]
struct Shared {
    behind: Behind,
    demands: Demands,
    /// The demanded headers of new objects, by path.
    placed: Mutex<HashMap<String, Headers>>,
    refused: Mutex<usize>,
}

// === impl BucketPolicy ===

impl BucketPolicy {
    /// Starts one in front of the store at `store`, `http://127.0.0.1:PORT`.
    pub async fn start(store: &str, demands: Demands) -> Self {
        let shared = Arc::new(Shared {
            behind: Behind::new(store),
            demands,
            placed: Mutex::default(),
            refused: Mutex::default(),
        });
        let front = Front::start(Arc::clone(&shared), answer).await;
        Self {
            endpoint: front.endpoint.clone(),
            shared,
            _front: front,
        }
    }

    /// How many requests it refused.
    pub fn refused(&self) -> usize {
        *self.shared.refused.lock().unwrap()
    }
}

// === impl Shared ===

impl Shared {
    /// The headers that this request must have.
    fn demanded(&self, head: &Head) -> Headers {
        let query = head.uri.query().unwrap_or_default();
        let has = |text: &str| query.split('&').any(|pair| pair == text);
        let is_part = query.contains("uploadId=") || has("comp=block");
        let is_change = query.contains("comp=") && !has("comp=blocklist");
        match head.method {
            Method::PUT if has("comp=block") => self.demands.block,
            Method::PUT if !is_part && !is_change => self.demands.object,
            Method::POST if query.split('&').any(|pair| pair.starts_with("uploads")) => {
                self.demands.object
            }
            _ => &[],
        }
    }

    /// Remembers the demanded headers of a new object, and adds them to the description of an object.
    fn describe(&self, head: &Head, demanded: Headers, headers: &mut HeaderMap) {
        let mut placed = self.placed.lock().unwrap();
        let path = head.uri.path();
        if !demanded.is_empty() && !self.demands.forgets {
            placed.insert(path.to_owned(), demanded);
        }
        if head.method == Method::HEAD {
            let placed = placed.get(path).into_iter();
            for (name, value) in placed.copied().chain([self.demands.described]).flatten() {
                headers.insert(*name, HeaderValue::from_static(value));
            }
        }
    }

    /// Whether the request reads an object.
    fn reads_object(&self, head: &Head) -> bool {
        let query = head.uri.query().unwrap_or_default();
        head.method == Method::GET && !query.contains("list-type") && !query.contains("upload")
    }

    fn refusal(&self) -> Response<Bytes> {
        *self.refused.lock().unwrap() += 1;
        error(StatusCode::FORBIDDEN, "AccessDenied")
    }
}

async fn answer(shared: Arc<Shared>, head: Head, body: Bytes) -> Response<Bytes> {
    let demanded = shared.demanded(&head);
    let is_met = |(name, value): &(&str, &str)| {
        head.headers
            .get(*name)
            .and_then(|value| value.to_str().ok())
            == Some(value)
    };
    if !demanded.iter().all(is_met) {
        return shared.refusal();
    }
    if shared.demands.archives && shared.reads_object(&head) {
        return error(StatusCode::FORBIDDEN, "InvalidObjectState");
    }
    let mut response = shared.behind.pass(head.clone(), body).await;
    if response.status().is_success() {
        shared.describe(&head, demanded, response.headers_mut());
    }
    response
}
