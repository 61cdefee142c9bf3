//! A store during one of whose calls something else happens.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use upload_gateway_core::{
    blobs::{
        BlobStore, Commit, NewObject, NewPart, Put, Session, SessionPage, StoredObject, StoredPart,
        sign::{SignedRequest, Signer, ToSign},
    },
    error::Result,
    upload::{Part, StoreKind, StoreLimits, Timestamp, WriterTag},
};

/// What happens meanwhile.
type Interruption = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// A store that has done what it was asked, and answers only when something else has happened.
pub(crate) struct Interrupted {
    inner: Arc<dyn BlobStore>,
    call: &'static str,
    /// How many more times it happens.
    left: Mutex<usize>,
    interruption: Interruption,
}

// === impl Interrupted ===

impl Interrupted {
    /// Before the first `times` answers to `call`, `interruption` happens.
    pub(crate) fn new(
        inner: Arc<dyn BlobStore>,
        call: &'static str,
        times: usize,
        interruption: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner,
            call,
            left: Mutex::new(times),
            interruption: Box::new(interruption),
        }
    }

    async fn answered<T>(&self, call: &str, answer: impl Future<Output = T>) -> T {
        let answer = answer.await;
        if call == self.call && self.is_turn() {
            (self.interruption)().await;
        }
        answer
    }

    fn is_turn(&self) -> bool {
        let mut left = self.left.lock().unwrap();
        let is_turn = *left > 0;
        *left = left.saturating_sub(1);
        is_turn
    }
}

impl fmt::Debug for Interrupted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Interrupted")
    }
}

#[async_trait]
impl Signer for Interrupted {
    async fn sign(&self, request: &ToSign<'_>, now: Timestamp) -> Result<SignedRequest> {
        self.answered("sign", self.inner.sign(request, now)).await
    }
}

/// Writes the methods, one line each.
macro_rules! interrupted {
    ($(async fn $call:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl BlobStore for Interrupted {
            $(async fn $call(&self, $($argument: $type),*) -> Result<$answer> {
                self.answered(stringify!($call), self.inner.$call($($argument),*)).await
            })*

            fn kind(&self) -> StoreKind {
                self.inner.kind()
            }

            fn bucket(&self) -> &str {
                self.inner.bucket()
            }

            fn limits(&self) -> StoreLimits {
                self.inner.limits()
            }

            fn writer(&self, receipt: &str) -> Option<WriterTag> {
                self.inner.writer(receipt)
            }
        }
    };
}

interrupted! {
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
}
