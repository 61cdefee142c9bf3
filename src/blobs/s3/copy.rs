//! Copies that S3 makes by itself: CopyObject and UploadPartCopy.
//!
//! Both are signed with the credentials of the copy, which must be allowed to read the source: `s3:GetObject`. Metadata and tags
//! are those of the copy, so `s3:GetObjectTagging` is not needed.

use async_trait::async_trait;
use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    types::{MetadataDirective, TaggingDirective},
};
use upload_gateway_core::{
    blobs::{
        Copied, CopySource, CopyStore, NewObject, PartCopy, Session, cannot_copy, object_changed,
    },
    clock::Clock,
    error::{Error, Result},
};

use super::{
    Etags, S3Store,
    entity_tag::{entity_tag, is_opaque, md5_of},
    fault::{fault, is_copy_refusal},
    http::config_with,
    metadata, part_number,
    placement::with_headers,
    session_lost,
};
use crate::blobs::url::path;

/// The time-out of a request that copies is that of a commit: a store can answer after it has copied the bytes.
#[async_trait]
impl CopyStore for S3Store {
    fn copy_service(&self) -> Option<&str> {
        Some(&self.service)
    }

    async fn copy_source(&self, key: &str, etag: &str, _: &dyn Clock) -> Result<CopySource> {
        Ok(CopySource {
            address: format!("{}/{}", self.bucket, path(key)),
            etag: etag.to_owned(),
        })
    }

    async fn copy_object(&self, object: &NewObject, source: &CopySource) -> Result<()> {
        let answer = self
            .client
            .copy_object()
            .bucket(&self.bucket)
            .key(&object.key)
            .copy_source(&source.address)
            .copy_source_if_match(quoted(&source.etag))
            .metadata_directive(MetadataDirective::Replace)
            .tagging_directive(TaggingDirective::Replace)
            .content_type(&object.mime)
            .set_metadata(metadata(object))
            .set_acl(self.acl.clone())
            .customize()
            .config_override(config_with(self.commit_timeout, self.commit_timeout))
            .map_request(with_headers(&object.placement))
            .send()
            .await;
        let output = answer.map_err(|error| failed("copy an object", error))?;
        output.copy_object_result.map(drop).ok_or_else(ignored)
    }

    async fn copy_part(
        &self,
        session: &Session<'_>,
        part: &PartCopy,
        source: &CopySource,
    ) -> Result<Copied> {
        // Ranges of small objects are refused.
        let range = format!("bytes={}-{}", part.range.start, part.range.end - 1);
        let answer = self
            .client
            .upload_part_copy()
            .bucket(&self.bucket)
            .key(session.key)
            .upload_id(session.id)
            .part_number(part_number(part.number)?)
            .copy_source(&source.address)
            .copy_source_if_match(quoted(&source.etag))
            .set_copy_source_range((!part.is_whole).then_some(range))
            .customize()
            .config_override(config_with(self.commit_timeout, self.commit_timeout))
            .send()
            .await;
        let output = answer.map_err(|error| failed("copy a part", error))?;
        let has_digests = self.etags == Etags::Md5
            && !is_opaque(output.server_side_encryption.as_ref())
            && output.sse_customer_algorithm.is_none();
        let result = output.copy_part_result.ok_or_else(ignored)?;
        let receipt = entity_tag(result.e_tag(), "copy a part")?;
        Ok(Copied {
            md5: md5_of(&receipt).filter(|_| has_digests),
            receipt,
        })
    }
}

fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

fn failed<E>(action: &str, error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error.code() {
        Some("PreconditionFailed") => object_changed().caused_by(error),
        Some("NoSuchUpload") => session_lost(error),
        _ if is_copy_refusal(&error) => {
            cannot_copy(format!("{action}: the store refuses it")).caused_by(error)
        }
        _ => fault(action, error),
    }
}

/// The store has put an empty body instead: it does not know the header that names the source.
fn ignored() -> Error {
    cannot_copy("the response of the store has no result of a copy")
}
