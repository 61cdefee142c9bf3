//! What blob stores report, and how stores differ.

use std::collections::BTreeMap;

use super::{CompositeMd5, Md5, UploadId, WriterTag};

/// How stores differ. Use cases check a capability, never the vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// A request creates the session for parts, and requests for parts name it (S3: multipart upload). Otherwise the
    /// session is implicit: parts are put under the object's key (Azure: uncommitted blocks).
    pub creates_sessions: bool,
    /// The session keeps one part per number, and a new part replaces it (S3). Otherwise the store keeps the parts of
    /// several streams side by side, under different names (Azure).
    pub one_part_per_number: bool,
    /// The list of parts contains the MD5 of each part, computed by the store (S3). Otherwise it contains only sizes
    /// (Azure).
    pub lists_part_digests: bool,
    /// The name of a part contains the tag of the stream that put it (Azure).
    pub names_writers: bool,
    /// The store computed the MD5 that HEAD reports for an object that was put whole (S3). Otherwise it is the MD5 that
    /// the sender declared (Azure).
    pub computes_object_md5: bool,
}

/// A part as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// The name of the part in a commit: its ETag (S3) or its block id (Azure).
    pub receipt: String,
    /// The number, if the store (S3) or the format of the name (Azure) contains one.
    pub number: Option<u32>,
    /// The tag of the stream that put the part, if its name contains it (Azure). `None` for a part that a client put
    /// itself.
    pub writer: Option<WriterTag>,
    /// The receipt, parsed as an MD5. On S3 it is the MD5 of the part, unless KMS encrypts the part: so it proves
    /// something only if it equals the expected MD5.
    pub md5: Option<Md5>,
    /// The size in bytes.
    pub size: u64,
}

/// An object as the store describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredObject {
    /// The ETag, without quotes.
    pub etag: String,
    /// The size in bytes.
    pub size: u64,
    /// The MD5, if the store computed it (S3 single puts without KMS) or received it with the object.
    pub md5: Option<Md5>,
    /// The MD5 of the MD5s of its parts, if the store computed it (S3 multipart uploads without KMS).
    pub composite: Option<CompositeMd5>,
    /// The metadata, with keys in lower case. The gateway sets `upload_id`.
    pub metadata: BTreeMap<String, String>,
}

// === impl StoredObject ===

impl StoredObject {
    /// The id of the upload that made the object, according to its metadata.
    pub fn upload_id(&self) -> Option<&str> {
        self.metadata.get("upload_id").map(String::as_str)
    }

    /// Whether the metadata names this upload.
    pub fn is_of(&self, id: &UploadId) -> bool {
        self.upload_id() == Some(id.as_str())
    }
}
