//! Lists the parts of a multipart upload, page by page.

use aws_sdk_s3::{error::ProvideErrorMetadata, operation::list_parts::ListPartsOutput, types};
use upload_gateway_core::{
    blobs::{Session, StoredPart},
    error::Result,
    upload::Integrity,
};

use super::{
    MAX_PARTS, S3Store, crc64,
    entity_tag::{entity_tag, md5_of},
    fault::{fault, page_without_progress},
    size,
};

const ACTION: &str = "list the parts";

// === impl S3Store ===

impl S3Store {
    /// See [`MultipartStore::list_parts`](upload_gateway_core::blobs::MultipartStore::list_parts).
    ///
    /// Not with the SDK's paginator: it asks for the first page again after a page without a marker, forever.
    pub(super) async fn parts_in(&self, session: &Session<'_>) -> Result<Option<Vec<StoredPart>>> {
        let mut parts = Vec::new();
        let mut marker = 0;
        loop {
            let request = self
                .client
                .list_parts()
                .bucket(&self.bucket)
                .key(session.key)
                .upload_id(session.id)
                .set_part_number_marker((marker > 0).then(|| marker.to_string()));
            let page = match request.send().await {
                Ok(page) => page,
                Err(error) if error.code() == Some("NoSuchUpload") => return Ok(None),
                Err(error) => return Err(fault(ACTION, error)),
            };
            let integrity = crc64::integrity(page.checksum_algorithm(), page.checksum_type());
            for part in page.parts() {
                parts.push(stored_part(part, integrity)?);
            }
            match next_marker(&page, marker)? {
                Some(next) => marker = next,
                None => break,
            }
        }
        parts.sort_by_key(|part| part.number);
        Ok(Some(parts))
    }
}

/// The marker of the page after `page`, which was asked for with `marker`. `None` if it is the last page. Markers are
/// part numbers and must grow, so the number of pages is bounded by the number of parts.
///
/// # Errors
/// `Unavailable` if the next page would not continue.
fn next_marker(page: &ListPartsOutput, marker: u32) -> Result<Option<u32>> {
    if page.is_truncated() != Some(true) {
        return Ok(None);
    }
    let next = page.next_part_number_marker();
    next.and_then(|next| next.parse().ok())
        .filter(|next| (marker + 1..=MAX_PARTS).contains(next))
        .map(Some)
        .ok_or_else(|| page_without_progress(ACTION))
}

fn stored_part(part: &types::Part, integrity: Integrity) -> Result<StoredPart> {
    let etag = entity_tag(part.e_tag(), ACTION)?;
    Ok(StoredPart {
        md5: md5_of(&etag),
        crc64nvme: match integrity {
            Integrity::Md5 => None,
            Integrity::Crc64Nvme => crc64::whole(part.checksum_crc64_nvme(), None),
        },
        receipt: etag,
        writer: None,
        cut: 0,
        number: part.part_number().and_then(|number| number.try_into().ok()),
        size: size(part.size(), ACTION)?,
    })
}

#[cfg(test)]
mod tests {
    use upload_gateway_core::error::Kind;

    use super::*;

    fn page(next: Option<&str>) -> ListPartsOutput {
        ListPartsOutput::builder()
            .is_truncated(true)
            .set_next_part_number_marker(next.map(str::to_owned))
            .build()
    }

    #[test]
    fn a_page_continues_after_its_marker() {
        assert_eq!(next_marker(&page(Some("7")), 0).unwrap(), Some(7));
        assert_eq!(next_marker(&page(Some("8")), 7).unwrap(), Some(8));
        let last = ListPartsOutput::builder().is_truncated(false).build();
        assert_eq!(next_marker(&last, 7).unwrap(), None);
    }

    #[test]
    fn a_page_without_progress_is_a_temporary_error() {
        for next in [
            None,
            Some(""),
            Some("x"),
            Some("6"),
            Some("7"),
            Some("10001"),
        ] {
            let error = next_marker(&page(next), 7).unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable, "{next:?}");
        }
    }
}
