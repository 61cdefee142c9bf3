//! The port to the blob stores: where parts become objects. Each also signs requests for clients ([`sign::Signer`]).
//!
//! An adapter sends each request once, bounded in time, and does not retry: the gateway owns retries. Throttling and
//! unreachable stores are `Unavailable`; refused credentials, missing buckets and answers that make no sense are
//! `Internal` with the store's answer as source.

pub mod sign;

use std::{
    fmt::{self, Debug},
    ops::Range,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::Deserialize;

use self::sign::Signer;
pub use crate::upload::{Capabilities, StoredObject, StoredPart};
use crate::{
    error::{Error, Kind, Reason, Result},
    upload::{Md5, Part, StoreKind, StoreLimits, Timestamp, UploadId, WriterTag},
};

/// A store that takes objects whole or in parts.
#[async_trait]
pub trait BlobStore: Signer {
    /// The kind of store.
    fn kind(&self) -> StoreKind;

    /// The bucket or container.
    fn bucket(&self) -> &str;

    /// What the store takes.
    fn limits(&self) -> StoreLimits;

    /// In what the store differs from others.
    fn capabilities(&self) -> Capabilities;

    /// Begins a session for the parts of one object and returns the store's name for it. Stores without sessions
    /// (Azure) return a name of their own making and contact nobody. A session that is begun twice leaves an empty
    /// one behind, which the sweeper finds.
    async fn begin(&self, object: &NewObject) -> Result<String>;

    /// Puts one part and returns its receipt: what the commit will name it by. The store checks the MD5; where it
    /// answers with one, that is compared here. The same part put again replaces itself.
    ///
    /// # Errors
    /// `FailedPrecondition`, `SessionLost` when the store does not know the session; `DataLoss` when the store received
    /// other bytes than were sent.
    async fn put_part(&self, session: &Session<'_>, part: NewPart) -> Result<String>;

    /// All parts the store holds of a session, by number, or `None` when it does not know the session. A store that
    /// has no session and no parts yet answers an empty list. A store without sessions lists what lies under the key,
    /// also after [`BlobStore::abort`] and, with the parts it is made of, after [`BlobStore::commit`].
    async fn list_parts(&self, session: &Session<'_>) -> Result<Option<Vec<StoredPart>>>;

    /// The stream that put the part of a receipt, where receipts tell (Azure). A client's own part has none.
    fn writer(&self, receipt: &str) -> Option<WriterTag>;

    /// Makes the object of exactly `parts`, in this order. Repeating a commit that succeeded answers
    /// [`Commit::SessionGone`], or [`Commit::Done`] and the object is as it was.
    async fn commit(
        &self,
        session: &Session<'_>,
        object: &NewObject,
        parts: &[Part],
    ) -> Result<Commit>;

    /// Ends a session and drops its parts. One that is gone already is fine. A store without sessions forgets parts by
    /// itself (Azure after a week).
    async fn abort(&self, session: &Session<'_>) -> Result<()>;

    /// Lists the sessions of keys that begin with `prefix`, behind the key `after`: those that were begun and neither
    /// committed nor aborted. `None` where the store has no sessions (Azure). Of several sessions of one key at the end of a
    /// page some may be left out.
    async fn list_sessions(&self, prefix: &str, after: Option<&str>)
    -> Result<Option<SessionPage>>;

    /// Puts a whole object, only if there is none of its key. The store checks `object.md5` where it is known.
    ///
    /// # Errors
    /// `DataLoss` when the store received other bytes than were sent; `Unimplemented` when it cannot put only if there
    /// is none: a multipart upload of one part does instead.
    async fn put_object(&self, object: &NewObject, body: Bytes) -> Result<Put>;

    /// The parts that the object under a key is made of, in order, where the store tells (Azure). `None` where it does
    /// not, or there is no object. An object that was put whole is made of none.
    async fn composition(&self, key: &str) -> Result<Option<Vec<StoredPart>>>;

    /// What lies under a key.
    async fn head(&self, key: &str) -> Result<Option<StoredObject>>;

    /// Reads an object, or those bytes of it.
    ///
    /// # Errors
    /// `NotFound` when there is none; the stream's items fail like any request. An empty range reads nothing and asks
    /// nobody; one that begins behind the object's end is `Internal`.
    async fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>>;

    /// Deletes an object. One that is gone already is fine.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Whether the store answers and the bucket or container is there. The message says what is wrong, for operators.
    async fn check(&self) -> Result<()>;
}

/// An object to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewObject {
    /// Its key.
    pub key: String,
    /// Its media type.
    pub mime: String,
    /// Kept in the object's metadata as `upload_id`, so that whoever meets the object knows whose it is.
    pub upload_id: UploadId,
    /// The MD5 of the whole, where it is proven; stored with the object where the store has a field for it.
    pub md5: Option<Md5>,
}

/// A session of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session<'a> {
    /// The key of the object that is being made.
    pub key: &'a str,
    /// The store's name for the session.
    pub id: &'a str,
}

/// A part to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPart {
    /// Its number, from 1.
    pub number: u32,
    /// Who sends it; a store that lets the sender name parts (Azure) has it in the name.
    pub writer: WriterTag,
    /// Its MD5.
    pub md5: Md5,
    /// Its bytes.
    pub body: Bytes,
}

/// A session as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSession {
    /// The key of the object that was to be made.
    pub key: String,
    /// The store's name for it.
    pub id: String,
    /// When it was begun, by the store's clock.
    pub initiated_at: Timestamp,
}

/// One page of a listing of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPage {
    /// The sessions, but for those of which the store does not tell the age.
    pub sessions: Vec<OpenSession>,
    /// When the store answered, by its own clock.
    pub now: Timestamp,
    /// The key behind which the next page begins, unless this is the last.
    pub next: Option<String>,
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// The object is there.
    Done,
    /// The store does not know the session: it was committed before, or aborted. HEAD tells.
    SessionGone,
    /// The store holds another part, or none, under a number that was named.
    PartReplaced,
}

/// What became of a whole put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// The object is there, with this ETag (no quotes).
    Stored(String),
    /// There was an object of that key; it is as it was.
    Exists,
}

/// A key that opens the store. It is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretKey(String);

/// The longest wait for a connection to a store. A store in reach accepts within a second.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one request to a store may take: as long as a stream is held, so that a store that hangs is given up with one
/// that refuses. A part of 5 MiB has that long at 1.4 Mbit/s.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// The part arrived damaged at the store.
pub fn part_damaged(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(
        Kind::DataLoss,
        Reason::ChecksumMismatch,
        "the store received other bytes than were sent",
    )
    .caused_by(source)
}

/// There is no object of that key.
pub fn object_not_found(key: &str) -> Error {
    Error::new(
        Kind::NotFound,
        Reason::UploadNotFound,
        format!("no object {key} in the store"),
    )
}

// === impl SecretKey ===

impl SecretKey {
    /// The key itself, for the one who signs with it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretKey {
    fn from(key: String) -> Self {
        Self(key)
    }
}

impl From<&str> for SecretKey {
    fn from(key: &str) -> Self {
        Self(key.to_owned())
    }
}

impl Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}
