//! What a blob store reports, and in what stores differ.

use std::collections::BTreeMap;

use super::{CompositeMd5, Md5, UploadId, WriterTag};

/// In what stores differ. Use cases ask for a capability, never for a vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Parts need a session that a request creates, and requests for parts name it (S3: multipart upload). Otherwise the
    /// session is implicit: parts are put under the object's key (Azure: uncommitted blocks).
    pub creates_sessions: bool,
    /// A part replaces the one that the session holds under its number (S3). Otherwise parts of several streams are kept
    /// side by side, told apart by their names (Azure).
    pub one_part_per_number: bool,
    /// The list of parts carries the MD5 of each part, as the store computed it (S3). Otherwise it has sizes only (Azure).
    pub lists_part_digests: bool,
    /// The name of a part holds the tag of the stream that put it (Azure).
    pub names_writers: bool,
    /// The MD5 that HEAD reports of an object put whole was computed by the store (S3). Otherwise it is what the sender
    /// said it was (Azure).
    pub computes_object_md5: bool,
}

/// A part as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// What a commit names it by: its ETag (S3) or block id (Azure).
    pub receipt: String,
    /// Its number, if the store (S3) or the form of its name (Azure) has one.
    pub number: Option<u32>,
    /// The stream that put it, if its name says so (Azure). A client's own part has none.
    pub writer: Option<WriterTag>,
    /// Its receipt, read as an MD5. On S3 that is the part's MD5 unless the part is encrypted by KMS: it proves something
    /// only if it equals the expected one.
    pub md5: Option<Md5>,
    /// Its size in bytes.
    pub size: u64,
}

/// An object as the store describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredObject {
    /// Its entity tag, without quotes.
    pub etag: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its MD5, if the store computed it (S3 single puts without KMS) or was given it.
    pub md5: Option<Md5>,
    /// The MD5 over its parts' MD5s, if the store computed it (S3 multipart uploads without KMS).
    pub composite: Option<CompositeMd5>,
    /// Its metadata, keys in lower case; `upload_id` is the gateway's.
    pub metadata: BTreeMap<String, String>,
}

// === impl StoredObject ===

impl StoredObject {
    /// The upload it was made by, as its metadata says.
    pub fn upload_id(&self) -> Option<&str> {
        self.metadata.get("upload_id").map(String::as_str)
    }

    /// Whether its metadata names this upload.
    pub fn is_of(&self, id: &UploadId) -> bool {
        self.upload_id() == Some(id.as_str())
    }
}
