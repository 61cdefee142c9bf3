//! A blob store that fails as its caller asks.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::inject::inject;
use crate::{
    blobs::{
        BlobStore, Capabilities, Commit, NewObject, NewPart, Put, Session, SessionPage,
        StoredObject, StoredPart,
        sign::{SignedRequest, Signer, ToSign},
    },
    error::Result,
    upload::{Part, StoreKind, StoreLimits, Timestamp, WriterTag},
};

/// Stands before a blob store.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn BlobStore>,
}

// === impl FaultyStore ===

impl FaultyStore {
    /// Before `inner`.
    pub fn new(inner: Arc<dyn BlobStore>) -> Self {
        Self { inner }
    }
}

decorated! {
    "store": BlobStore for FaultyStore as CALLS
    async fn begin(object: &NewObject) -> String;
    async fn put_part(session: &Session<'_>, part: NewPart) -> String;
    async fn list_parts(session: &Session<'_>) -> Option<Vec<StoredPart>>;
    async fn commit(session: &Session<'_>, object: &NewObject, parts: &[Part]) -> Commit;
    async fn abort(session: &Session<'_>) -> ();
    async fn list_sessions(prefix: &str, after: Option<&str>) -> Option<SessionPage>;
    async fn put_object(object: &NewObject, body: Bytes) -> Put;
    async fn composition(key: &str) -> Option<Vec<StoredPart>>;
    async fn head(key: &str) -> Option<StoredObject>;
    async fn read(key: &str, range: Option<Range<u64>>) -> BoxStream<'static, Result<Bytes>>;
    async fn delete(key: &str) -> ();
    async fn check() -> ();
    as it is {
        fn kind(&self) -> StoreKind {
            self.inner.kind()
        }

        fn bucket(&self) -> &str {
            self.inner.bucket()
        }

        fn limits(&self) -> StoreLimits {
            self.inner.limits()
        }

        fn capabilities(&self) -> Capabilities {
            self.inner.capabilities()
        }

        fn writer(&self, receipt: &str) -> Option<WriterTag> {
            self.inner.writer(receipt)
        }
    }
}

decorated! {
    "store": Signer for FaultyStore as SIGNER_CALLS
    async fn sign(request: &ToSign<'_>, now: Timestamp) -> SignedRequest;
}
