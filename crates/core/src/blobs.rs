//! The ports to the blob stores. The stores keep objects that are made of parts, and sign requests for clients
//! ([`sign::Signer`]).
//!
//! An adapter sends each request once, with a time-out, and does not retry: the gateway retries. Only the store's own
//! error code is a negative answer. Every other failure is `Unavailable`, with the store's response as source. One that
//! only an operator can fix, such as rejected credentials or a missing bucket, is [for an
//! operator](Error::for_operator).
//!
//! Adapters implement [`BlobStore`], the whole port. Each use case takes only the narrow port that it needs.

mod copy;
pub mod sign;

use std::{borrow::Cow, fmt::Debug, ops::Range, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use self::copy::{COPY_LIFETIME, Copied, CopySource, CopyStore, PartCopy, cannot_copy};
use self::sign::Signer;
pub use crate::upload::{Capabilities, StoredObject, StoredPart};
use crate::{
    error::{Error, Kind, Reason, Result},
    upload::{
        Checksum, Crc64Nvme, Digests, Integrity, Md5, Part, Placement, StoreKind, StoreLimits,
        Timestamp, UploadId, WriterTag, metadata_keys,
    },
};

/// The whole port to one bucket or container.
#[async_trait]
pub trait BlobStore: ObjectStore + MultipartStore + CopyStore + Signer {
    /// Which kind of store this is.
    fn kind(&self) -> StoreKind;

    /// The name of the bucket or container.
    fn bucket(&self) -> &str;

    /// The part counts and the sizes, in bytes, that the store accepts.
    fn limits(&self) -> StoreLimits;

    /// The properties in which this store differs from others.
    fn capabilities(&self) -> Capabilities;

    /// Forgets the credentials that the adapter has cached, so that the next request fetches them again.
    fn renew_credentials(&self);

    /// When the credentials expire with which the adapter signs requests now. `None`: they do not expire, or were not needed
    /// yet.
    fn credentials_expire_at(&self) -> Option<Timestamp>;

    /// Checks that the store answers and that the bucket or container exists. The error message says what is wrong, for
    /// operators.
    async fn check(&self) -> Result<()>;
}

/// Whole objects.
#[async_trait]
pub trait ObjectStore: Send + Sync + Debug {
    /// Puts a whole object, only if no object with its key exists. The store checks its digest of [`NewObject::integrity`], if that is
    /// known.
    ///
    /// # Errors
    /// `DataLoss` if the store received other bytes than were sent. `Unimplemented` if the store has no conditional
    /// put; the caller then makes a multipart upload with one part.
    async fn put_object(&self, object: &NewObject, body: Bytes) -> Result<Put>;

    /// The parts that the object under a key is made of, in order, if the store keeps that list (Azure). `None` if it
    /// does not, or if there is no object. Empty for an object that was put whole.
    async fn composition(&self, key: &str) -> Result<Option<Vec<StoredPart>>>;

    /// The object under a key. `None` only if two different requests agree that it does not exist.
    async fn head(&self, key: &str) -> Result<Option<StoredObject>>;

    /// Reads an object, or the given range of its bytes. With an ETag, without quotes: only the object that has it.
    ///
    /// # Errors
    /// `NotFound` if there is no object; `FailedPrecondition` with `ObjectArchived` if it is archived; `DataLoss` with `ObjectChanged` if it has another ETag, or with an ETag if there is no
    /// object. Items of the stream fail as requests do. An empty range sends no request. A
    /// range that starts after the end of the object is `Internal`.
    async fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        etag: Option<&str>,
    ) -> Result<BoxStream<'static, Result<Bytes>>>;

    /// Sets what a client can have left out of the object that was described as `found`, so that its media type, metadata,
    /// headers, tags and storage class are those of `object`. Returns its description after that. Only for stores whose signed
    /// requests do not [bind](Capabilities::binds_placement) them; others return `found`.
    ///
    /// # Errors
    /// `Unavailable` also if the object has another ETag by now.
    async fn put_placement(&self, object: &NewObject, found: &StoredObject)
    -> Result<StoredObject>;

    /// Deletes an object. Succeeds if there is none.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Puts a whole object of a few kilobytes, in place of one with its key. The store checks its digest of
    /// [`NewObject::integrity`], which must be known.
    ///
    /// # Errors
    /// `DataLoss` if the store received other bytes than were sent.
    async fn replace(&self, object: &NewObject, body: Bytes) -> Result<()>;

    /// Lists the keys that start with `prefix`, after the page whose [`next`](ObjectPage::next) is `after`.
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ObjectPage>;
}

/// Objects that are made of parts in a session: S3 calls the session a multipart upload, Azure keeps uncommitted
/// blocks.
#[async_trait]
pub trait MultipartStore: Send + Sync + Debug {
    /// Creates a session for the parts of one object. Stores with implicit sessions (Azure) send no request and return an
    /// id of their own. If a session is created twice, one stays empty until the sweeper aborts it.
    async fn begin(&self, object: &NewObject) -> Result<Begun>;

    /// Puts one part and returns its receipt, by which the commit names the part. The store checks the checksum, which must be the one of
    /// the session. If its response contains the digest of what it received, the adapter compares the two. A part that is put
    /// again replaces the earlier one.
    ///
    /// # Errors
    /// `FailedPrecondition` with `SessionLost` if the store does not know the session. `DataLoss` if the store received
    /// other bytes than were sent.
    async fn put_part(&self, session: &Session<'_>, part: NewPart) -> Result<String>;

    /// Whether a session with CRC-64s takes parts of which only the MD5 is known, as clients put them. Asks the store: it gets a
    /// session for `object` with a part of a few bytes, which is ended again.
    async fn takes_plain_parts(&self, object: &NewObject) -> Result<bool>;

    /// All parts that the store has in a session, by number, or `None` if it does not know the session. A store with
    /// implicit sessions returns an empty list if it has no parts. It lists what is stored under the key, also after
    /// [`MultipartStore::abort`], and after [`MultipartStore::commit`] also the parts of the object.
    async fn list_parts(&self, session: &Session<'_>) -> Result<Option<Vec<StoredPart>>>;

    /// The tag of the stream that put the part with this receipt, if receipts contain it (Azure). `None` for a part
    /// that a client put itself.
    fn writer(&self, receipt: &str) -> Option<WriterTag>;

    /// Makes the object of exactly `parts`, in this order. If a commit that succeeded is repeated, the result is
    /// [`Commit::SessionGone`], or [`Commit::Done`] with the object unchanged.
    async fn commit(
        &self,
        session: &Session<'_>,
        object: &NewObject,
        parts: &[Part],
    ) -> Result<Commit>;

    /// Ends a session and discards its parts. Succeeds if there is no such session. A store with implicit sessions
    /// discards parts itself (Azure after a week).
    async fn abort(&self, session: &Session<'_>) -> Result<()>;

    /// Lists the open sessions whose keys start with `prefix`, after the key `after`. `None` if sessions are implicit
    /// (Azure). If several sessions have the last key of a page, some of them may be missing from the list.
    async fn list_sessions(&self, prefix: &str, after: Option<&str>)
    -> Result<Option<SessionPage>>;
}

/// An object to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewObject {
    /// The key.
    pub key: String,
    /// The media type.
    pub mime: String,
    /// The upload that makes the object.
    pub upload_id: UploadId,
    /// The size in bytes, if it is known.
    pub size: Option<u64>,
    /// The MD5 of the whole object, if it is proven or promised. Stored with the object if the store has a field for it.
    pub md5: Option<Md5>,
    /// The CRC-64/NVME of the whole object, if it is proven. Written into the metadata.
    pub crc64nvme: Option<Crc64Nvme>,
    /// Which digest the store compares with the bytes of the object, or of the parts of its session.
    pub integrity: Integrity,
    /// The sealed entry from which the record of the upload can be rebuilt.
    pub record: Option<String>,
    /// How it is stored.
    pub placement: Box<Placement>,
}

/// A session that the store has created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The store's id of the session.
    pub id: String,
    /// Which digest its parts have: the MD5 also if the store did not confirm that it checks the other one.
    pub integrity: Integrity,
}

/// A session in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session<'a> {
    /// The key of the object to make.
    pub key: &'a str,
    /// The store's id of the session.
    pub id: &'a str,
    /// The encryption scope of the object, which each part needs (Azure).
    pub scope: Option<&'a str>,
}

/// A part to put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPart {
    /// The number, from 1.
    pub number: u32,
    /// The tag of the stream that sends the part. Stores in which the sender names parts (Azure) have it in the name.
    pub writer: WriterTag,
    /// The checksum of `body`.
    pub checksum: Checksum,
    /// The bytes.
    pub body: Bytes,
}

/// A session as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSession {
    /// The key of the object to make.
    pub key: String,
    /// The store's id of the session.
    pub id: String,
    /// When it was created, by the store's clock.
    pub initiated_at: Timestamp,
}

/// One page of a listing of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPage {
    /// The sessions. A session whose age the store does not report is left out.
    pub sessions: Vec<OpenSession>,
    /// The time of the response, by the store's clock.
    pub now: Timestamp,
    /// The key after which the next page starts; `None` on the last page.
    pub next: Option<String>,
}

/// One page of a listing of objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectPage {
    /// The keys, at most 5,000.
    pub keys: Vec<String>,
    /// Where the next page starts, in the store's own form; `None` on the last page.
    pub next: Option<String>,
}

/// The result of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// The object exists.
    Done,
    /// The store does not know the session: it was committed or aborted before. HEAD shows which.
    SessionGone,
    /// The store has no part with a given number, or another one than the given one.
    PartReplaced,
    /// The store does not accept these parts, for example because one is too small.
    Refused,
}

/// The result of a put of a whole object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// The object is stored.
    Stored(StoredPut),
    /// An object with that key existed already; it is unchanged.
    Exists,
}

/// What a store answers to a put of a whole object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPut {
    /// The ETag of the object, without quotes.
    pub etag: String,
    /// The digests of the stored bytes that the answer names.
    pub digests: Digests,
}

/// How long to wait for a connection to a store. A store that is reachable accepts within a second.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time-out of one request to a store: as long as a stream waits for an unavailable store by default. A request or a
/// response with the bytes of a file times out when no byte has moved for this time.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// The time-out of the request that makes an object of its parts. AWS documents that it can take several minutes.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html>
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The time-out of a request with the bytes of a part or an object, even if its bytes move: a part of 5 MiB at 12 kbit/s.
pub const PUT_TIMEOUT: Duration = Duration::from_secs(60 * 60);

// === impl NewObject ===

impl NewObject {
    /// The digests of the whole object, as far as they are known.
    pub fn digests(&self) -> Digests {
        Digests {
            md5: self.md5,
            crc64nvme: self.crc64nvme,
        }
    }

    /// Whether nothing proves what was stored: a store that does not know CRC-64s ignores them, and its answer names no digest of what it
    /// has received.
    pub fn is_unproven_by(&self, named: &Digests) -> bool {
        let is_compared = self.integrity == Integrity::Crc64Nvme && self.crc64nvme.is_some();
        is_compared && !self.digests().is_proven_by(named)
    }

    /// What the store compares with the bytes of the whole object, if it is known.
    pub fn checksum(&self) -> Option<Checksum> {
        match self.integrity {
            Integrity::Md5 => self.md5.map(Checksum::Md5),
            Integrity::Crc64Nvme => self.crc64nvme.map(Checksum::Crc64Nvme),
        }
    }

    /// The metadata to store with the object: what it is recognised by, and the caller's.
    pub fn metadata(&self) -> impl Iterator<Item = (Cow<'static, str>, String)> {
        let size = self
            .size
            .map(|size| (metadata_keys::SIZE, size.to_string()));
        let md5 = self.md5.map(|md5| (metadata_keys::MD5, md5.to_hex()));
        let crc64 = self
            .crc64nvme
            .map(|crc64| (metadata_keys::CRC64NVME, crc64.to_string()));
        let id = (metadata_keys::UPLOAD_ID, self.upload_id.to_string());
        let record = self.record.clone();
        let record = record.map(|record| (metadata_keys::RECORD, record));
        let own = [Some(id), size, md5, crc64, record].into_iter().flatten();
        let own = own.map(|(key, value)| (Cow::from(key), value));
        let callers = self.placement.metadata.iter();
        own.chain(callers.map(|(key, value)| (key.clone().into(), value.clone())))
    }

    /// The object as it was stored, of `size` bytes.
    pub fn stored(&self, etag: String, size: u64) -> StoredObject {
        let metadata = self.metadata();
        StoredObject {
            etag,
            size,
            metadata: metadata
                .map(|(key, value)| (key.into_owned(), value))
                .collect(),
            ..StoredObject::default()
        }
    }
}

/// The error for a part of which the store received other bytes than were sent.
pub fn part_damaged(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(
        Kind::DataLoss,
        Reason::ChecksumMismatch,
        "the store received other bytes than were sent",
    )
    .caused_by(source)
}

/// The error for an answer that does not name the CRC-64 of what was put, so that nothing proves it.
pub fn unproven(action: &str) -> Error {
    Error::store_unavailable(format!(
        "{action}: the response has no CRC64NVME of what was sent; if it stays so, set integrity = \"md5\" for the storage"
    ))
}

/// The error for two answers of a store of which one cannot be true.
pub fn contradiction() -> Error {
    Error::store_unavailable("two answers of the store contradict each other")
}

/// The error for an object with another ETag than the expected one.
pub fn object_changed() -> Error {
    let message = "the object in the store is not the one that was uploaded";
    Error::new(Kind::DataLoss, Reason::ObjectChanged, message)
}

/// The error for an object that must be restored before it can be read.
pub fn object_archived() -> Error {
    let message = "the object is archived; restore it in the store, then download it";
    Error::precondition(Reason::ObjectArchived, message)
}

/// The error for a key under which there is no object.
pub fn object_not_found(key: &str) -> Error {
    Error::new(
        Kind::NotFound,
        Reason::UploadNotFound,
        format!("no object {key} in the store"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_with_a_crc64_is_proven_only_by_an_equal_digest_in_the_answer() {
        let object = |integrity, bytes: &[u8]| NewObject {
            key: "a".into(),
            mime: "text/plain".into(),
            upload_id: UploadId::generate(None),
            size: None,
            md5: Some(Md5::of(bytes)),
            crc64nvme: Some(Crc64Nvme::of(bytes)),
            integrity,
            record: None,
            placement: Box::default(),
        };
        let (right, wrong) = (
            object(Integrity::Crc64Nvme, b"a"),
            object(Integrity::Md5, b"b"),
        );
        for (named, is_proven) in [
            (Digests::default(), false),
            (wrong.digests(), false),
            (Md5::of(b"a").into(), true),
            (Crc64Nvme::of(b"a").into(), true),
        ] {
            assert_eq!(right.is_unproven_by(&named), !is_proven, "{named:?}");
            assert!(!wrong.is_unproven_by(&named), "an MD5 is always compared");
        }
    }
}
