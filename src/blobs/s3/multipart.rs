//! Multipart uploads.

use async_trait::async_trait;
use aws_sdk_s3::{
    error::ProvideErrorMetadata,
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use upload_gateway_core::{
    blobs::{
        Commit, MultipartStore, NewObject, NewPart, Session, SessionPage, StoredPart, part_damaged,
    },
    error::{Error, Result},
    upload::{Part, WriterTag},
};

use super::{
    Etags, S3Store,
    entity_tag::{entity_tag, is_opaque, md5_of},
    fault::{fault, is_refusal},
    http::config_with,
    metadata, part_number,
    placement::with_headers,
    session_lost,
};

#[async_trait]
impl MultipartStore for S3Store {
    async fn begin(&self, object: &NewObject) -> Result<String> {
        let output = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(&object.key)
            .content_type(&object.mime)
            .set_metadata(metadata(object))
            .set_acl(self.acl.clone())
            .customize()
            .map_request(with_headers(&object.placement))
            .send()
            .await
            .map_err(|error| fault("begin a multipart upload", error))?;
        let id = output.upload_id.filter(|id| !id.is_empty());
        id.ok_or_else(|| {
            Error::store_unavailable("begin a multipart upload: the response has no upload id")
        })
    }

    async fn put_part(&self, session: &Session<'_>, part: NewPart) -> Result<String> {
        let output = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(session.key)
            .upload_id(session.id)
            .part_number(part_number(part.number)?)
            .content_md5(part.md5.to_string())
            .body(ByteStream::from(part.body))
            .customize()
            .config_override(self.for_puts())
            .disable_payload_signing()
            .send()
            .await
            .map_err(|error| match error.code() {
                Some("NoSuchUpload") => session_lost(error),
                Some("BadDigest") => part_damaged(error),
                _ => fault("put a part", error),
            })?;
        let etag = entity_tag(output.e_tag.as_deref(), "put a part")?;
        let has_digests = self.etags == Etags::Md5
            && !is_opaque(output.server_side_encryption.as_ref())
            && output.sse_customer_algorithm.is_none();
        match md5_of(&etag) {
            Some(md5) if md5 != part.md5 && has_digests => Err(part_damaged(format!(
                "part {} has ETag {etag} in the store, and MD5 {} here",
                part.number,
                part.md5.to_hex()
            ))),
            _ => Ok(etag),
        }
    }

    async fn list_parts(&self, session: &Session<'_>) -> Result<Option<Vec<StoredPart>>> {
        self.parts_in(session).await
    }

    fn writer(&self, _receipt: &str) -> Option<WriterTag> {
        None
    }

    async fn commit(
        &self,
        session: &Session<'_>,
        _object: &NewObject,
        parts: &[Part],
    ) -> Result<Commit> {
        let mut named = Vec::with_capacity(parts.len());
        for part in parts {
            let part = CompletedPart::builder()
                .part_number(part_number(part.number)?)
                .e_tag(format!("\"{}\"", part.receipt));
            named.push(part.build());
        }
        let named = CompletedMultipartUpload::builder()
            .set_parts(Some(named))
            .build();
        let answer = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(session.key)
            .upload_id(session.id)
            .multipart_upload(named)
            .customize()
            .config_override(config_with(self.commit_timeout, self.commit_timeout))
            .send()
            .await;
        // The SDK returns an error with status 200 as an `Err`.
        match answer {
            Ok(output) => entity_tag(output.e_tag(), "commit").map(|_| Commit::Done),
            Err(error) => match error.code() {
                Some("NoSuchUpload") => Ok(Commit::SessionGone),
                Some("InvalidPart") => Ok(Commit::PartReplaced),
                code if is_refusal(code) => Ok(Commit::Refused),
                _ => Err(fault("commit", error)),
            },
        }
    }

    async fn abort(&self, session: &Session<'_>) -> Result<()> {
        let answer = self
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(session.key)
            .upload_id(session.id)
            .send()
            .await;
        match answer {
            Err(error) if error.code() != Some("NoSuchUpload") => Err(fault("abort", error)),
            _ => Ok(()),
        }
    }

    async fn list_sessions(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Option<SessionPage>> {
        self.session_page(prefix, after).await.map(Some)
    }
}
