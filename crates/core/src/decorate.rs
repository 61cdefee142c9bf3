//! Decorators of the ports: they run code around each call to a store.
//!
//! The methods of each port are listed once, in this file. A decorator implements [`Around`]:
//! [`Faults`](crate::faults::Faults) injects faults, [`Retry`](crate::retry::Retry) retries.

use std::{fmt::Debug, future::Future, ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::{
    blobs::{
        Begun, BlobStore, Capabilities, Commit, Copied, CopySource, CopyStore, MultipartStore,
        NewObject, NewPart, ObjectPage, ObjectStore, PartCopy, Put, Session, SessionPage,
        StoredObject, StoredPart,
        sign::{SignedRequest, Signer, ToSign},
    },
    clock::Clock,
    error::Result,
    state::{
        ChangeWatch, Creation, Cursor, Due, DuePage, Entry, ListPage, ListQuery, Listing,
        ListingStore, Memory, MemoryStore, Note, NoteStore, PartRecord, PartStore, Predecessor,
        RecordStore, Sample, ScheduleStore, Selection, StateStore, TakeoverWatch, Times, Update,
    },
    upload::{
        Claim, Owner, Part, Secret, StoreKind, StoreLimits, Timestamp, Upload, UploadId, WriterTag,
    },
};

/// The code that a decorator runs around each call.
pub trait Around: Debug + Send + Sync {
    /// Runs `call` once, several times or not at all. `name` is `state.get`, `store.put_part`, and so on.
    fn around<T, F>(
        &self,
        name: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> impl Future<Output = Result<T>> + Send
    where
        T: Send,
        F: Future<Output = Result<T>> + Send;
}

/// The port `P`, with `A` around each call.
#[derive(Debug)]
pub struct Decorated<P: ?Sized, A> {
    inner: Arc<P>,
    around: A,
}

// === impl Decorated ===

impl<P: ?Sized, A> Decorated<P, A> {
    /// Decorates `inner`: `around` runs around each call.
    pub fn new(inner: Arc<P>, around: A) -> Self {
        Self { inner, around }
    }
}

/// Implements a port for [`Decorated`], with one line per method, and lists the names of its calls. A method `as` another one is
/// rare, and shown under that one's name: each name costs the metrics a dozen series per storage.
macro_rules! decorated {
    (
        $prefix:literal, $calls:tt: $port:ident for $inner:ty;
        $(async fn $call:ident($($argument:ident: $type:ty),*) -> $answer:ty $(as $shown:ident)?;)*
        $(undecorated { $($plain:tt)* })?
    ) => {
        const $calls: &[&str] = &[$(decorated!(name $prefix, $call $(, $shown)?)),*];

        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<A: Around> $port for Decorated<$inner, A> {
            $(
                async fn $call(&self, $($argument: $type),*) -> Result<$answer> {
                    let call = || self.inner.$call($(Clone::clone(&$argument)),*);
                    self.around.around(decorated!(name $prefix, $call $(, $shown)?), call).await
                }
            )*
            $($($plain)*)?
        }
    };
    (name $prefix:literal, $call:ident) => { concat!($prefix, ".", stringify!($call)) };
    (name $prefix:literal, $call:ident, $shown:ident) => { concat!($prefix, ".", stringify!($shown)) };
}

decorated! {
    "state", RECORD_CALLS: RecordStore for dyn StateStore;
    async fn create(upload: &Upload, max_live: u64) -> Creation;
    async fn find_identical(upload: &Upload) -> Option<Upload>;
    async fn get(id: &UploadId) -> Option<Upload>;
    async fn summary(id: &UploadId) -> Option<Upload>;
    async fn observe(id: &UploadId) -> Option<Upload>;
    async fn take_over(id: &UploadId, writer: WriterTag, from: Predecessor, times: Times) -> Option<Upload>;
    async fn update(upload: &Upload, writer: Option<WriterTag>) -> Update;
    async fn update_untouched(upload: &Upload, seen: Timestamp) -> Update;
    async fn give(upload: &Upload, owner: &Owner) -> Update;
    undecorated {
        fn watch_takeovers(&self, id: &UploadId) -> TakeoverWatch {
            self.inner.watch_takeovers(id)
        }

        fn watch_changes(&self, id: &UploadId) -> ChangeWatch {
            self.inner.watch_changes(id)
        }
    }
}

decorated! {
    "state", PART_CALLS: PartStore for dyn StateStore;
    async fn record_parts(id: &UploadId, writer: WriterTag, version: u64, parts: &[Part], times: Times) -> PartRecord;
    async fn committed_parts(id: &UploadId, after: u32, limit: u32) -> Option<Vec<Part>>;
    async fn claim(id: &UploadId, owner: &Owner, claims: &[Claim], times: Times) -> Option<Upload>;
}

decorated! {
    "state", LISTING_CALLS: ListingStore for dyn StateStore;
    async fn list(query: &ListQuery) -> ListPage;
    async fn count(listing: &Listing) -> u64;
    async fn entries(selection: &Selection, after: Option<&Cursor>, limit: usize) -> Vec<Entry>;
    async fn count_entries(selection: &Selection) -> u64;
    async fn summaries(ids: &[UploadId]) -> Vec<Upload>;
    async fn count_live() -> u64;
}

decorated! {
    "state", SCHEDULE_CALLS: ScheduleStore for dyn StateStore;
    async fn due(before: Timestamp, after: Option<&Due>, limit: usize) -> DuePage;
    async fn lease(name: &str, holder: &str, lasts: Duration) -> bool;
    async fn release(name: &str, holder: &str) -> ();
}

decorated! {
    "state", NOTE_CALLS: NoteStore for dyn StateStore;
    async fn note(note: &Note) -> Option<String>;
    async fn replace_note(note: &Note, seen: Option<&str>, text: &str) -> bool;
}

decorated! {
    "state", MEMORY_CALLS: MemoryStore for dyn StateStore;
    async fn remove(upload: &Upload) -> bool;
    undecorated {
        // Asked for every few seconds. The next time is soon enough.
        async fn memory(&self) -> Result<Option<Memory>> {
            self.inner.memory().await
        }

        async fn sample(&self, node: &str, position: u64) -> Result<Sample> {
            self.inner.sample(node, position).await
        }
    }
}

decorated! {
    "state", STATE_CALLS: StateStore for dyn StateStore;
    async fn secret(offered: &Secret) -> Secret;
    async fn check() -> ();
    undecorated {
        fn is_usable(&self) -> bool {
            self.inner.is_usable()
        }
    }
}

decorated! {
    "store", OBJECT_CALLS: ObjectStore for dyn BlobStore;
    async fn put_object(object: &NewObject, body: Bytes) -> Put;
    async fn composition(key: &str) -> Option<Vec<StoredPart>>;
    async fn head(key: &str) -> Option<StoredObject>;
    async fn read(key: &str, range: Option<Range<u64>>, etag: Option<&str>) -> BoxStream<'static, Result<Bytes>>;
    async fn put_placement(object: &NewObject, found: &StoredObject) -> StoredObject;
    async fn delete(key: &str) -> ();
    async fn replace(object: &NewObject, body: Bytes) -> ();
    async fn list(prefix: &str, after: Option<&str>) -> ObjectPage;
}

decorated! {
    "store", MULTIPART_CALLS: MultipartStore for dyn BlobStore;
    async fn begin(object: &NewObject) -> Begun;
    async fn takes_plain_parts(object: &NewObject) -> bool as begin;
    async fn put_part(session: &Session<'_>, part: NewPart) -> String;
    async fn list_parts(session: &Session<'_>) -> Option<Vec<StoredPart>>;
    async fn commit(session: &Session<'_>, object: &NewObject, parts: &[Part]) -> Commit;
    async fn abort(session: &Session<'_>) -> ();
    async fn list_sessions(prefix: &str, after: Option<&str>) -> Option<SessionPage>;
    undecorated {
        fn writer(&self, receipt: &str) -> Option<WriterTag> {
            self.inner.writer(receipt)
        }
    }
}

decorated! {
    "store", _: CopyStore for dyn BlobStore;
    async fn copy_source(key: &str, etag: &str, clock: &dyn Clock) -> CopySource as sign;
    async fn copy_object(object: &NewObject, source: &CopySource) -> () as put_object;
    async fn copy_part(session: &Session<'_>, part: &PartCopy, source: &CopySource) -> Copied as put_part;
    undecorated {
        fn copy_service(&self) -> Option<&str> {
            self.inner.copy_service()
        }
    }
}

decorated! {
    "store", SIGNER_CALLS: Signer for dyn BlobStore;
    async fn sign(request: &ToSign<'_>, clock: &dyn Clock) -> SignedRequest;
}

decorated! {
    "store", STORE_CALLS: BlobStore for dyn BlobStore;
    async fn check() -> ();
    undecorated {
        fn kind(&self) -> StoreKind {
            self.inner.kind()
        }

        fn bucket(&self) -> &str {
            self.inner.bucket()
        }

        fn limits(&self) -> StoreLimits {
            self.inner.limits()
        }

        fn renew_credentials(&self) {
            self.inner.renew_credentials();
        }

        fn credentials_expire_at(&self) -> Option<Timestamp> {
            self.inner.credentials_expire_at()
        }

        fn capabilities(&self) -> Capabilities {
            self.inner.capabilities()
        }
    }
}

/// The names of all calls: `state.get`, `store.commit`, and so on.
pub fn calls() -> impl Iterator<Item = &'static str> {
    let all = [
        RECORD_CALLS,
        PART_CALLS,
        LISTING_CALLS,
        SCHEDULE_CALLS,
        NOTE_CALLS,
        MEMORY_CALLS,
        STATE_CALLS,
        OBJECT_CALLS,
        MULTIPART_CALLS,
        SIGNER_CALLS,
        STORE_CALLS,
    ];
    all.into_iter().flatten().copied()
}
