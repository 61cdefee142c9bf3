//! The S3 calls: each checks its input, calls the storage on a blocking thread, and builds the response.

use std::ops::Range;
use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use tokio::task::spawn_blocking;

use super::checksum::{self, NamedCrc};
use super::failure::{Failure, Outcome};
use super::list;
use super::read;
use super::receive::{Declared, Received, receive};
use super::storage::{Attributes, Manifest, Storage};
use super::uploads::{Completion, NamedPart};
use super::values::{hexadecimal, length};

/// The highest part number (S3's own limit).
const MAXIMUM_PART_NUMBER: u16 = 10_000;

/// The S3 calls on one storage.
#[derive(Debug)]
pub(super) struct Service {
    storage: Arc<Storage>,
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let algorithm = input.checksum_algorithm.as_ref();
        let crc64nvme = checksum::of_upload(algorithm, input.checksum_type.as_ref())?;
        let attributes = Attributes {
            cache_control: input.cache_control,
            content_disposition: input.content_disposition,
            content_encoding: input.content_encoding,
            content_language: input.content_language,
            content_type: input.content_type,
            metadata: input.metadata.unwrap_or_default(),
        };
        let key = input.key.clone();
        let upload_id = self
            .blocking(move |storage| storage.create_upload(key, attributes, crc64nvme))
            .await?;
        let (checksum_algorithm, checksum_type) = checksum::answered_upload(crc64nvme);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            checksum_algorithm,
            checksum_type,
            key: Some(input.key),
            upload_id: Some(upload_id),
            ..Default::default()
        }))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let declared = Declared {
            content_length: input.content_length,
            content_md5: input.content_md5,
            crc64nvme: NamedCrc {
                header: input.checksum_crc64nvme,
                trailers: request.trailing_headers,
            },
        };
        let received = receive(self.storage.temporary(), input.body, declared).await?;
        let number = part_number(input.part_number)?;
        let md5 = received.md5;
        let crc64nvme = self
            .blocking(move |storage| {
                storage.store_part(&input.key, &input.upload_id, number, received)
            })
            .await?;
        Ok(S3Response::new(UploadPartOutput {
            checksum_crc64nvme: crc64nvme.map(String::from),
            e_tag: Some(ETag::Strong(hexadecimal(&md5))),
            ..Default::default()
        }))
    }

    async fn list_parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        let limit = list::page_limit(input.max_parts)?;
        let after = u16::try_from(input.part_number_marker.unwrap_or(0))
            .map_err(|_| s3_error!(InvalidArgument, "part-number-marker is out of range"))?;
        let (key, upload_id) = (input.key.clone(), input.upload_id.clone());
        let listed = self
            .blocking(move |storage| storage.list_parts(&key, &upload_id, after, limit))
            .await?;
        Ok(S3Response::new(list::parts(input, listed)?))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let named = input
            .multipart_upload
            .and_then(|upload| upload.parts)
            .unwrap_or_default();
        if named.is_empty() {
            return Err(s3_error!(MalformedXML));
        }
        let completion = Completion {
            parts: named.into_iter().map(named_part).collect::<S3Result<_>>()?,
            only_new: only_new(input.if_match.as_ref(), input.if_none_match.as_ref())?,
            crc64nvme: checksum::parse(input.checksum_crc64nvme)?,
            size: input.mpu_object_size,
        };
        let key = input.key.clone();
        let manifest = self
            .blocking(move |storage| storage.complete(&key, &input.upload_id, &completion))
            .await?;
        let (checksum_crc64nvme, checksum_type) = checksum::answered(manifest.crc64nvme);
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            checksum_crc64nvme,
            checksum_type,
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(manifest.etag)),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        self.blocking(move |storage| storage.abort(&input.key, &input.upload_id))
            .await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let uploads = self.blocking(Storage::open_uploads).await?;
        Ok(S3Response::new(list::uploads(request.input, uploads)?))
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let declared = Declared {
            content_length: input.content_length,
            content_md5: input.content_md5,
            crc64nvme: NamedCrc {
                header: input.checksum_crc64nvme,
                trailers: request.trailing_headers,
            },
        };
        let received = receive(self.storage.temporary(), input.body, declared).await?;
        let only_new = only_new(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let attributes = Attributes {
            cache_control: input.cache_control,
            content_disposition: input.content_disposition,
            content_encoding: input.content_encoding,
            content_language: input.content_language,
            content_type: input.content_type,
            metadata: input.metadata.unwrap_or_default(),
        };
        let key = input.key;
        let manifest = self
            .blocking(move |storage| storage.put_object(key, attributes, only_new, received))
            .await?;
        let (checksum_crc64nvme, checksum_type) = checksum::answered(manifest.crc64nvme);
        Ok(S3Response::new(PutObjectOutput {
            checksum_crc64nvme,
            checksum_type,
            e_tag: Some(ETag::Strong(manifest.etag)),
            ..Default::default()
        }))
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = request.input;
        if input
            .metadata_directive
            .as_ref()
            .map(MetadataDirective::as_str)
            != Some(MetadataDirective::REPLACE)
        {
            return Err(s3_error!(NotImplemented, "metadata is not copied"));
        }
        let source = (&input.copy_source, input.copy_source_if_match);
        let received = self.copied(&input.bucket, source, None).await?;
        let attributes = Attributes {
            cache_control: input.cache_control,
            content_disposition: input.content_disposition,
            content_encoding: input.content_encoding,
            content_language: input.content_language,
            content_type: input.content_type,
            metadata: input.metadata.unwrap_or_default(),
        };
        let key = input.key;
        let manifest = self
            .blocking(move |storage| storage.put_object(key, attributes, false, received))
            .await?;
        let (checksum_crc64nvme, checksum_type) = checksum::answered(manifest.crc64nvme);
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                checksum_crc64nvme,
                checksum_type,
                e_tag: Some(ETag::Strong(manifest.etag)),
                last_modified: Some(manifest.modified.into()),
                ..Default::default()
            }),
            ..Default::default()
        }))
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = request.input;
        let number = part_number(input.part_number)?;
        let range = input.copy_source_range.as_deref();
        let range = range.map(copied_range).transpose()?;
        let source = (&input.copy_source, input.copy_source_if_match);
        let received = self.copied(&input.bucket, source, range).await?;
        let md5 = received.md5;
        let crc64nvme = self
            .blocking(move |storage| {
                storage.store_part(&input.key, &input.upload_id, number, received)
            })
            .await?;
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(CopyPartResult {
                checksum_crc64nvme: crc64nvme.map(String::from),
                e_tag: Some(ETag::Strong(hexadecimal(&md5))),
                ..Default::default()
            }),
            ..Default::default()
        }))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        refuse_part_number(input.part_number)?;
        let manifest = self.object(input.key, input.if_match).await?;
        let size = manifest.size();
        let range = input.range.map(|range| range.check(size)).transpose()?;
        let content_range = range
            .as_ref()
            .map(|range| format!("bytes {}-{}/{size}", range.start, range.end - 1));
        // It is that of the whole object.
        let crc64nvme = manifest.crc64nvme.filter(|_| range.is_none());
        let (checksum_crc64nvme, checksum_type) =
            checksum::answered_if(input.checksum_mode.as_ref(), crc64nvme);
        let range = range.unwrap_or(0..size);
        let content_length = length(range.end - range.start)?;
        let body = read::stream(self.storage.segments(&manifest, &range));
        // s3s applies the response-… parameters of the query.
        let attributes = manifest.attributes;
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            body: Some(body),
            cache_control: attributes.cache_control,
            checksum_crc64nvme,
            checksum_type,
            content_disposition: attributes.content_disposition,
            content_encoding: attributes.content_encoding,
            content_language: attributes.content_language,
            content_length: Some(content_length),
            content_range,
            content_type: Some(content_type(attributes.content_type)),
            e_tag: Some(ETag::Strong(manifest.etag)),
            last_modified: Some(manifest.modified.into()),
            metadata: Some(attributes.metadata),
            ..Default::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        refuse_part_number(input.part_number)?;
        let manifest = self.object(input.key, input.if_match).await?;
        let content_length = length(manifest.size())?;
        let (checksum_crc64nvme, checksum_type) =
            checksum::answered_if(input.checksum_mode.as_ref(), manifest.crc64nvme);
        let attributes = manifest.attributes;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            cache_control: attributes.cache_control,
            checksum_crc64nvme,
            checksum_type,
            content_disposition: attributes.content_disposition,
            content_encoding: attributes.content_encoding,
            content_language: attributes.content_language,
            content_length: Some(content_length),
            content_type: Some(content_type(attributes.content_type)),
            e_tag: Some(ETag::Strong(manifest.etag)),
            last_modified: Some(manifest.modified.into()),
            metadata: Some(attributes.metadata),
            ..Default::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.blocking(move |storage| storage.delete_object(&request.input.key))
            .await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn head_bucket(
        &self,
        _: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        // `Keys::check` has compared the bucket.
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let objects = self.blocking(Storage::objects).await?;
        Ok(S3Response::new(list::objects(request.input, objects)?))
    }
}

// === impl Service ===

impl Service {
    pub(super) fn new(storage: Arc<Storage>) -> Self {
        Self { storage }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Storage) -> Outcome<T> + Send + 'static,
    ) -> S3Result<T> {
        let storage = Arc::clone(&self.storage);
        let outcome = spawn_blocking(move || call(&storage))
            .await
            .map_err(Failure::from)?;
        outcome.map_err(S3Error::from)
    }

    /// The bytes of a source, or a range of them, as a body that was received.
    async fn copied(
        &self,
        bucket: &str,
        (source, if_match): (&CopySource, Option<ETagCondition>),
        range: Option<Range<u64>>,
    ) -> S3Result<Received> {
        let key = match source {
            CopySource::Bucket {
                bucket: of,
                key,
                version_id: None,
            } if **of == *bucket => key.to_string(),
            CopySource::Bucket {
                version_id: None, ..
            } => return Err(s3_error!(NoSuchBucket)),
            _ => return Err(s3_error!(NotImplemented, "a source is BUCKET/KEY")),
        };
        let manifest = self.object(key, if_match).await?;
        let size = manifest.size();
        let range = range.unwrap_or(0..size);
        if range.end > size {
            return Err(s3_error!(InvalidArgument, "the source has {size} bytes"));
        }
        let body = read::stream(self.storage.segments(&manifest, &range));
        let declared = Declared {
            content_length: Some(length(range.end - range.start)?),
            ..Default::default()
        };
        let received = receive(self.storage.temporary(), Some(body), declared);
        Ok(received.await?)
    }

    async fn object(&self, key: String, if_match: Option<ETagCondition>) -> S3Result<Manifest> {
        let object = self.blocking(move |storage| storage.object(&key)).await?;
        let object = object.ok_or_else(|| s3_error!(NoSuchKey))?;
        match if_match {
            Some(ETagCondition::ETag(etag)) if etag.value() != object.etag => {
                Err(s3_error!(PreconditionFailed))
            }
            _ => Ok(object),
        }
    }
}

fn part_number(number: i32) -> S3Result<u16> {
    let number = u16::try_from(number)
        .ok()
        .filter(|number| (1..=MAXIMUM_PART_NUMBER).contains(number));
    number.ok_or_else(|| s3_error!(InvalidArgument, "part numbers are 1 to 10,000"))
}

/// A range of the bytes of a source, such as `bytes=0-9`.
fn copied_range(text: &str) -> S3Result<Range<u64>> {
    let bounds = text
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'));
    let bounds = bounds.and_then(|(first, last)| {
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        Some(first..last.checked_add(1)?)
    });
    let range = bounds.filter(|range| !range.is_empty());
    range.ok_or_else(|| s3_error!(InvalidArgument, "a range is bytes=FIRST-LAST"))
}

fn named_part(part: CompletedPart) -> S3Result<NamedPart> {
    let etag = part.e_tag.ok_or_else(|| s3_error!(MalformedXML))?;
    Ok(NamedPart {
        number: part_number(part.part_number.ok_or_else(|| s3_error!(MalformedXML))?)?,
        etag: etag.into_value(),
        crc64nvme: checksum::parse(part.checksum_crc64nvme)?,
    })
}

/// Whether a write must not replace an object. Other conditions are refused, not ignored.
fn only_new(
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<bool> {
    match (if_match, if_none_match) {
        (None, None) => Ok(false),
        (None, Some(ETagCondition::Any)) => Ok(true),
        _ => Err(s3_error!(
            NotImplemented,
            "the only condition on writes is If-None-Match: *"
        )),
    }
}

fn refuse_part_number(part_number: Option<i32>) -> S3Result<()> {
    part_number.map_or(Ok(()), |_| {
        Err(s3_error!(
            NotImplemented,
            "objects are not read by part number"
        ))
    })
}

fn content_type(given: Option<String>) -> String {
    given.unwrap_or_else(|| "binary/octet-stream".to_owned())
}
