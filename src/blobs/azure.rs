//! Azure Blob Storage, through Microsoft's SDK.
//!
//! Azure has no multipart upload to create: blocks stay uncommitted under the blob's name until a block list names
//! them; after a week without changes Azure removes them. Each stream gives its blocks ids of their own ([`BlockId`]),
//! so a commit gets exactly the recorded ones. The SDK takes no account key: with one, every request carries a
//! signature made here ([`sas`]); without one, an Entra ID token. Copies inside Azure are read with a signature, too.
//!
//! Required roles: Storage Blob Data Contributor on the container; to sign for clients without an account key, also
//! Storage Blob Delegator on the account.

mod account_key;
mod block_id;
mod block_list;
mod config;
mod copy;
mod cors;
mod delegation;
mod digests;
mod fault;
mod http;
mod inspection;
mod multipart;
mod objects;
mod placement;
mod policy;
pub mod sas;
mod settings;
mod sign;

use std::{
    collections::HashMap, future::Future, num::NonZero, ops::Range, sync::Arc, time::Duration,
};

use async_trait::async_trait;
use azure_core::http::{ClientOptions, Etag, RetryOptions};
use azure_storage_blob::{
    BlobClient, BlobContainerClient, BlobContainerClientOptions,
    models::{
        BlobClientDownloadOptions, BlobClientGetPropertiesResultHeaders,
        BlobContainerClientListBlobsOptions, BlockBlobClientUploadOptions, BlockListType,
    },
};
use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
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
    error::{Error, Result},
    upload::{Encryption, Integrity, MIB, Md5, Placement, StoreKind, StoreLimits, Timestamp},
};
use url::Url;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use self::sign::fuzzing;
use self::{
    account_key::CachedKey,
    block_list::stored_part,
    delegation::Delegation,
    fault::{code, fault, operator_code, report, status},
    http::{transport, within},
    placement::{ARCHIVE, FEATURES, headers},
    policy::{CallHeaders, Sign, call_options, with_checksum},
    sign::{BlobSigner, SigningKey},
};
pub use self::{
    block_id::BlockId,
    config::{AzureConfig, Identity},
};
use super::transport::Timeouts;
use crate::values::Endpoint;

/// 50,000 blocks of at most 4,000 MiB: together 190.7 TiB.
/// <https://learn.microsoft.com/rest/api/storageservices/understanding-block-blobs--append-blobs--and-page-blobs>
const LIMITS: StoreLimits = StoreLimits {
    max_parts: 50_000,
    max_part_size: 4_000 * MIB,
    max_object_size: 50_000 * 4_000 * MIB,
    equal_parts: false,
};

/// Larger than any blob, so that the SDK reads with one request and does not collect ranges in memory.
const WHOLE: NonZero<usize> = NonZero::new(isize::MAX.unsigned_abs()).expect("it is not zero");

/// The error code for a blob that does not exist.
const NOT_FOUND: &str = "BlobNotFound";

/// A container in a storage account.
///
/// ```no_run
/// # use upload_gateway::blobs::azure::{AzureConfig, AzureStore};
/// # fn connect() -> upload_gateway_core::error::Result<AzureStore> {
/// AzureStore::connect(AzureConfig::new("account", "media"))
/// # }
/// ```
#[derive(Clone)]
pub struct AzureStore {
    client: Arc<BlobContainerClient>,
    /// The container's URL, without a signature.
    url: Url,
    signer: Arc<BlobSigner>,
    container: String,
    operation_timeout: Duration,
    commit_timeout: Duration,
}

// === impl AzureStore ===

impl AzureStore {
    /// Prepares a client; does not contact the store.
    ///
    /// # Errors
    /// `Internal` if the configuration is invalid: a key that is not base64, an endpoint that is not a base URL, Entra
    /// ID over plain HTTP, a `ca_file` that cannot be used.
    pub fn connect(config: AzureConfig) -> Result<Self> {
        let endpoint = config.endpoint_url()?;
        let url = config.container_url(endpoint.clone())?;
        let public = config.public_endpoint.as_ref().map(Endpoint::url);
        let public_url = config.container_url(public.unwrap_or(&endpoint).clone())?;
        let transport = transport(config.ca_file.as_deref())
            .map_err(|error| Error::internal("trust the authorities in ca_file", error))?;
        let mut client_options = ClientOptions {
            per_try_policies: vec![Arc::new(CallHeaders)],
            retry: RetryOptions::none(),
            transport: Some(transport.clone()),
            ..ClientOptions::default()
        };
        let (key, credential) = match &config.account_key {
            Some(key) => {
                let file = config.account_key_file.clone();
                let key = Arc::new(CachedKey::new(&config.account, key, file)?);
                client_options.per_try_policies.push(Arc::new(Sign {
                    key: Arc::clone(&key),
                    container: config.container.clone(),
                    https_only: url.scheme() == "https",
                }));
                (SigningKey::Account(key), None)
            }
            None => {
                let credential = config.credential(&transport)?;
                let options = client_options.clone();
                let delegation = Delegation::new(endpoint, Arc::clone(&credential), options)?;
                (
                    SigningKey::Delegation(Box::new(delegation)),
                    Some(credential),
                )
            }
        };
        let signer = BlobSigner {
            account: config.account,
            container: config.container.clone(),
            public_url,
            key,
        };
        let options = BlobContainerClientOptions {
            client_options,
            ..BlobContainerClientOptions::default()
        };
        let client = BlobContainerClient::new(url.clone(), credential, Some(options))
            .map_err(|error| fault("prepare a client", error))?;
        Ok(Self {
            client: Arc::new(client),
            url,
            signer: Arc::new(signer),
            container: config.container,
            operation_timeout: config.operation_timeout,
            commit_timeout: config.commit_timeout,
        })
    }

    /// A client for one blob. The slashes of the key separate path segments.
    fn blob(&self, key: &str) -> BlobClient {
        self.client.blob_client(key)
    }

    /// Waits for a response, for at most the operation time-out.
    async fn answer<T>(
        &self,
        request: impl Future<Output = azure_core::Result<T>> + Send,
    ) -> azure_core::Result<T> {
        within(self.operation_timeout, request).await
    }

    /// Lists one blob.
    async fn first_page(&self) -> azure_core::Result<()> {
        let options = BlobContainerClientListBlobsOptions {
            maxresults: Some(1),
            ..BlobContainerClientListBlobsOptions::default()
        };
        let first_page = async {
            let mut pages = self.client.list_blobs(Some(options))?.into_pages();
            pages.try_next().await
        };
        self.answer(first_page).await.map(drop)
    }

    /// Puts a whole blob, and returns its ETag.
    async fn put(
        &self,
        object: &NewObject,
        body: Bytes,
        if_none_match: Option<Etag>,
    ) -> azure_core::Result<StoredPut> {
        let options = BlockBlobClientUploadOptions {
            blob_content_type: Some(object.mime.clone()),
            // Azure refuses it beside a CRC-64, and computes it then.
            blob_content_md5: object
                .md5
                .filter(|_| object.integrity == Integrity::Md5)
                .map(|md5| md5.0.to_vec()),
            metadata: Some(metadata(object)),
            if_none_match,
            method_options: call_options(
                Timeouts::silence(self.operation_timeout),
                with_checksum(headers(&object.placement), object.checksum()),
            ),
            // One request for every size.
            partition_size: Some(NonZero::<u64>::MAX),
            ..BlockBlobClientUploadOptions::default()
        };
        let blob = self.blob(&object.key).block_blob_client();
        let answer = within(PUT_TIMEOUT, blob.upload(body.into(), Some(options)));
        let output = answer.await?;
        Ok(StoredPut {
            etag: entity_tag(output.etag),
            digests: digests::named(output.content_md5, output.content_crc64),
        })
    }

    /// One request for the properties. `None` only if Azure's error code says that there is no blob.
    async fn describe(&self, key: &str) -> Result<Option<StoredObject>> {
        let action = "describe a blob";
        let answer = self.answer(self.blob(key).get_properties(None)).await;
        let output = match answer {
            Ok(output) => output,
            Err(error) if code(&error) == Some(NOT_FOUND) => return Ok(None),
            Err(error) => return Err(fault(action, error)),
        };
        let read = || -> azure_core::Result<_> {
            let placement = Placement {
                cache_control: output.cache_control()?,
                content_disposition: output.content_disposition()?,
                content_encoding: output.content_encoding()?,
                storage_class: output.access_tier()?,
                encryption: output.encryption_scope()?.map(Encryption::Scope),
                ..Placement::default()
            };
            let (md5, metadata) = (output.content_md5()?, output.metadata()?);
            let (etag, size, mime) = (
                output.etag()?,
                output.content_length()?,
                output.content_type()?,
            );
            let modified_at = output.last_modified()?;
            Ok((placement, md5, metadata, etag, size, mime, modified_at))
        };
        let (placement, md5, metadata, etag, size, mime, modified_at) =
            read().map_err(|error| fault(action, error))?;
        Ok(Some(StoredObject {
            etag: entity_tag(etag),
            size: size.ok_or_else(|| {
                Error::store_unavailable("describe a blob: the response has no size")
            })?,
            md5: md5.and_then(|md5| md5.try_into().ok()).map(Md5),
            composite: None,
            crc64nvme: None,
            has_digests: true,
            modified_at: modified_at.and_then(timestamp),
            metadata: metadata
                .into_iter()
                .map(|(key, value)| (key.to_ascii_lowercase(), value))
                .collect(),
            mime,
            is_archived: placement.storage_class.as_deref() == Some(ARCHIVE),
            placement: Box::new(placement),
        }))
    }

    /// Whether there is a blob, by a GET request of one byte. The block list is no proof: it also exists if there are
    /// only uncommitted blocks.
    async fn has_blob(&self, key: &str) -> Result<bool> {
        let options = BlobClientDownloadOptions {
            partition_size: Some(WHOLE),
            range: Some((0_u64..1).into()),
            ..BlobClientDownloadOptions::default()
        };
        match self.answer(self.blob(key).download(Some(options))).await {
            Ok(_) => Ok(true),
            Err(error) => match code(&error) {
                Some(NOT_FOUND) => Ok(false),
                // It is empty, or archived.
                Some("InvalidRange" | "BlobArchived") => Ok(true),
                _ => Err(fault("look for a blob", error)),
            },
        }
    }
}

#[async_trait]
impl BlobStore for AzureStore {
    fn kind(&self) -> StoreKind {
        StoreKind::Azure
    }

    fn bucket(&self) -> &str {
        &self.container
    }

    fn limits(&self) -> StoreLimits {
        LIMITS
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            creates_sessions: false,
            one_part_per_number: false,
            lists_part_digests: false,
            names_writers: true,
            binds_part_size: false,
            computes_object_md5: false,
            binds_placement: false,
            features: FEATURES,
        }
    }

    fn renew_credentials(&self) {
        self.signer.forget_key();
    }

    fn credentials_expire_at(&self) -> Option<Timestamp> {
        self.signer.key_expires_at()
    }

    /// By a list: a SAS of this kind cannot read the properties of the container.
    async fn check(&self) -> Result<()> {
        self.first_page().await.map_err(|error| {
            let container = &self.container;
            let context = match status(&error) {
                Some(404) => format!("there is no container {container}"),
                Some(401 | 403) => format!("the store refuses these credentials for {container}"),
                _ => return fault("check the container", error),
            };
            let code = operator_code(&error).map(str::to_owned);
            Error::internal(context, report(&error)).coded(code)
        })
    }
}

#[async_trait]
impl ObjectStore for AzureStore {
    async fn put_object(&self, object: &NewObject, body: Bytes) -> Result<Put> {
        let answer = self.put(object, body, Some(Etag::from("*")));
        match answer.await {
            Ok(stored) if object.is_unproven_by(&stored.digests) => Err(unproven("put a blob")),
            Ok(stored) => Ok(Put::Stored(stored)),
            Err(error) => match code(&error) {
                Some("BlobAlreadyExists" | "ConditionNotMet") => Ok(Put::Exists),
                _ if is_damage(&error) => Err(part_damaged(report(&error))),
                _ => Err(fault("put a blob", error)),
            },
        }
    }

    async fn composition(&self, key: &str) -> Result<Option<Vec<StoredPart>>> {
        let blob = self.blob(key).block_blob_client();
        let answer = self.answer(async {
            blob.get_block_list(BlockListType::Committed, None)
                .await?
                .into_model()
        });
        match answer.await {
            Ok(list) => {
                let blocks = list.committed_blocks.into_iter().flatten();
                Ok(Some(blocks.filter_map(stored_part).collect()))
            }
            // The blocks of an archived blob are not listed.
            Err(error) if matches!(code(&error), Some(NOT_FOUND | "BlobArchived")) => Ok(None),
            Err(error) => Err(fault("list the blocks", error)),
        }
    }

    async fn head(&self, key: &str) -> Result<Option<StoredObject>> {
        if let Some(found) = self.describe(key).await? {
            return Ok(Some(found));
        }
        if !self.has_blob(key).await? {
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
        let options = BlobClientDownloadOptions {
            partition_size: Some(WHOLE),
            range: range.map(Into::into),
            if_match: etag.map(|etag| format!("\"{etag}\"").into()),
            method_options: call_options(Timeouts::silence(self.operation_timeout), Vec::new()),
            ..BlobClientDownloadOptions::default()
        };
        let answer = self.answer(self.blob(key).download(Some(options))).await;
        let output = answer.map_err(|error| match code(&error) {
            Some(NOT_FOUND) => object_not_found(key),
            Some("ConditionNotMet") => object_changed().caused_by(error),
            Some("BlobArchived") => object_archived().caused_by(error),
            _ => fault("read a blob", error),
        })?;
        let chunks = output.body.map_err(|error| fault("read a blob", error));
        Ok(chunks.boxed())
    }

    async fn put_placement(
        &self,
        object: &NewObject,
        found: &StoredObject,
    ) -> Result<StoredObject> {
        self.place(object, found).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        match self.answer(self.blob(key).delete(None)).await {
            Err(error) if code(&error) != Some(NOT_FOUND) => Err(fault("delete a blob", error)),
            _ => Ok(()),
        }
    }

    async fn replace(&self, object: &NewObject, body: Bytes) -> Result<()> {
        match self.put(object, body, None).await {
            Ok(_) => Ok(()),
            Err(error) if is_damage(&error) => Err(part_damaged(report(&error))),
            Err(error) => Err(fault("replace a blob", error)),
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ObjectPage> {
        self.blob_page(prefix, after).await
    }
}

#[async_trait]
impl Signer for AzureStore {
    async fn sign(&self, request: &ToSign<'_>, clock: &dyn Clock) -> Result<SignedRequest> {
        let timeout = self.operation_timeout;
        self.signer.sign(request, clock.now(), timeout).await
    }
}

impl std::fmt::Debug for AzureStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("AzureStore")
            .field("container", &self.url.as_str())
            .finish_non_exhaustive()
    }
}

fn metadata(object: &NewObject) -> HashMap<String, String> {
    let pairs = object.metadata();
    pairs
        .map(|(key, value)| (key.into_owned(), value))
        .collect()
}

fn timestamp(time: azure_core::time::OffsetDateTime) -> Option<Timestamp> {
    let milliseconds = time.unix_timestamp_nanos() / 1_000_000;
    u64::try_from(milliseconds).ok().map(Timestamp)
}

fn entity_tag(etag: Option<Etag>) -> String {
    etag.map(String::from)
        .unwrap_or_default()
        .trim_matches('"')
        .to_owned()
}

/// Whether the bytes did not match the digest sent with them. Azurite has no error code of its own for that.
fn is_damage(error: &azure_core::Error) -> bool {
    match code(error) {
        Some("InvalidOperation") => error.to_string().contains("contentMD5 doesn't match"),
        code => matches!(code, Some("Md5Mismatch" | "Crc64Mismatch")),
    }
}
