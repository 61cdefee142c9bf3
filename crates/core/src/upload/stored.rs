//! What blob stores report, and how stores differ.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    CompositeMd5, Crc64Nvme, Digests, Encryption, Features, Md5, Placement, Timestamp, UploadId,
    WriterTag,
};

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
    /// A signed request for a part binds its size (S3: the signature covers Content-Length). Otherwise the client that sends
    /// the parts chooses their size (Azure).
    pub binds_part_size: bool,
    /// The name of a part contains the tag of the stream that put it (Azure).
    pub names_writers: bool,
    /// The store computed the MD5 that HEAD reports for an object that was put whole (S3). Otherwise it is the MD5 that
    /// the sender declared (Azure).
    pub computes_object_md5: bool,
    /// A signed request binds the headers that say how the object is stored (S3). Otherwise the client can leave them out
    /// (Azure with an account key).
    pub binds_placement: bool,
    /// What it supports of a [`Placement`].
    pub features: Features,
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
    /// The cut in which a client put the part (see [`Upload::cut`](super::Upload::cut)), if its name contains it (Azure).
    pub cut: u8,
    /// The receipt, parsed as an MD5. On S3 it is the MD5 of the part, unless KMS encrypts the part: so it proves
    /// something only if it equals the expected MD5.
    pub md5: Option<Md5>,
    /// The CRC-64/NVME, if the store lists one: it has computed it from the bytes.
    pub crc64nvme: Option<Crc64Nvme>,
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
    /// The MD5: of an entity tag that has the form of one (S3), or as it was declared with the object (Azure).
    pub md5: Option<Md5>,
    /// The MD5 of the MD5s of its parts, of an entity tag that has the form of one (S3).
    pub composite: Option<CompositeMd5>,
    /// The CRC-64/NVME of the whole object, if the store reports one: it has computed it from the bytes.
    pub crc64nvme: Option<Crc64Nvme>,
    /// Whether the store computes entity tags from the bytes, so that a different digest means different bytes. False
    /// with KMS encryption, and on a storage with `etags = "opaque"`. An equal digest is proof in any case.
    pub has_digests: bool,
    /// When it was changed last, by the store's clock in seconds. AWS has the time at which a multipart upload was begun. `None` if
    /// the store did not report it.
    pub modified_at: Option<Timestamp>,
    /// The metadata, with keys in lower case. The gateway writes [`NewObject::metadata`](crate::blobs::NewObject::metadata).
    pub metadata: BTreeMap<String, String>,
    /// The media type.
    pub mime: Option<String>,
    /// How it is stored, as far as the store reports it with the object: without metadata and tags.
    pub placement: Box<Placement>,
    /// Whether it is archived: it must be restored before it can be read.
    pub is_archived: bool,
}

/// An object in the store that was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// The bucket (S3) or container (Azure).
    pub bucket: String,
    /// The object's key.
    pub key: String,
    /// The ETag, without quotes.
    pub etag: String,
    /// The size in bytes.
    pub size: u64,
    /// The MD5 of the whole object, only if it is proven.
    pub md5: Option<Md5>,
    /// The CRC-64/NVME of the whole object, only if it is proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc64nvme: Option<Crc64Nvme>,
}

/// The metadata keys that the gateway writes. Letters only: proxies drop names with underscores, and Azure takes no
/// hyphens.
pub mod metadata_keys {
    /// The id of the upload that makes the object.
    pub const UPLOAD_ID: &str = "uploadid";
    /// The size of the object in bytes, if it was known.
    pub const SIZE: &str = "uploadsize";
    /// The MD5 of the whole object in hexadecimal, if it was known.
    pub const MD5: &str = "uploadmd5";
    /// The CRC-64/NVME of the whole object, as S3 writes it, if it was known.
    pub const CRC64NVME: &str = "uploadcrc64nvme";
    /// The sealed [`ObjectEntry`](crate::upload::object_record::ObjectEntry).
    pub const RECORD: &str = "uploadrecord";
    /// All keys that callers must not use.
    pub(in crate::upload) const OWN: [&str; 5] = [UPLOAD_ID, SIZE, MD5, CRC64NVME, RECORD];
}

// === impl StoredObject ===

impl StoredObject {
    /// The id of the upload that made the object, according to its metadata.
    pub fn upload_id(&self) -> Option<&str> {
        self.metadata
            .get(metadata_keys::UPLOAD_ID)
            .map(String::as_str)
    }

    /// The size in bytes that the gateway wrote into the metadata.
    pub fn written_size(&self) -> Option<u64> {
        self.metadata.get(metadata_keys::SIZE)?.parse().ok()
    }

    /// The MD5 that the gateway wrote into the metadata.
    pub fn written_md5(&self) -> Option<Md5> {
        self.metadata.get(metadata_keys::MD5)?.parse().ok()
    }

    /// The CRC-64/NVME that the gateway wrote into the metadata.
    pub fn written_crc64nvme(&self) -> Option<Crc64Nvme> {
        self.metadata.get(metadata_keys::CRC64NVME)?.parse().ok()
    }

    /// The sealed entry in the metadata from which the record can be rebuilt.
    pub fn entry(&self) -> Option<&str> {
        self.metadata.get(metadata_keys::RECORD).map(String::as_str)
    }

    /// How the object is stored, with the metadata of the caller, as far as the store reports it with the object.
    pub fn reported_placement(&self) -> Placement {
        let own = |key: &str| metadata_keys::OWN.contains(&key);
        let callers = self.metadata.iter().filter(|(key, _)| !own(key));
        // Stores report their default classes, too.
        let class = self.placement.storage_class.clone();
        let class = class.filter(|class| !matches!(class.as_str(), "STANDARD" | "Hot"));
        Placement {
            storage_class: class,
            // Every bucket of S3 encrypts like this at least.
            encryption: self
                .placement
                .encryption
                .clone()
                .filter(|found| *found != Encryption::SseS3),
            metadata: callers
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            ..(*self.placement).clone()
        }
    }

    /// Whether the metadata names this upload.
    pub fn is_of(&self, id: &UploadId) -> bool {
        self.upload_id() == Some(id.as_str())
    }
}

// === impl Object ===

impl Object {
    /// What is proven of its digests.
    pub fn digests(&self) -> Digests {
        Digests {
            md5: self.md5,
            crc64nvme: self.crc64nvme,
        }
    }

    /// Whether both are the object of the upload, which each caller verifies before it records it. The key is never reused.
    /// A repeated commit of the same parts gets another ETag (Azure), and an inspection may know no MD5.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.key, self.size) == (&other.key, other.size)
            && !self.digests().contradict(&other.digests())
    }
}
