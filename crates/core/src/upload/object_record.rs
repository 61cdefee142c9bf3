//! What the store keeps of an upload beside its object, so that a lost record can be rebuilt: an entry in the object's
//! metadata, and a side object for what the entry does not have.

use serde::{Deserialize, Serialize};

use super::{
    Crc64Nvme, DigestChoice, Digests, Encryption, FileMetadata, Md5, Object, Owner, Permissions,
    Phase, Placement, Plan, StoreKind, StoreLimits, StoredObject, Timestamp, Upload, UploadId,
};

/// The longest file name in an entry, in bytes.
const MAX_NAME_LENGTH: usize = 255;

/// The longest `file_id` in an entry, in bytes: more than any digest has.
const MAX_FILE_ID_LENGTH: usize = 64;

/// The entry in the metadata of an object. Its JSON keys are short, because the store limits the size of the metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    #[serde(rename = "i")]
    id: UploadId,
    #[serde(rename = "t", default, skip_serializing_if = "String::is_empty")]
    tenant: String,
    #[serde(rename = "s", default, skip_serializing_if = "String::is_empty")]
    subject: String,
    /// Can be cut.
    #[serde(rename = "n", default, skip_serializing_if = "String::is_empty")]
    file_name: String,
    #[serde(rename = "m", default, skip_serializing_if = "String::is_empty")]
    file_mime: String,
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    file_id: Option<String>,
    #[serde(rename = "o", default, skip_serializing_if = "is_false")]
    opaque_file_id: bool,
    #[serde(rename = "q", default, skip_serializing_if = "is_false")]
    skip_file_digest: bool,
    #[serde(rename = "q6", default, skip_serializing_if = "is_false")]
    keeps_crc64: bool,
    #[serde(rename = "c")]
    created_at: Timestamp,
    #[serde(rename = "p", default, skip_serializing_if = "is_false")]
    public: bool,
    #[serde(rename = "r")]
    permissions: Permissions,
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    expire_after: Option<u64>,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    md5: Option<Md5>,
    #[serde(rename = "d6", default, skip_serializing_if = "Option::is_none")]
    crc64nvme: Option<Crc64Nvme>,
    /// In bytes, if it was known.
    #[serde(rename = "z", default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Empty in entries of earlier releases.
    #[serde(rename = "l", default, skip_serializing_if = "String::is_empty")]
    storage_id: String,
}

/// The side object of an upload: everything that its record has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideRecord {
    id: UploadId,
    /// Empty in side objects of earlier releases.
    #[serde(default)]
    storage_id: String,
    owner: Owner,
    file: FileMetadata,
    #[serde(default)]
    opaque_file_id: bool,
    created_at: Timestamp,
    #[serde(default)]
    file_expires_at: Option<Timestamp>,
    object: Object,
}

/// Where an object was found whose record is lost.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The id of the storage.
    pub storage_id: &'a str,
    /// The kind of its store.
    pub store_kind: StoreKind,
    /// The bucket or container.
    pub bucket: &'a str,
    /// The part size of the storage, in bytes.
    pub part_size: u64,
    /// The limits of its store.
    pub limits: &'a StoreLimits,
    /// The key of the object.
    pub key: &'a str,
    /// The object.
    pub object: &'a StoredObject,
    /// Its digests, if the store computed them.
    pub digests: Digests,
}

// === impl ObjectEntry ===

impl ObjectEntry {
    /// The entry of an upload in at most `max` bytes of JSON. `digests` are those of the whole object, as far as they are known. `None` if even
    /// without a file name it would be longer.
    pub fn of(upload: &Upload, digests: Digests, max: usize) -> Option<Self> {
        let Upload { file, owner, .. } = upload;
        let is_short = |id: &&String| id.len() <= MAX_FILE_ID_LENGTH;
        let mut entry = Self {
            id: upload.id.clone(),
            tenant: owner.tenant.clone(),
            subject: owner.subject.clone(),
            file_name: cut(&file.file_name, MAX_NAME_LENGTH).to_owned(),
            file_mime: file.file_mime.clone(),
            file_id: file.file_id.as_ref().filter(is_short).cloned(),
            opaque_file_id: upload.opaque_file_id,
            skip_file_digest: !file.file_digest.allows_md5(),
            keeps_crc64: file.file_digest == DigestChoice::Crc64Nvme,
            created_at: upload.created_at,
            public: file.public,
            permissions: file.permissions,
            expire_after: file.expire_after,
            md5: digests.md5.or(upload.promised_md5()),
            crc64nvme: digests.crc64nvme,
            size: file.file_size,
            storage_id: upload.storage_id.clone(),
        };
        loop {
            let excess = entry.to_json().len().saturating_sub(max);
            if excess == 0 {
                return Some(entry);
            }
            let left = entry.file_name.len().checked_sub(1)?;
            let length = left.saturating_sub(excess - 1);
            entry.file_name = cut(&entry.file_name, length).to_owned();
        }
    }

    /// The text to seal.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain values have a JSON form")
    }

    /// The entry of a text that was sealed.
    pub fn from_json(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Whether the entry is all that the record of `upload` needs, which is COMPLETE or becomes so. The time at which a file
    /// expires is not known when its entry is written.
    pub fn is_whole(&self, upload: &Upload) -> bool {
        let same = Self::file(self);
        let known = FileMetadata {
            file_size: None,
            // The store reports the rest of it with the object.
            placement: Box::default(),
            ..upload.file.clone()
        };
        self.id == upload.id
            && self.owner() == upload.owner
            && same == known
            && upload.file.placement.object_tags.is_empty()
            && self.opaque_file_id == upload.opaque_file_id
            && self.created_at == upload.created_at
            && !upload.is_amended
            && upload.file.expire_after.is_none()
            && upload.file_expires_at.is_none()
    }

    /// The storage of the upload. Empty if it is not known.
    pub fn storage_id(&self) -> &str {
        &self.storage_id
    }

    fn digests(&self) -> Digests {
        Digests {
            md5: self.md5,
            crc64nvme: self.crc64nvme,
        }
    }

    fn owner(&self) -> Owner {
        Owner {
            tenant: self.tenant.clone(),
            subject: self.subject.clone(),
        }
    }

    fn file(&self) -> FileMetadata {
        FileMetadata {
            file_name: self.file_name.clone(),
            file_mime: self.file_mime.clone(),
            file_id: self.file_id.clone(),
            permissions: self.permissions,
            public: self.public,
            file_digest: DigestChoice::kept(self.skip_file_digest, self.keeps_crc64),
            expire_after: self.expire_after,
            ..FileMetadata::default()
        }
    }

    /// Whether the object can be the one of the entry: it has the size and the digest that were known.
    pub fn is_of(&self, found: &Found<'_>) -> bool {
        let size = found.object.size;
        self.size.is_none_or(|known| known == size) && !self.digests().contradict(&found.digests)
    }

    /// The record of the upload. The time at which an expiring file expires is in its side object: without it, no completion was
    /// acknowledged, and the time counts from `now`.
    pub fn rebuild(self, found: &Found<'_>, now: Timestamp) -> Upload {
        let owner = self.owner();
        let file = FileMetadata {
            placement: Box::new(found.object.reported_placement()),
            ..self.file()
        };
        let upload = Lost {
            id: self.id,
            owner,
            file,
            opaque_file_id: self.opaque_file_id,
            created_at: self.created_at,
            file_expires_at: None,
            // Of an object with this MD5 or CRC-64, which a client can have put by itself.
            digests: Digests {
                md5: self.md5.filter(|md5| found.object.md5 == Some(*md5)),
                crc64nvme: self
                    .crc64nvme
                    .filter(|crc64| found.object.written_crc64nvme() == Some(*crc64)),
            },
        };
        let mut upload = upload.rebuild(found);
        upload.file_expires_at = upload.file_expires(now);
        upload
    }
}

// === impl SideRecord ===

impl SideRecord {
    /// The side object of an upload that has this object.
    pub fn of(upload: &Upload, object: &Object, file_expires_at: Option<Timestamp>) -> Self {
        Self {
            id: upload.id.clone(),
            storage_id: upload.storage_id.clone(),
            owner: upload.owner.clone(),
            file: upload.file.clone(),
            opaque_file_id: upload.opaque_file_id,
            created_at: upload.created_at,
            file_expires_at,
            object: object.clone(),
        }
    }

    /// Whether the record of a COMPLETE upload with this object can be rebuilt from it as it is now. The storage is not compared.
    pub fn has_all_of(&self, upload: &Upload, object: &Object) -> bool {
        let current = Self {
            storage_id: self.storage_id.clone(),
            ..Self::of(upload, object, upload.file_expires_at)
        };
        *self == current
    }

    /// The text to seal.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain values have a JSON form")
    }

    /// The side object of a text that was sealed.
    pub fn from_json(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// The upload.
    pub fn id(&self) -> &UploadId {
        &self.id
    }

    /// When the file expires. `None`: never.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.file_expires_at
    }

    /// How the side object is stored: encrypted as the storage demands, or as the object, and tagged as the object, because the
    /// policy of a bucket can demand it.
    pub fn placement(&self, demand: Option<&Encryption>) -> Placement {
        let Placement {
            encryption,
            object_tags,
            ..
        } = &*self.file.placement;
        Placement {
            encryption: demand.cloned().or_else(|| encryption.clone()),
            object_tags: object_tags.clone(),
            ..Placement::default()
        }
    }

    /// The storage of the upload. Empty if it is not known.
    pub fn storage_id(&self) -> &str {
        &self.storage_id
    }

    /// The key of its object.
    pub fn object_key(&self) -> &str {
        &self.object.key
    }

    /// Whether `found` is the object of the upload. A commit of the same blocks that was repeated late changes the entity tag
    /// (Azure), but not the metadata.
    pub fn is_of(&self, found: &Found<'_>) -> bool {
        let object = found.object;
        let is_repeated = found.store_kind == StoreKind::Azure && object.is_of(&self.id);
        object.size == self.object.size && (object.etag == self.object.etag || is_repeated)
    }

    /// The record of the upload.
    pub fn rebuild(self, found: &Found<'_>) -> Upload {
        let upload = Lost {
            id: self.id,
            owner: self.owner,
            file: self.file,
            opaque_file_id: self.opaque_file_id,
            created_at: self.created_at,
            file_expires_at: self.file_expires_at,
            digests: self.object.digests(),
        };
        upload.rebuild(found)
    }
}

/// What is known of an upload whose record is lost.
struct Lost {
    id: UploadId,
    owner: Owner,
    file: FileMetadata,
    opaque_file_id: bool,
    created_at: Timestamp,
    file_expires_at: Option<Timestamp>,
    digests: Digests,
}

/// The record of an object without an entry, of which only the id is known. Only administrators may download it.
pub fn rebuild_unauthenticated(id: UploadId, file_name: &str, found: &Found<'_>) -> Upload {
    let lost = Lost {
        id,
        owner: Owner::default(),
        file: FileMetadata {
            file_name: file_name.to_owned(),
            file_mime: found.object.mime.clone().unwrap_or_default(),
            permissions: Permissions::Admin,
            file_digest: DigestChoice::None,
            ..FileMetadata::default()
        },
        opaque_file_id: true,
        created_at: found.object.modified_at.unwrap_or(Timestamp(0)),
        file_expires_at: None,
        digests: Digests::default(),
    };
    lost.rebuild(found)
}

// === impl Lost ===

impl Lost {
    fn rebuild(self, found: &Found<'_>) -> Upload {
        let StoredObject { size, etag, .. } = found.object;
        let size = *size;
        let changed_at = found.object.modified_at.unwrap_or(self.created_at);
        let plan = Plan::known(size, found.part_size, found.limits)
            .unwrap_or_else(|_| Plan::unknown(found.part_size, found.limits));
        Upload {
            phase: Phase::Complete,
            storage_id: found.storage_id.to_owned(),
            object_key: found.key.to_owned(),
            object: Some(Object {
                bucket: found.bucket.to_owned(),
                key: found.key.to_owned(),
                etag: etag.clone(),
                size,
                md5: self.digests.or(found.digests).md5,
                crc64nvme: self.digests.or(found.digests).crc64nvme,
            }),
            file: FileMetadata {
                file_size: Some(size),
                ..self.file
            },
            owner: self.owner,
            opaque_file_id: self.opaque_file_id,
            updated_at: changed_at.max(self.created_at),
            file_expires_at: self.file_expires_at,
            expires_at: changed_at,
            ..Upload::begun(self.id, found.store_kind, plan, self.created_at)
        }
    }
}

/// The first `max` bytes of the text, or fewer, so that no character is cut.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}
