//! The ports to the blob stores: parts become objects, and requests are signed for clients ([`sign::Signer`]).
//!
//! An adapter sends each request once, bounded in time, and does not retry: the gateway owns retries. Throttling and
//! unreachable stores are `Unavailable`; refused credentials, missing buckets and answers that make no sense are
//! `Internal` with the store's answer as source.
//!
//! [`BlobStore`] is the whole port, which adapters implement; use cases take the narrow ports that they need.

pub mod sign;

use std::{fmt::Debug, ops::Range, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use self::sign::Signer;
pub use crate::upload::{Capabilities, StoredObject, StoredPart};
use crate::{
    error::{Error, Kind, Reason, Result},
    upload::{Md5, Part, StoreKind, StoreLimits, Timestamp, UploadId, WriterTag},
};

/// The whole port to one bucket or container.
#[async_trait]
pub trait BlobStore: ObjectStore + MultipartStore + Signer {
    /// The kind of store.
    fn kind(&self) -> StoreKind;

    /// The bucket or container.
    fn bucket(&self) -> &str;

    /// The sizes and counts that the store accepts.
    fn limits(&self) -> StoreLimits;

    /// In what the store differs from others.
    fn capabilities(&self) -> Capabilities;

    /// Whether the store answers and the bucket or container exists. The message says what is wrong, for operators.
    async fn check(&self) -> Result<()>;
}

/// Whole objects.
#[async_trait]
pub trait ObjectStore: Send + Sync + Debug {
    /// Puts a whole object, only if no object of its key exists. The store checks `object.md5` if it is known.
    ///
    /// # Errors
    /// `DataLoss` if the store received other bytes than were sent; `Unimplemented` if it has no conditional put: then the
    /// caller makes a multipart upload of one part.
    async fn put_object(&self, object: &NewObject, body: Bytes) -> Result<Put>;

    /// The parts that the object under a key is made of, in order, if the store keeps them (Azure). `None` if it does not,
    /// or if there is no object. An object that was put whole has none.
    async fn composition(&self, key: &str) -> Result<Option<Vec<StoredPart>>>;

    /// The object under a key, if there is one.
    async fn head(&self, key: &str) -> Result<Option<StoredObject>>;

    /// Reads an object, or a range of its bytes.
    ///
    /// # Errors
    /// `NotFound` if there is no object; the stream's items fail like any request. An empty range sends no request; one
    /// that begins after the object's end is `Internal`.
    async fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>>;

    /// Deletes an object. Succeeds if there is none.
    async fn delete(&self, key: &str) -> Result<()>;
}

/// Objects made of parts, in a session: S3 calls it multipart upload, Azure keeps uncommitted blocks.
#[async_trait]
pub trait MultipartStore: Send + Sync + Debug {
    /// Creates a session for the parts of one object and returns the store's name for it. Stores with implicit sessions
    /// (Azure) return a name of their own and send no request. A session that is created twice leaves an empty one, which
    /// the sweeper finds.
    async fn begin(&self, object: &NewObject) -> Result<String>;

    /// Puts one part and returns its receipt: what the commit names it by. The store checks the MD5; if it answers with
    /// one, the two are compared here. The same part put again replaces itself.
    ///
    /// # Errors
    /// `FailedPrecondition`, `SessionLost` if the store does not know the session; `DataLoss` if the store received other
    /// bytes than were sent.
    async fn put_part(&self, session: &Session<'_>, part: NewPart) -> Result<String>;

    /// All parts that the store has of a session, by number, or `None` if it does not know the session. A store with
    /// implicit sessions and no parts yet answers an empty list; it lists what is stored under the key, also after
    /// [`MultipartStore::abort`] and, with the parts that the object is made of, after [`MultipartStore::commit`].
    async fn list_parts(&self, session: &Session<'_>) -> Result<Option<Vec<StoredPart>>>;

    /// The stream that put the part of a receipt, if receipts say so (Azure). A client's own part has none.
    fn writer(&self, receipt: &str) -> Option<WriterTag>;

    /// Makes the object of exactly `parts`, in this order. Repeating a commit that succeeded answers
    /// [`Commit::SessionGone`], or [`Commit::Done`] with the object unchanged.
    async fn commit(
        &self,
        session: &Session<'_>,
        object: &NewObject,
        parts: &[Part],
    ) -> Result<Commit>;

    /// Ends a session and drops its parts. Succeeds if there is no such session. A store with implicit sessions drops
    /// parts by itself (Azure after a week).
    async fn abort(&self, session: &Session<'_>) -> Result<()>;

    /// Lists the open sessions of keys that begin with `prefix`, after the key `after`. `None` if sessions are implicit
    /// (Azure). Of several sessions of one key at the end of a page some may be left out.
    async fn list_sessions(&self, prefix: &str, after: Option<&str>)
    -> Result<Option<SessionPage>>;
}

/// An object to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewObject {
    /// Its key.
    pub key: String,
    /// Its media type.
    pub mime: String,
    /// Kept in the object's metadata as `upload_id`: it identifies the upload that made the object.
    pub upload_id: UploadId,
    /// The MD5 of the whole object, if it is proven; stored with the object if the store has a field for it.
    pub md5: Option<Md5>,
}

/// A session of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session<'a> {
    /// The key of the object to make.
    pub key: &'a str,
    /// The store's name for the session.
    pub id: &'a str,
}

/// A part to put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPart {
    /// Its number, from 1.
    pub number: u32,
    /// The stream that sends it; a store that lets the sender name parts (Azure) has it in the name.
    pub writer: WriterTag,
    /// Its MD5.
    pub md5: Md5,
    /// Its bytes.
    pub body: Bytes,
}

/// A session as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSession {
    /// The key of the object to make.
    pub key: String,
    /// The store's name for it.
    pub id: String,
    /// When it was created, by the store's clock.
    pub initiated_at: Timestamp,
}

/// One page of a listing of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPage {
    /// The sessions whose age the store reports.
    pub sessions: Vec<OpenSession>,
    /// When the store answered, by its own clock.
    pub now: Timestamp,
    /// The key after which the next page begins, unless this is the last.
    pub next: Option<String>,
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// The object exists.
    Done,
    /// The store does not know the session: it was committed before, or aborted. HEAD decides.
    SessionGone,
    /// The store holds another part, or none, under a number that was named.
    PartReplaced,
}

/// What became of a whole put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// The object exists, with this ETag (no quotes).
    Stored(String),
    /// An object of that key existed; it is unchanged.
    Exists,
}

/// The longest wait for a connection to a store. A store in reach accepts within a second.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one request to a store may take: as long as a stream waits for an unavailable store. A part of 5 MiB takes
/// that long at 1.4 Mbit/s.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// The error for a part that arrived damaged at the store.
pub fn part_damaged(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(
        Kind::DataLoss,
        Reason::ChecksumMismatch,
        "the store received other bytes than were sent",
    )
    .caused_by(source)
}

/// The error for a key without an object.
pub fn object_not_found(key: &str) -> Error {
    Error::new(
        Kind::NotFound,
        Reason::UploadNotFound,
        format!("no object {key} in the store"),
    )
}
