//! Multipart uploads.

use async_trait::async_trait;
use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        create_multipart_upload::{CreateMultipartUploadError, CreateMultipartUploadOutput},
        upload_part::{UploadPartError, UploadPartOutput},
    },
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart},
};
use bytes::Bytes;
use upload_gateway_core::{
    blobs::{
        Begun, Commit, MultipartStore, NewObject, NewPart, Session, SessionPage, StoredPart,
        part_damaged, unproven,
    },
    error::{Error, Result},
    upload::{Checksum, Crc64Nvme, Integrity, Md5, Part, WriterTag},
};

use super::{
    Etags, S3Store, crc64,
    entity_tag::{entity_tag, is_opaque, md5_of},
    fault::{fault, is_about_checksum, is_damage, is_refusal},
    http::config_with,
    metadata, part_number,
    placement::with_headers,
    session_lost,
};

/// The bytes of a part with an MD5 only.
const PLAIN: &[u8] = b"plain";

// === impl S3Store ===

impl S3Store {
    async fn create(
        &self,
        object: &NewObject,
        integrity: Integrity,
    ) -> Result<CreateMultipartUploadOutput, SdkError<CreateMultipartUploadError, HttpResponse>>
    {
        let request = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(&object.key)
            .content_type(&object.mime)
            .set_metadata(metadata(object))
            .set_acl(self.acl.clone());
        let request = match integrity {
            Integrity::Md5 => request,
            Integrity::Crc64Nvme => request
                .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
                .checksum_type(ChecksumType::FullObject),
        };
        request
            .customize()
            .map_request(with_headers(&object.placement))
            .send()
            .await
    }

    /// Puts a part, and returns the answer of the store.
    async fn send(
        &self,
        session: &Session<'_>,
        part: NewPart,
    ) -> Result<Result<UploadPartOutput, SdkError<UploadPartError, HttpResponse>>> {
        let (md5, crc64) = (part.checksum.md5(), part.checksum.crc64nvme());
        let answer = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(session.key)
            .upload_id(session.id)
            .part_number(part_number(part.number)?)
            .set_content_md5(md5.map(|md5| md5.to_string()))
            .set_checksum_crc64_nvme(crc64.map(|crc64| crc64.to_string()))
            .body(ByteStream::from(part.body))
            .customize()
            .config_override(self.for_puts())
            .disable_payload_signing()
            .send()
            .await;
        Ok(answer)
    }

    /// Compares the MD5 of a part with its ETag, if that is an MD5.
    fn check_md5(
        &self,
        output: &UploadPartOutput,
        etag: &str,
        (number, md5): (u32, Md5),
    ) -> Result<()> {
        let has_digests = self.etags == Etags::Md5
            && !is_opaque(output.server_side_encryption.as_ref())
            && output.sse_customer_algorithm.is_none();
        match md5_of(etag) {
            Some(found) if found != md5 && has_digests => Err(part_damaged(format!(
                "part {number} has ETag {etag} in the store, and MD5 {} here",
                md5.to_hex()
            ))),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl MultipartStore for S3Store {
    async fn begin(&self, object: &NewObject) -> Result<Begun> {
        if object.integrity == Integrity::Crc64Nvme {
            match self.create(object, Integrity::Crc64Nvme).await {
                Err(error) if is_about_checksum(error.code()) => {}
                created => return begun(created, Integrity::Crc64Nvme),
            }
        }
        begun(self.create(object, Integrity::Md5).await, Integrity::Md5)
    }

    async fn put_part(&self, session: &Session<'_>, part: NewPart) -> Result<String> {
        let (number, checksum) = (part.number, part.checksum);
        let answer = self.send(session, part).await?;
        let output = answer.map_err(|error| match error.code() {
            Some("NoSuchUpload") => session_lost(error),
            code if is_damage(code) => part_damaged(error),
            _ => fault("put a part", error),
        })?;
        let etag = entity_tag(output.e_tag(), "put a part")?;
        match checksum {
            Checksum::Md5(md5) => self.check_md5(&output, &etag, (number, md5))?,
            Checksum::Crc64Nvme(crc64) => check_crc64(&output, (number, crc64))?,
        }
        Ok(etag)
    }

    async fn takes_plain_parts(&self, object: &NewObject) -> Result<bool> {
        let begun = self.begin(object).await?;
        let session = Session {
            key: &object.key,
            id: &begun.id,
            scope: None,
        };
        let part = NewPart {
            number: 1,
            writer: WriterTag::random(),
            checksum: Md5::of(PLAIN).into(),
            body: Bytes::from_static(PLAIN),
        };
        let answer = self.send(&session, part).await?;
        if let Err(error) = self.abort(&session).await {
            tracing::warn!(key = object.key, %error, "a multipart upload with which the store was asked about MD5s could not be aborted");
        }
        match answer {
            Ok(_) => Ok(true),
            Err(error) if is_about_checksum(error.code()) => Ok(false),
            Err(error) => Err(fault("put a part", error)),
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
        object: &NewObject,
        parts: &[Part],
    ) -> Result<Commit> {
        // Other sessions refuse or ignore them.
        let named_crc64 = |crc64: Option<Crc64Nvme>| match object.integrity {
            Integrity::Md5 => None,
            Integrity::Crc64Nvme => crc64.map(|crc64| crc64.to_string()),
        };
        let mut named = Vec::with_capacity(parts.len());
        for part in parts {
            let part = CompletedPart::builder()
                .part_number(part_number(part.number)?)
                .e_tag(format!("\"{}\"", part.receipt))
                .set_checksum_crc64_nvme(named_crc64(part.crc64nvme()));
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
            .set_checksum_crc64_nvme(named_crc64(object.crc64nvme))
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

fn begun(
    created: Result<
        CreateMultipartUploadOutput,
        SdkError<CreateMultipartUploadError, HttpResponse>,
    >,
    asked: Integrity,
) -> Result<Begun> {
    let output = created.map_err(|error| fault("begin a multipart upload", error))?;
    let named = crc64::integrity(output.checksum_algorithm(), output.checksum_type());
    let id = output.upload_id.filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| {
        Error::store_unavailable("begin a multipart upload: the response has no upload id")
    })?;
    Ok(Begun {
        id,
        integrity: match asked {
            Integrity::Md5 => Integrity::Md5,
            Integrity::Crc64Nvme => named,
        },
    })
}

/// Compares the CRC-64 of a part with the one that the store names. Without it nothing proves the bytes.
fn check_crc64(output: &UploadPartOutput, (number, crc64): (u32, Crc64Nvme)) -> Result<()> {
    match output.checksum_crc64_nvme() {
        Some(found) if found.parse() == Ok(crc64) => Ok(()),
        Some(found) => Err(part_damaged(format!(
            "part {number} has CRC64NVME {found} in the store, and {crc64} here"
        ))),
        None => Err(unproven("put a part")),
    }
}
