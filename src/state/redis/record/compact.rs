//! The header of a COMPLETE upload in its short form: short names, nothing that is empty, and nothing that only a live upload
//! needs. A million files are kept for ever.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use upload_gateway_core::upload::{
    Cached, Crc64Nvme, DigestChoice, FileMetadata, Md5, Object, Permissions, Phase, Placement,
    Plan, StoreKind, Timestamp, Upload, UploadId,
};

use super::{Fields, Result, Unreadable, parse_owner, text, to_json};

/// The length of a piece of a header in bytes: the largest value with which Redis keeps a hash in one block of memory
/// (`hash-max-listpack-value`, by default).
pub(in crate::state::redis) const PIECE: usize = 64;

/// What stands for the upload id in an object key, which has no control characters.
const ID: &str = "\u{7f}";

/// A header.
#[derive(Debug, Serialize, Deserialize)]
struct Header<'a> {
    #[serde(rename = "n")]
    file_name: Cow<'a, str>,
    #[serde(rename = "z", default, skip_serializing_if = "Option::is_none")]
    file_size: Option<u64>,
    #[serde(rename = "m", default, skip_serializing_if = "str::is_empty")]
    file_mime: Cow<'a, str>,
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    file_id: Option<Cow<'a, str>>,
    #[serde(rename = "io", default, skip_serializing_if = "is_default")]
    opaque_file_id: bool,
    #[serde(rename = "d", default, skip_serializing_if = "is_default")]
    skip_file_digest: bool,
    #[serde(rename = "d6", default, skip_serializing_if = "is_default")]
    keeps_crc64: bool,
    #[serde(rename = "a", default, skip_serializing_if = "is_default")]
    permissions: Permissions,
    #[serde(rename = "p", default, skip_serializing_if = "is_default")]
    public: bool,
    #[serde(rename = "t", default, skip_serializing_if = "<[_]>::is_empty")]
    tags: Cow<'a, [String]>,
    #[serde(rename = "f", default, skip_serializing_if = "str::is_empty")]
    file_path: Cow<'a, str>,
    #[serde(rename = "s")]
    storage_id: Cow<'a, str>,
    #[serde(rename = "k")]
    store_kind: StoreKind,
    /// The key of the object, with [`ID`] instead of the upload id.
    #[serde(rename = "o")]
    object_key: String,
    /// The bucket.
    #[serde(rename = "b")]
    bucket: Cow<'a, str>,
    #[serde(rename = "e")]
    etag: Cow<'a, str>,
    /// The size of the object, unless it is `file_size`.
    #[serde(rename = "oz", default, skip_serializing_if = "Option::is_none")]
    object_size: Option<u64>,
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    md5: Option<Md5>,
    #[serde(rename = "h6", default, skip_serializing_if = "Option::is_none")]
    crc64nvme: Option<Crc64Nvme>,
    /// See [`Plan::tiers`].
    #[serde(rename = "l")]
    plan: (u32, Vec<(u32, u64)>),
    #[serde(rename = "r", default = "one", skip_serializing_if = "is_one")]
    attempts: u32,
    #[serde(rename = "c")]
    created_at: Timestamp,
    #[serde(rename = "u")]
    updated_at: Timestamp,
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    kept_until: Option<Timestamp>,
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    expire_after: Option<u64>,
    #[serde(rename = "ch", default, skip_serializing_if = "Option::is_none")]
    object_changed_at: Option<Timestamp>,
    #[serde(rename = "cp", default, skip_serializing_if = "Option::is_none")]
    copy_of: Option<Cow<'a, UploadId>>,
    #[serde(rename = "mv", default, skip_serializing_if = "Option::is_none")]
    moves_to: Option<Cow<'a, UploadId>>,
    #[serde(rename = "y", default, skip_serializing_if = "Option::is_none")]
    placement: Option<Cow<'a, Placement>>,
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    cached: Option<Cow<'a, Cached>>,
    #[serde(rename = "xa", default, skip_serializing_if = "Option::is_none")]
    file_expires_at: Option<Timestamp>,
}

/// The header of a COMPLETE upload, in its short form. `None`: the upload has no object, or one under another key.
pub(in crate::state::redis) fn json(upload: &Upload) -> Result<Option<String>> {
    let Some(object) = upload.object.as_ref() else {
        return Ok(None);
    };
    if object.key != upload.object_key {
        return Ok(None);
    }
    let file = &upload.file;
    let header = Header {
        file_name: file.file_name.as_str().into(),
        file_size: file.file_size,
        file_mime: file.file_mime.as_str().into(),
        file_id: file.file_id.as_deref().map(Cow::from),
        opaque_file_id: upload.opaque_file_id,
        skip_file_digest: !file.file_digest.allows_md5(),
        keeps_crc64: file.file_digest == DigestChoice::Crc64Nvme,
        permissions: file.permissions,
        public: file.public,
        tags: file.tags.as_slice().into(),
        file_path: file.file_path.as_str().into(),
        storage_id: upload.storage_id.as_str().into(),
        store_kind: upload.store_kind,
        object_key: upload.object_key.replace(upload.id.as_str(), ID),
        bucket: object.bucket.as_str().into(),
        etag: object.etag.as_str().into(),
        object_size: Some(object.size).filter(|_| file.file_size != Some(object.size)),
        md5: object.md5,
        crc64nvme: object.crc64nvme,
        plan: upload.plan.tiers(),
        attempts: upload.attempts,
        created_at: upload.created_at,
        updated_at: upload.updated_at,
        kept_until: upload.kept_until,
        object_changed_at: upload.object_changed_at,
        copy_of: upload.copy_of.as_ref().map(Cow::Borrowed),
        moves_to: upload.moves_to.as_ref().map(Cow::Borrowed),
        expire_after: file.expire_after,
        placement: (!file.placement.is_default()).then_some(Cow::Borrowed(&*file.placement)),
        cached: file.cached.as_deref().map(Cow::Borrowed),
        file_expires_at: upload.file_expires_at,
    };
    to_json(&header).map(Some)
}

/// The inverse of [`json`], for the fields of the record at `key`.
pub(super) fn read(key: &str, fields: &Fields) -> Result<Upload, Unreadable> {
    let header: Header<'_> = serde_json::from_str(text(fields, "record")?)?;
    let id: UploadId = key
        .rsplit(':')
        .next()
        .and_then(|id| id.parse().ok())
        .ok_or(Unreadable::Missing("id"))?;
    let owner = parse_owner(text(fields, "owner")?).ok_or(Unreadable::Missing("owner"))?;
    let plan = Plan::from_tiers(header.plan.0, &header.plan.1);
    let plan = plan.map_err(|_| Unreadable::Number("plan"))?;
    let object_key = header.object_key.replace(ID, id.as_str());
    Ok(Upload {
        version: 0,
        phase: Phase::Complete,
        owner,
        storage_id: header.storage_id.into_owned(),
        object: Some(Object {
            bucket: header.bucket.into_owned(),
            key: object_key.clone(),
            etag: header.etag.into_owned(),
            size: header.object_size.or(header.file_size).unwrap_or(0),
            md5: header.md5,
            crc64nvme: header.crc64nvme,
        }),
        object_key,
        attempts: header.attempts,
        opaque_file_id: header.opaque_file_id,
        updated_at: header.updated_at,
        expires_at: header.updated_at,
        kept_until: header.kept_until,
        object_changed_at: header.object_changed_at,
        copy_of: header.copy_of.map(Cow::into_owned),
        moves_to: header.moves_to.map(Cow::into_owned),
        file_expires_at: header.file_expires_at,
        file: FileMetadata {
            file_name: header.file_name.into_owned(),
            file_size: header.file_size,
            file_mime: header.file_mime.into_owned(),
            file_id: header.file_id.map(Cow::into_owned),
            permissions: header.permissions,
            public: header.public,
            tags: header.tags.into_owned(),
            file_path: header.file_path.into_owned(),
            file_digest: DigestChoice::kept(header.skip_file_digest, header.keeps_crc64),
            expire_after: header.expire_after,
            placement: Box::new(header.placement.map(Cow::into_owned).unwrap_or_default()),
            cached: header.cached.map(|cached| Box::new(cached.into_owned())),
        },
        ..Upload::begun(id, header.store_kind, plan, header.created_at)
    })
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn one() -> u32 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_one(number: &u32) -> bool {
    *number == 1
}
