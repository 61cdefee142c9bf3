//! S3, and stores with its protocol, through the AWS SDK.
//!
//! The payload of a part is not hashed for its signature: its checksum is one of the signed headers and the store
//! checks it, while a SHA-256 of every part would cost 0.8 CPU seconds per GiB. The SDK gets a part's bytes without a
//! copy.
//!
//! Required permissions: `s3:PutObject`, `s3:GetObject`, `s3:DeleteObject`, `s3:AbortMultipartUpload`,
//! `s3:ListMultipartUploadParts`, `s3:ListBucket`, `s3:ListBucketMultipartUploads` (for the sweeper); with `acl` also
//! `s3:PutObjectAcl`, with object tags `s3:PutObjectTagging`, and with a KMS key `kms:GenerateDataKey` and `kms:Decrypt`. For
//! copies from another bucket that the store makes by itself, `s3:GetObject` on the source; without it the gateway copies the bytes.
//!
//! MinIO does not list multipart uploads by key prefix: it removes incomplete ones itself, by default after 24 hours.

mod config;
mod copy;
mod cors;
mod crc64;
mod credentials;
mod entity_tag;
mod fault;
mod http;
mod inspection;
mod multipart;
mod objects;
mod parts;
mod placement;
mod sessions;
mod settings;
mod sign;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    time::Duration,
};

use async_trait::async_trait;
use aws_config::{
    Region, retry::RetryConfig, stalled_stream_protection::StalledStreamProtectionConfig,
};
use aws_sdk_s3::{
    Client,
    config::{IdentityCache, RequestChecksumCalculation, ResponseChecksumValidation},
    error::ProvideErrorMetadata,
    operation::put_object::builders::PutObjectFluentBuilder,
    primitives::ByteStream,
    types::{ChecksumMode, ObjectCannedAcl},
};
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use upload_gateway_core::{
    blobs::{
        BlobStore, Capabilities, NewObject, ObjectPage, ObjectStore, PUT_TIMEOUT, Put,
        StoredObject, StoredPart, StoredPut, contradiction, object_archived, object_changed,
        object_not_found, part_damaged,
        sign::{SignedRequest, Signer, ToSign},
        unproven,
    },
    clock::Clock,
    error::{Error, Kind, Reason, Result},
    upload::{Checksum, CompositeMd5, Digests, Features, MIB, StoreKind, StoreLimits, Timestamp},
};

pub use self::config::{Etags, Profile, S3Config, SseMethod};
pub(crate) use self::http::SdkClient;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use self::sign::fuzzing;
use self::{
    credentials::CachedCredentials,
    entity_tag::{entity_tag, is_opaque, md5_of},
    fault::{fault, is_damage},
    http::{config_with, timeouts},
    placement::with_headers,
    sign::QuerySigner,
};
use crate::values::Endpoint;

/// The region if neither the configuration nor the environment names one; stores other than AWS accept any.
const DEFAULT_REGION: &str = "us-east-1";

/// 10,000 parts of at most 5 GiB. <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
const MAX_PARTS: u32 = 10_000;
const MAX_PART_SIZE: u64 = 5 * 1024 * MIB;

/// A bucket.
///
/// ```no_run
/// # use upload_gateway::blobs::s3::{S3Config, S3Store};
/// # async fn connect() -> upload_gateway_core::error::Result<S3Store> {
/// S3Store::connect(S3Config::new("media")).await
/// # }
/// ```
#[derive(Debug)]
pub struct S3Store {
    client: Client,
    signer: QuerySigner,
    credentials: CachedCredentials,
    bucket: String,
    /// The endpoint and the region: credentials that are valid for one bucket of both can be so for another one.
    service: String,
    acl: Option<ObjectCannedAcl>,
    etags: Etags,
    features: Features,
    limits: StoreLimits,
    operation_timeout: Duration,
    commit_timeout: Duration,
}

// === impl S3Store ===

impl S3Store {
    /// Prepares a client; does not contact the store.
    ///
    /// # Errors
    /// `Internal` if only one of `access_key_id` and `secret_access_key` is set, or `ca_file` cannot be used.
    pub async fn connect(config: S3Config) -> Result<Self> {
        let http_client = Self::http_client(&config)?;
        let shared = config.load(http_client.clone()).await?;
        let provider = shared
            .credentials_provider()
            .ok_or_else(|| Error::fault("the SDK has no provider of credentials"))?;
        let credentials = CachedCredentials::new(provider);
        let region = shared.region().cloned();
        let region = region.unwrap_or_else(|| Region::new(DEFAULT_REGION));
        let mut builder = aws_sdk_s3::config::Builder::from(&shared)
            .region(region.clone())
            .force_path_style(config.profile() != Profile::Aws)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts(config.operation_timeout, config.operation_timeout))
            .http_client(http_client)
            .credentials_provider(credentials.clone())
            .identity_cache(IdentityCache::no_cache());
        if let Some(endpoint) = &config.endpoint {
            builder = builder.endpoint_url(sdk_url(endpoint));
        }
        let mut public = builder.clone();
        if let Some(endpoint) = &config.public_endpoint {
            public = public.endpoint_url(sdk_url(endpoint));
        }
        let endpoint = config.endpoint.as_ref();
        let endpoint = endpoint.map_or_else(|| "aws".to_owned(), ToString::to_string);
        Ok(Self {
            service: format!("s3 {endpoint} {region}"),
            signer: QuerySigner::new(&config.bucket, public, region, credentials.clone()).await?,
            credentials,
            acl: config.acl.as_deref().map(ObjectCannedAcl::from),
            etags: config.etags,
            features: config.features,
            client: Client::from_conf(builder.build()),
            limits: StoreLimits {
                max_parts: MAX_PARTS,
                max_part_size: MAX_PART_SIZE,
                max_object_size: config.max_object_size,
                equal_parts: config.profile() == Profile::EqualParts,
            },
            bucket: config.bucket,
            operation_timeout: config.operation_timeout,
            commit_timeout: config.commit_timeout,
        })
    }

    fn http_client(config: &S3Config) -> Result<SdkClient> {
        SdkClient::new(config.ca_file.as_deref())
            .map_err(|error| Error::internal("trust the authorities in ca_file", error))
    }

    /// One HEAD request. `None` for every refusal: the answer to HEAD has no body, and so no error code.
    async fn describe(&self, key: &str) -> Result<Option<StoredObject>> {
        let request = self.client.head_object().bucket(&self.bucket).key(key);
        let request = request.checksum_mode(ChecksumMode::Enabled);
        let output = match request.send().await {
            Ok(output) => output,
            Err(error) if matches!(fault::status(&error), Some(400 | 401 | 403 | 404)) => {
                return Ok(None);
            }
            Err(error) => return Err(fault("describe an object", error)),
        };
        let etag = entity_tag(output.e_tag(), "describe an object")?;
        let is_encrypted = is_opaque(output.server_side_encryption.as_ref())
            || output.sse_customer_algorithm.is_some();
        let placement = Box::new(placement::placement(&output));
        let is_archived = placement::is_archived(&output);
        let crc64nvme = crc64::whole(output.checksum_crc64_nvme(), output.checksum_type());
        let metadata = output.metadata.unwrap_or_default();
        Ok(Some(StoredObject {
            md5: md5_of(&etag),
            composite: CompositeMd5::of_etag(&etag),
            crc64nvme,
            has_digests: self.etags == Etags::Md5 && !is_encrypted,
            etag,
            size: size(output.content_length, "describe an object")?,
            modified_at: output.last_modified.as_ref().and_then(sessions::timestamp),
            metadata: metadata
                .into_iter()
                .map(|(key, value)| (key.to_ascii_lowercase(), value))
                .collect::<BTreeMap<_, _>>(),
            mime: output.content_type,
            placement,
            is_archived,
        }))
    }

    /// Whether there is an object, by a GET request of one byte: its answer has an error code.
    async fn has_object(&self, key: &str) -> Result<bool> {
        let request = self.client.get_object().bucket(&self.bucket).key(key);
        match request.range("bytes=0-0").send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.code() {
                Some("NoSuchKey") => Ok(false),
                // It is empty, or archived.
                Some("InvalidRange" | "InvalidObjectState") => Ok(true),
                _ => Err(fault("look for an object", error)),
            },
        }
    }

    /// The code with which the store refuses the bucket, by a list: the answer to HEAD has no body, and so no code.
    async fn refusal(&self) -> Option<String> {
        let list = self.client.list_objects_v2().bucket(&self.bucket);
        let error = list.max_keys(1).send().await.err()?;
        let error = fault("list the objects", error);
        error.operator_code().map(str::to_owned)
    }

    /// A request that puts a whole object, without the headers of its placement.
    fn put(&self, object: &NewObject, body: Bytes) -> PutObjectFluentBuilder {
        let checksum = object.checksum();
        let md5 = checksum.and_then(Checksum::md5);
        let crc64 = checksum.and_then(Checksum::crc64nvme);
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(&object.key)
            .content_type(&object.mime)
            .set_metadata(metadata(object))
            .set_acl(self.acl.clone())
            .set_content_md5(md5.map(|md5| md5.to_string()))
            .set_checksum_crc64_nvme(crc64.map(|crc64| crc64.to_string()))
            .body(ByteStream::from(body))
    }

    /// For requests with the bytes of a part: without a limit for the whole request while its bytes move.
    fn for_puts(&self) -> aws_sdk_s3::config::Builder {
        config_with(self.operation_timeout, PUT_TIMEOUT)
    }
}

#[async_trait]
impl BlobStore for S3Store {
    fn kind(&self) -> StoreKind {
        StoreKind::S3
    }

    fn bucket(&self) -> &str {
        &self.bucket
    }

    fn limits(&self) -> StoreLimits {
        self.limits
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            creates_sessions: true,
            one_part_per_number: true,
            lists_part_digests: true,
            names_writers: false,
            binds_part_size: true,
            computes_object_md5: true,
            binds_placement: true,
            features: self.features,
        }
    }

    fn renew_credentials(&self) {
        self.credentials.forget();
    }

    fn credentials_expire_at(&self) -> Option<Timestamp> {
        self.credentials.expire_at()
    }

    async fn check(&self) -> Result<()> {
        let answer = self.client.head_bucket().bucket(&self.bucket).send().await;
        let Err(error) = answer else { return Ok(()) };
        let bucket = &self.bucket;
        let context = match fault::status(&error) {
            Some(404) => format!("there is no bucket {bucket}"),
            Some(401 | 403) => format!("the store refuses these credentials for {bucket}"),
            Some(301) => format!("bucket {bucket} is in another region"),
            _ => return Err(fault("check the bucket", error)),
        };
        Err(Error::internal(context, error).coded(self.refusal().await))
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put_object(&self, object: &NewObject, body: Bytes) -> Result<Put> {
        let request = self
            .put(object, body)
            .if_none_match("*")
            .customize()
            .config_override(self.for_puts())
            .map_request(with_headers(&object.placement));
        // Without a checksum the SHA-256 in the signature protects the payload.
        let answer = match object.checksum() {
            Some(_) => request.disable_payload_signing().send().await,
            None => request.send().await,
        };
        match answer {
            Ok(output) => {
                let etag = entity_tag(output.e_tag(), "put an object")?;
                // Of an object that is not encrypted with a key of KMS.
                let digests = Digests {
                    md5: etag.parse().ok(),
                    crc64nvme: crc64::whole(output.checksum_crc64_nvme(), output.checksum_type()),
                };
                if object.is_unproven_by(&digests) {
                    return Err(unproven("put an object"));
                }
                Ok(Put::Stored(StoredPut { etag, digests }))
            }
            Err(error) => match error.code() {
                Some("PreconditionFailed") => Ok(Put::Exists),
                code if is_damage(code) => Err(part_damaged(error)),
                Some("NotImplemented") => Err(Error::new(
                    Kind::Unimplemented,
                    Reason::NotOffered,
                    "the store does not support If-None-Match on puts",
                )
                .caused_by(error)),
                _ => Err(fault("put an object", error)),
            },
        }
    }

    async fn composition(&self, _key: &str) -> Result<Option<Vec<StoredPart>>> {
        Ok(None)
    }

    async fn head(&self, key: &str) -> Result<Option<StoredObject>> {
        if let Some(found) = self.describe(key).await? {
            return Ok(Some(found));
        }
        if !self.has_object(key).await? {
            return Ok(None);
        }
        let found = self.describe(key).await?;
        found.map(Some).ok_or_else(contradiction)
    }

    async fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        etag: Option<&str>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        if range.as_ref().is_some_and(Range::is_empty) {
            return Ok(stream::empty().boxed());
        }
        let range = range.map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        let output = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .set_range(range)
            .set_if_match(etag.map(|etag| format!("\"{etag}\"")))
            .send()
            .await
            .map_err(|error| match error.code() {
                Some("NoSuchKey") => object_not_found(key),
                Some("PreconditionFailed") => object_changed().caused_by(error),
                Some("InvalidObjectState") => object_archived().caused_by(error),
                _ => fault("read an object", error),
            })?;
        let chunks = stream::try_unfold(output.body, |mut body| async move {
            let chunk = body.try_next().await.map_err(Error::store_unavailable)?;
            Ok(chunk.map(|chunk| (chunk, body)))
        });
        Ok(chunks.boxed())
    }

    async fn put_placement(
        &self,
        _object: &NewObject,
        found: &StoredObject,
    ) -> Result<StoredObject> {
        Ok(found.clone())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let request = self.client.delete_object().bucket(&self.bucket).key(key);
        match request.send().await {
            Err(error) if error.code() != Some("NoSuchKey") => {
                Err(fault("delete an object", error))
            }
            _ => Ok(()),
        }
    }

    async fn replace(&self, object: &NewObject, body: Bytes) -> Result<()> {
        let request = self.put(object, body).customize();
        let request = request.map_request(with_headers(&object.placement));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if is_damage(error.code()) => Err(part_damaged(error)),
            Err(error) => Err(fault("replace an object", error)),
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ObjectPage> {
        self.object_page(prefix, after).await
    }
}

#[async_trait]
impl Signer for S3Store {
    async fn sign(&self, request: &ToSign<'_>, clock: &dyn Clock) -> Result<SignedRequest> {
        let (acl, timeout) = (self.acl.as_ref(), self.operation_timeout);
        self.signer.sign(request, acl, clock.now(), timeout).await
    }
}

/// The endpoint as the SDK needs it: it appends the bucket to the path without a slash.
fn sdk_url(endpoint: &Endpoint) -> String {
    format!("{endpoint}/")
}

fn metadata(object: &NewObject) -> Option<HashMap<String, String>> {
    let pairs = object.metadata();
    Some(
        pairs
            .map(|(key, value)| (key.into_owned(), value))
            .collect(),
    )
}

fn part_number(number: u32) -> Result<i32> {
    i32::try_from(number).map_err(|error| Error::internal("make a part number", error))
}

fn size(size: Option<i64>, action: &str) -> Result<u64> {
    size.and_then(|size| size.try_into().ok())
        .ok_or_else(|| Error::store_unavailable(format!("{action}: the response has no size")))
}

fn session_lost(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::precondition(
        Reason::SessionLost,
        "the store no longer knows the upload's session",
    )
    .caused_by(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let mut config = S3Config::new("media");
        config.secret_access_key = Some("hush".into());
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[tokio::test]
    async fn half_a_pair_of_keys_is_refused() {
        let mut config = S3Config::new("media");
        config.access_key_id = Some("key".into());
        assert!(S3Store::connect(config).await.is_err());
    }
}
