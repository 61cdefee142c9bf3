//! Converts between the messages of the API and the values of the domain. No other code names both.

pub(super) mod admin;
pub(super) mod download;
mod file_digest;
pub(super) mod listing;
mod placement;
pub(super) mod signing;
pub(super) mod storages;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::{Message as _, length_delimiter_len};
use prost_types::Timestamp as WireTimestamp;
use upload_gateway_client::proto::v1;
use upload_gateway_core::{
    error::{All, Error, Result},
    gateway::{
        Chunk, ChunkEnd, Counts, Finish, Found, MAX_PAGE_LENGTH, Message, Open, PartPage, Takeover,
        Target,
    },
    state::Cursor,
    upload::{
        self, AbortReason, Crc64Nvme, FileMetadata, Md5, Object, Part, Permissions, Phase,
        StoreKind, Timestamp, Upload, UploadId, policy,
    },
};

use super::messages::Read;

/// A message of a stream, or a piece of one.
pub(super) fn read(read: Read) -> Result<Message> {
    match read {
        Read::Message(request) => message(request),
        Read::Piece(bytes) => Ok(Message::Piece(bytes)),
        Read::ChunkEnd(chunk) => Ok(Message::ChunkEnd(ChunkEnd {
            offset: size("chunk.offset", chunk.offset)?,
            crc32c: chunk.crc32c,
        })),
        Read::Void => Ok(Message::Void),
    }
}

/// A message of a stream.
pub(super) fn message(request: v1::UploadRequest) -> Result<Message> {
    use v1::upload_request::Message as Wire;
    match request.message {
        Some(Wire::Open(open)) => self::open(open).map(Message::Open),
        Some(Wire::Chunk(chunk)) => Ok(Message::Chunk(Chunk {
            offset: size("chunk.offset", chunk.offset)?,
            data: chunk.data,
            crc32c: chunk.crc32c,
        })),
        Some(Wire::Finish(finish)) => {
            let file_size = finish
                .file_size
                .map(|value| size("finish.file_size", value));
            let file_id = finish.file_id.map(|text| digest("finish.file_id", &text));
            let (file_size, file_id) = (file_size.transpose(), file_id.transpose()).all()?;
            Ok(Message::Finish(Finish {
                file_size,
                file_id,
                crc64nvme: finish.crc64nvme.map(Crc64Nvme),
            }))
        }
        None => Err(Error::sequence("a message must be open, chunk or finish")),
    }
}

/// The id of an upload, which `field` has.
pub(super) fn upload_id(field: &'static str, text: &str) -> Result<UploadId> {
    if text.is_empty() {
        return Err(Error::invalid(field, "must not be empty"));
    }
    // The same error as for an unknown id, so that callers learn nothing about ids.
    text.parse()
        .map_err(|_| Error::upload_not_found(text.chars().take(80).collect::<String>()))
}

/// A filter by phase. None: all phases.
pub(super) fn phase_filter(value: i32) -> Result<Option<Phase>> {
    match v1::Phase::try_from(value) {
        Ok(v1::Phase::Unspecified) => Ok(None),
        Ok(v1::Phase::Open) => Ok(Some(Phase::Open)),
        Ok(v1::Phase::Committing) => Ok(Some(Phase::Committing)),
        Ok(v1::Phase::Complete) => Ok(Some(Phase::Complete)),
        Ok(v1::Phase::Aborted) => Ok(Some(Phase::Aborted)),
        // No list has one.
        Ok(v1::Phase::Deleting) => Ok(Some(Phase::Deleting)),
        Err(_) => Err(Error::invalid("phase", "unknown value")),
    }
}

/// The largest number of entries on a page. 0 means 100; a larger number than the maximum means the maximum.
pub(super) fn page_size(value: i32) -> Result<usize> {
    match usize::try_from(value) {
        Ok(0) => Ok(100),
        Ok(size) => Ok(size.min(MAX_PAGE_LENGTH)),
        Err(_) => Err(Error::invalid("page_size", "must not be negative")),
    }
}

/// The page of a listing, as far as it fits into the largest one.
pub(super) fn upload_page(mut found: Found) -> v1::ListUploadsResponse {
    let mut uploads: Vec<_> = found.uploads.iter().map(upload).collect();
    // Each one has a key of one byte, and a length.
    let sizes = uploads.iter().map(|upload| {
        let length = upload.encoded_len();
        1 + length_delimiter_len(length) + length
    });
    found.fit(sizes);
    uploads.truncate(found.uploads.len());
    let next = found.next.and_then(|start| start.after);
    v1::ListUploadsResponse {
        uploads,
        next_page_token: page_token(next.as_ref()),
    }
}

/// Where a listing continues. None: at the newest upload.
pub(super) fn cursor(token: &str) -> Result<Option<Cursor>> {
    if token.is_empty() {
        return Ok(None);
    }
    let parse = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let mut fields = text.splitn(3, ' ');
        let (created_at, id) = (fields.next()?, fields.next()?);
        Some(Cursor {
            created_at: Timestamp(created_at.parse().ok()?),
            id: id.parse().ok()?,
            name: fields.next().map(str::to_owned),
        })
    };
    parse()
        .map(Some)
        .ok_or_else(|| Error::invalid("page_token", "not a token of ListUploads"))
}

/// The token of a position in a listing. Empty if there is no next page.
pub(super) fn page_token(cursor: Option<&Cursor>) -> String {
    let text = |cursor: &Cursor| {
        let name = cursor.name.as_ref().map(|name| format!(" {name}"));
        let name = name.unwrap_or_default();
        format!("{} {}{name}", cursor.created_at.0, cursor.id)
    };
    cursor
        .map(|cursor| URL_SAFE_NO_PAD.encode(text(cursor)))
        .unwrap_or_default()
}

/// The record of an upload, with a resume token.
pub(super) fn upload_with_token(record: &Upload, resume_token: &str) -> v1::Upload {
    v1::Upload {
        resume_token: resume_token.to_owned(),
        ..upload(record)
    }
}

/// A committed part.
pub(super) fn part(part: &Part) -> v1::Part {
    v1::Part {
        part: number(part.number),
        md5: part.md5().map(|md5| md5.to_string()).unwrap_or_default(),
        crc64nvme: part.crc64nvme().map(|crc64| crc64.0),
        size: bytes(part.size),
        offset: bytes(part.offset),
    }
}

/// The number of the part after which a listing of parts continues. 0: at the first part.
pub(super) fn part_cursor(token: &str) -> Result<u32> {
    if token.is_empty() {
        return Ok(0);
    }
    let parse = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        text.parse()
            .ok()
            .filter(|number: &u32| number.to_string() == text)
    };
    parse().ok_or_else(|| Error::invalid("page_token", "not a token of ListParts"))
}

/// A page of parts.
pub(super) fn part_page(page: &PartPage) -> v1::ListPartsResponse {
    let token = |last: u32| URL_SAFE_NO_PAD.encode(last.to_string());
    v1::ListPartsResponse {
        parts: page.parts.iter().map(part).collect(),
        next_page_token: page.next.map(token).unwrap_or_default(),
    }
}

/// The record of an upload.
pub(super) fn upload(upload: &Upload) -> v1::Upload {
    v1::Upload {
        upload_id: upload.id.to_string(),
        file: Some(file(upload)),
        phase: phase(upload.phase).into(),
        residence: residence(upload.store_kind).into(),
        storage_id: upload.storage_id.clone(),
        part_size: upload.plan.part_size().map_or(0, bytes),
        committed_size: bytes(upload.committed_size()),
        part_count: number(upload.parts.committed()),
        resumable_id: upload.session.clone().unwrap_or_default(),
        resume_token: String::new(),
        owner: upload.owner.subject.clone(),
        created_at: Some(time(upload.created_at)),
        updated_at: Some(time(upload.updated_at)),
        expires_at: upload.expires().map(time),
        object: upload.object.as_ref().map(object),
        object_changed_at: upload.object_changed_at.map(time),
        copy_of: upload
            .copy_of
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        abort_reason: upload
            .abort_reason
            .map_or(v1::AbortReason::Unspecified, abort_reason)
            .into(),
    }
}

/// A progress message with the whole record: the first or the last one.
pub(super) fn progress_with_upload(
    record: &Upload,
    received_size: u64,
    resume_token: &str,
) -> v1::UploadProgress {
    v1::UploadProgress {
        upload_id: record.id.to_string(),
        committed_size: bytes(record.committed_size()),
        received_size: bytes(received_size),
        phase: phase(record.phase).into(),
        resume_token: resume_token.to_owned(),
        upload: Some(upload_with_token(record, resume_token)),
    }
}

/// A progress message without the record. It has a resume token if `committed_size` has moved.
pub(super) fn progress(
    id: &UploadId,
    counts: &Counts,
    resume_token: Option<&str>,
) -> v1::UploadProgress {
    let phase = if counts.committing {
        v1::Phase::Committing
    } else {
        v1::Phase::Open
    };
    v1::UploadProgress {
        upload_id: id.to_string(),
        committed_size: bytes(counts.committed_size),
        received_size: bytes(counts.received_size),
        phase: phase.into(),
        resume_token: resume_token.unwrap_or_default().to_owned(),
        upload: None,
    }
}

fn open(open: v1::Open) -> Result<Open> {
    use v1::open::Target as Wire;
    let target = match open.target {
        Some(Wire::File(file)) => {
            let storage_id = file.storage_id.clone();
            file_metadata(file, policy::check_streamed)
                .map(|file| Target::File { file, storage_id })
        }
        Some(Wire::UploadId(id)) => upload_id("open.upload_id", &id).map(Target::Upload),
        None => Err(Error::invalid("open.target", "must be file or upload_id")),
    };
    let takeover = match v1::Takeover::try_from(open.takeover) {
        Ok(v1::Takeover::Unspecified | v1::Takeover::Force) => Ok(Takeover::Force),
        Ok(v1::Takeover::Forbid) => Ok(Takeover::Forbid),
        Err(_) => Err(Error::invalid("open.takeover", "unknown value")),
    };
    let (target, takeover) = (target, takeover).all()?;
    Ok(Open {
        target,
        resume_token: open.resume_token,
        restart: open.restart,
        takeover,
    })
}

/// A file that passes `check`.
fn file_metadata(
    file: v1::FileMetadata,
    check: fn(&FileMetadata) -> Result<()>,
) -> Result<FileMetadata> {
    let permissions = match v1::Permissions::try_from(file.permissions) {
        Ok(v1::Permissions::Unspecified | v1::Permissions::None) => Ok(Permissions::None),
        Ok(v1::Permissions::Support) => Ok(Permissions::Support),
        Ok(v1::Permissions::Admin) => Ok(Permissions::Admin),
        // It may be stricter than all known ones, so it must not become the default.
        Err(_) => Err(Error::invalid("file.permissions", "unknown value")),
    };
    let file_digest = file_digest::from_wire(file.file_digest);
    let file_size = file.file_size.map(|value| size("file.file_size", value));
    let expire_after = expire_after("file.expire_after", file.expire_after.as_ref());
    let (permissions, file_size) = (permissions, file_size.transpose());
    let file = FileMetadata {
        file_size: file_size.as_ref().ok().copied().flatten(),
        file_id: Some(file.file_id).filter(|text| !text.is_empty()),
        file_name: file.file_name,
        file_mime: file.file_mime,
        public: file.public,
        tags: file.tags,
        file_path: file.file_path,
        file_digest: file_digest.as_ref().copied().unwrap_or_default(),
        placement: Box::new(
            file.placement
                .map(|wire| placement::from_wire(*wire))
                .unwrap_or_default(),
        ),
        ..FileMetadata::default()
    };
    // Checked here as well, so that one error names all invalid fields.
    let checked = (
        (permissions, file_digest).all(),
        file_size,
        expire_after,
        check(&file),
    )
        .all();
    let ((permissions, _), _, expire_after, ()) = checked?;
    Ok(FileMetadata {
        permissions,
        expire_after,
        ..file
    })
}

fn file(upload: &Upload) -> v1::FileMetadata {
    let file = &upload.file;
    let permissions = match file.permissions {
        Permissions::None => v1::Permissions::None,
        Permissions::Support => v1::Permissions::Support,
        Permissions::Admin => v1::Permissions::Admin,
    };
    v1::FileMetadata {
        file_name: file.file_name.clone(),
        file_size: file.file_size.map(bytes),
        file_mime: file.file_mime.clone(),
        file_id: file.file_id.clone().unwrap_or_default(),
        permissions: permissions.into(),
        public: file.public,
        tags: file.tags.clone(),
        file_path: file.file_path.clone(),
        storage_id: upload.storage_id.clone(),
        file_digest: file_digest::to_wire(file.file_digest).into(),
        expire_after: file.expire_after.map(seconds),
        placement: placement::to_wire(&file.placement).map(Box::new),
    }
}

fn seconds(seconds: u64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: bytes(seconds),
        nanos: 0,
    }
}

/// After how many seconds a file is deleted.
pub(super) fn expire_after(
    field: &'static str,
    time: Option<&prost_types::Duration>,
) -> Result<Option<u64>> {
    let Some(time) = time else { return Ok(None) };
    let seconds = size(field, time.seconds)?;
    match time.nanos {
        0 => Ok(Some(seconds)),
        _ => Err(Error::invalid(field, "must be whole seconds")),
    }
}

fn object(object: &Object) -> v1::Object {
    v1::Object {
        bucket: object.bucket.clone(),
        key: object.key.clone(),
        etag: object.etag.clone(),
        size: bytes(object.size),
        md5: object.md5.map(|md5| md5.to_string()).unwrap_or_default(),
        crc64nvme: object.crc64nvme.map(|crc64| crc64.0),
    }
}

fn phase(phase: Phase) -> v1::Phase {
    match phase {
        Phase::Open => v1::Phase::Open,
        Phase::Committing => v1::Phase::Committing,
        Phase::Complete => v1::Phase::Complete,
        Phase::Aborted => v1::Phase::Aborted,
        Phase::Deleting => v1::Phase::Deleting,
    }
}

fn abort_reason(reason: AbortReason) -> v1::AbortReason {
    match reason {
        AbortReason::Deleted => v1::AbortReason::Deleted,
        AbortReason::Restarted => v1::AbortReason::Restarted,
        AbortReason::Expired => v1::AbortReason::Expired,
        AbortReason::SessionLost => v1::AbortReason::SessionLost,
        AbortReason::PartReplaced => v1::AbortReason::PartReplaced,
        AbortReason::DigestMismatch => v1::AbortReason::DigestMismatch,
        AbortReason::CommitFailed => v1::AbortReason::CommitFailed,
    }
}

/// The residence of the kind's name: `AmazonS3` is `RESIDENCE_AMAZON_S3`.
fn residence(kind: StoreKind) -> v1::Residence {
    let name = format!("residence{}", kind.residence()).to_lowercase();
    let is_named = |known: &v1::Residence| {
        let known = known.as_str_name().replace('_', "");
        known.to_lowercase() == name
    };
    let mut known = (1..).map_while(|number| v1::Residence::try_from(number).ok());
    known.find(is_named).unwrap_or_default()
}

fn size(field: &'static str, value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| Error::invalid(field, "must not be negative"))
}

fn digest(field: &'static str, text: &str) -> Result<Md5> {
    text.parse()
        .map_err(|error: upload::InvalidDigest| Error::invalid(field, error.to_string()))
}

/// A size as the API has it. No file is too large for an `int64`.
fn bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn number(part: u32) -> i32 {
    i32::try_from(part).unwrap_or(i32::MAX)
}

fn time(time: Timestamp) -> WireTimestamp {
    let seconds = bytes(time.0 / 1000);
    let nanos = i32::try_from(time.0 % 1000).unwrap_or_default() * 1_000_000;
    WireTimestamp { seconds, nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_decodes_to_its_position() {
        let cursor = Cursor {
            created_at: Timestamp(17),
            id: UploadId::generate(None),
            name: None,
        };
        assert_eq!(
            self::cursor(&page_token(Some(&cursor))).unwrap(),
            Some(cursor)
        );
        assert_eq!(self::cursor("").unwrap(), None);
        assert!(self::cursor("invalid").is_err());
    }

    #[test]
    fn every_kind_of_store_has_a_residence() {
        for &kind in StoreKind::ALL {
            assert_ne!(residence(kind), v1::Residence::Unspecified, "{kind:?}");
        }
    }
}
