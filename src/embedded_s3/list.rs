//! Listings: sorted, filtered, in pages.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use s3s::dto::*;
use s3s::{S3Result, s3_error};

use super::checksum;
use super::storage::{Manifest, Session};
use super::uploads::StoredPart;
use super::values::{hexadecimal, length};

/// The largest and the default number of entries in a page (S3's own limit).
const PAGE: i32 = 1000;

/// How many entries a page may have, if the request asks for `asked`.
pub(super) fn page_limit(asked: Option<i32>) -> S3Result<usize> {
    usize::try_from(asked.unwrap_or(PAGE).min(PAGE))
        .map_err(|_| s3_error!(InvalidArgument, "a page cannot have a negative size"))
}

/// The response to `ListParts`.
pub(super) fn parts(
    input: ListPartsInput,
    (session, parts, truncated): (Session, Vec<StoredPart>, bool),
) -> S3Result<ListPartsOutput> {
    let (checksum_algorithm, checksum_type) = checksum::answered_upload(session.crc64nvme);
    let last = parts.last().map(|part| i32::from(part.number));
    let parts = parts.into_iter().map(|part| {
        Ok(Part {
            checksum_crc64nvme: part.crc64nvme.map(String::from),
            e_tag: Some(ETag::Strong(hexadecimal(&part.md5))),
            last_modified: Some(part.modified.into()),
            part_number: Some(part.number.into()),
            size: Some(length(part.size)?),
            ..Default::default()
        })
    });
    Ok(ListPartsOutput {
        bucket: Some(input.bucket),
        checksum_algorithm,
        checksum_type,
        is_truncated: Some(truncated),
        key: Some(input.key),
        max_parts: Some(input.max_parts.unwrap_or(PAGE)),
        next_part_number_marker: last.filter(|_| truncated),
        part_number_marker: Some(input.part_number_marker.unwrap_or(0)),
        parts: Some(parts.collect::<S3Result<_>>()?),
        upload_id: Some(input.upload_id),
        ..Default::default()
    })
}

/// The response to `ListMultipartUploads`: by key, then by upload id.
pub(super) fn uploads(
    input: ListMultipartUploadsInput,
    mut uploads: Vec<(String, Session)>,
) -> S3Result<ListMultipartUploadsOutput> {
    if input.delimiter.is_some() {
        return Err(s3_error!(
            NotImplemented,
            "uploads are not grouped by a delimiter"
        ));
    }
    let limit = page_limit(input.max_uploads)?;
    let prefix = input.prefix.as_deref().unwrap_or_default();
    let key_marker = input.key_marker.as_deref().unwrap_or_default();
    uploads.retain(|(upload_id, session)| {
        let after_marker = match &input.upload_id_marker {
            Some(id_marker) => (session.key.as_str(), upload_id) > (key_marker, id_marker),
            None => key_marker.is_empty() || session.key.as_str() > key_marker,
        };
        after_marker && session.key.starts_with(prefix)
    });
    uploads.sort_by(|(left_id, left), (right_id, right)| {
        (&left.key, left_id).cmp(&(&right.key, right_id))
    });
    let truncated = uploads.len() > limit;
    uploads.truncate(limit);
    let last = uploads.last().filter(|_| truncated);
    Ok(ListMultipartUploadsOutput {
        is_truncated: Some(truncated),
        max_uploads: Some(input.max_uploads.unwrap_or(PAGE)),
        next_key_marker: last.map(|(_, session)| session.key.clone()),
        next_upload_id_marker: last.map(|(upload_id, _)| upload_id.clone()),
        bucket: Some(input.bucket),
        key_marker: input.key_marker,
        prefix: input.prefix,
        upload_id_marker: input.upload_id_marker,
        uploads: Some(
            uploads
                .into_iter()
                .map(|(upload_id, session)| upload(upload_id, session))
                .collect(),
        ),
        ..Default::default()
    })
}

fn upload(upload_id: String, session: Session) -> MultipartUpload {
    let (checksum_algorithm, checksum_type) = checksum::answered_upload(session.crc64nvme);
    MultipartUpload {
        checksum_algorithm,
        checksum_type,
        initiated: Some(session.initiated.into()),
        key: Some(session.key),
        upload_id: Some(upload_id),
        ..Default::default()
    }
}

/// The response to `ListObjectsV2`. Keys that are equal from the prefix up to the delimiter become one common prefix.
/// The continuation token is the last key or common prefix of the previous page.
pub(super) fn objects(
    input: ListObjectsV2Input,
    mut objects: Vec<Manifest>,
) -> S3Result<ListObjectsV2Output> {
    let limit = page_limit(input.max_keys)?;
    let start = match &input.continuation_token {
        Some(token) => decode_token(token)?,
        None => input.start_after.clone().unwrap_or_default(),
    };
    let prefix = input.prefix.as_deref().unwrap_or_default();
    let delimiter = input
        .delimiter
        .as_deref()
        .filter(|delimiter| !delimiter.is_empty());
    objects.retain(|object| object.key.starts_with(prefix));
    objects.sort_by(|left, right| left.key.cmp(&right.key));

    let (mut contents, mut common_prefixes) = (Vec::new(), Vec::<String>::new());
    let mut last = String::new();
    let mut truncated = false;
    for object in objects {
        let group = delimiter.and_then(|delimiter| {
            let end = object.key[prefix.len()..].find(delimiter)? + prefix.len() + delimiter.len();
            Some(object.key[..end].to_owned())
        });
        let entry = group.as_ref().unwrap_or(&object.key);
        if *entry <= start || common_prefixes.last() == Some(entry) {
            continue;
        }
        if contents.len() + common_prefixes.len() == limit {
            truncated = limit > 0;
            break;
        }
        last.clone_from(entry);
        match group {
            Some(group) => common_prefixes.push(group),
            None => contents.push(listed(object)?),
        }
    }
    Ok(ListObjectsV2Output {
        key_count: i32::try_from(contents.len() + common_prefixes.len()).ok(),
        common_prefixes: Some(
            common_prefixes
                .into_iter()
                .map(|prefix| CommonPrefix {
                    prefix: Some(prefix),
                })
                .collect(),
        ),
        contents: Some(contents),
        continuation_token: input.continuation_token,
        delimiter: input.delimiter,
        is_truncated: Some(truncated),
        max_keys: Some(input.max_keys.unwrap_or(PAGE)),
        name: Some(input.bucket),
        next_continuation_token: truncated.then(|| BASE64_URL_SAFE_NO_PAD.encode(last)),
        prefix: input.prefix,
        start_after: input.start_after,
        ..Default::default()
    })
}

fn listed(object: Manifest) -> S3Result<Object> {
    Ok(Object {
        size: Some(length(object.size())?),
        e_tag: Some(ETag::Strong(object.etag)),
        key: Some(object.key),
        last_modified: Some(object.modified.into()),
        ..Default::default()
    })
}

fn decode_token(token: &str) -> S3Result<String> {
    let key = BASE64_URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|key| String::from_utf8(key).ok());
    key.ok_or_else(|| s3_error!(InvalidArgument, "the continuation token is invalid"))
}
