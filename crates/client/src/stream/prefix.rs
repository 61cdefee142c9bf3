//! Whether a source begins with the committed parts of an upload that was begun earlier.

use super::source::SourceReader;
use crate::{
    error::ClientError,
    options::Transport,
    proto::v1::{
        GetUploadRequest, ListPartsRequest, Part, Phase, upload_service_client::UploadServiceClient,
    },
};

/// The parts of one upload that are still to be compared with the source.
#[derive(Debug)]
pub(super) struct UncheckedParts {
    upload_id: String,
    /// The next page of parts. Empty: the first one.
    page_token: String,
}

// === impl UncheckedParts ===

impl UncheckedParts {
    pub(super) fn of(upload_id: String) -> Self {
        Self {
            upload_id,
            page_token: String::new(),
        }
    }

    /// Compares the source with the size of the file, and with the MD5s of the parts. After a failed call the next try
    /// continues with the page that failed: the bytes of a pipe can be read once.
    ///
    /// # Errors
    /// `OtherFile` if they differ; `Refused`; `Source`.
    pub(super) async fn check(
        &mut self,
        uploads: &mut UploadServiceClient<Transport>,
        reader: &mut SourceReader,
    ) -> Result<(), ClientError> {
        if self.page_token.is_empty() && !self.has_parts(uploads, reader).await? {
            return Ok(());
        }
        loop {
            let request = ListPartsRequest {
                upload_id: self.upload_id.clone(),
                page_token: self.page_token.clone(),
                ..ListPartsRequest::default()
            };
            let page = uploads.list_parts(request).await?.into_inner();
            for part in page.parts {
                // Parts after a gap do not count as committed, and are sent again.
                if u64::try_from(part.offset) != Ok(reader.position()) {
                    return Ok(());
                }
                self.compare(&part, reader).await?;
            }
            if page.next_page_token.is_empty() {
                return Ok(());
            }
            self.page_token = page.next_page_token;
        }
    }

    /// Compares the sizes, and goes to the beginning of the source. False: the upload is not open, which the open reports.
    async fn has_parts(
        &self,
        uploads: &mut UploadServiceClient<Transport>,
        reader: &mut SourceReader,
    ) -> Result<bool, ClientError> {
        let request = GetUploadRequest {
            upload_id: self.upload_id.clone(),
        };
        let upload = uploads.get_upload(request).await?.into_inner();
        if upload.phase() != Phase::Open {
            return Ok(false);
        }
        let file_size = upload.file.and_then(|file| file.file_size);
        if let (Some(size), Some(expected)) = (reader.size(), file_size)
            && u64::try_from(expected) != Ok(size)
        {
            return Err(self.other(format!("its size is {size}, not {expected}")));
        }
        reader.seek(0).await?;
        Ok(true)
    }

    /// Reads the bytes of the next part and compares their digests. A part without one is only read.
    async fn compare(&self, part: &Part, reader: &mut SourceReader) -> Result<(), ClientError> {
        let size = u64::try_from(part.size).unwrap_or_default();
        let Some(found) = reader.next_digests(size).await? else {
            let end = part.offset.saturating_add(part.size);
            return Err(self.other(format!("it has fewer than the {end} committed bytes")));
        };
        let Some(digest) = found.other_than(&part.md5, part.crc64nvme) else {
            return Ok(());
        };
        let (number, offset) = (part.part, part.offset);
        Err(self.other(format!(
            "part {number}, at byte {offset}, has another {digest}"
        )))
    }

    fn other(&self, difference: String) -> ClientError {
        ClientError::OtherFile {
            upload_id: self.upload_id.clone(),
            difference,
        }
    }
}
