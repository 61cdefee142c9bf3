//! The stores whose signatures are tested.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, SystemTime},
};

use azure_storage_blob::{BlobContainerClient, models::BlobClientGetPropertiesResultHeaders};
use futures::TryStreamExt;
use upload_gateway::{
    blobs::{
        azure::{AzureConfig, AzureStore},
        s3::{Profile, S3Config, S3Store},
    },
    embedded_s3::{EmbeddedS3, EmbeddedS3Config},
};
use upload_gateway_core::{
    blobs::{
        BlobStore, NewObject, Session,
        sign::{SignedRequest, ToSign},
    },
    upload::{Integrity, Md5, Part, Timestamp, UploadId},
};

use super::client::{send, send_bytes};
use crate::common;

/// The minimum size in bytes of every part but the last.
pub(crate) const PART: usize = 5 * 1024 * 1024;

/// One store.
pub(crate) struct Subject {
    pub(crate) store: Arc<dyn BlobStore>,
    admin: Admin,
    /// Stops when the subject is dropped.
    _server: Box<dyn Any + Send + Sync>,
}

/// A client with credentials, to inspect the store without the adapter.
enum Admin {
    S3(aws_sdk_s3::Client, String),
    Azure(BlobContainerClient),
}

pub(crate) async fn embedded() -> Option<Subject> {
    let directory = tempfile::tempdir().unwrap();
    let server = EmbeddedS3::start(EmbeddedS3Config {
        directory: directory.path().to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        bucket: "media".into(),
        access_key_id: "development".into(),
        secret_access_key: "development-secret".into(),
        ..EmbeddedS3Config::default()
    });
    let server = server.await.unwrap();
    let endpoint = server.endpoint();
    let config = S3Config {
        access_key_id: Some("development".into()),
        secret_access_key: Some("development-secret".into()),
        ..s3_config(&endpoint, "media")
    };
    let client = common::s3_client(&endpoint, "development", "development-secret");
    Some(Subject {
        admin: Admin::S3(client, "media".into()),
        store: Arc::new(S3Store::connect(config).await.unwrap()),
        _server: Box::new((server, directory)),
    })
}

pub(crate) async fn versitygw() -> Option<Subject> {
    let server = common::s3().await?;
    let config = S3Config {
        access_key_id: Some(server.access_key.into()),
        secret_access_key: Some(server.secret_key.into()),
        ..s3_config(&server.endpoint, &server.bucket)
    };
    Some(Subject {
        admin: Admin::S3(server.client(), server.bucket.clone()),
        store: Arc::new(S3Store::connect(config).await.unwrap()),
        _server: Box::new(server),
    })
}

pub(crate) async fn azurite() -> Option<Subject> {
    let server = common::azure().await?;
    let config = AzureConfig {
        endpoint: Some(server.endpoint.parse().unwrap()),
        account_key: Some(server.account_key.into()),
        ..AzureConfig::new(server.account, &server.container)
    };
    Some(Subject {
        admin: Admin::Azure(server.client()),
        store: Arc::new(AzureStore::connect(config).unwrap()),
        _server: Box::new(server),
    })
}

fn s3_config(endpoint: &str, bucket: &str) -> S3Config {
    S3Config {
        region: Some("us-east-1".into()),
        endpoint: Some(endpoint.parse().unwrap()),
        profile: Some(Profile::Compatible),
        ..S3Config::new(bucket)
    }
}

// === impl Subject ===

impl Subject {
    /// Signs a request that is valid from now on.
    pub(crate) async fn sign(&self, request: ToSign<'_>) -> SignedRequest {
        self.store.sign(&request, &now()).await.unwrap()
    }

    /// Signs a part.
    pub(crate) async fn sign_part(
        &self,
        session: Session<'_>,
        number: u32,
        body: &[u8],
    ) -> SignedRequest {
        self.sign(ToSign::PutPart {
            session,
            number,
            cut: 0,
            size: body.len() as u64,
            md5: Md5::of(body),
        })
        .await
    }

    /// Begins a session with a signed request, if the store has sessions.
    pub(crate) async fn begin(&self, object: &NewObject) -> String {
        let request = self.sign(ToSign::Begin { object }).await;
        if request.url.is_empty() {
            return "anything".to_owned();
        }
        let answer = send(&request).await.expect_success();
        answer.element("UploadId").unwrap()
    }

    /// Puts a part with a signed request.
    pub(crate) async fn put(&self, session: Session<'_>, number: u32, body: &[u8]) {
        let request = self.sign_part(session, number, body).await;
        send_bytes(&request, body.to_vec()).await.expect_success();
    }

    /// The stored parts, as a commit names them.
    pub(crate) async fn parts(&self, session: Session<'_>) -> Vec<Part> {
        let listed = self.store.list_parts(&session).await.unwrap().unwrap();
        let parts = listed.into_iter();
        parts
            .map(|part| named(part.number.unwrap(), part.receipt))
            .collect()
    }

    /// The stored media type of an object.
    pub(crate) async fn media_type(&self, key: &str) -> String {
        let kept = match &self.admin {
            Admin::S3(client, bucket) => {
                let head = client.head_object().bucket(bucket).key(key).send().await;
                head.unwrap().content_type
            }
            Admin::Azure(container) => {
                let head = container.blob_client(key).get_properties(None).await;
                head.unwrap().content_type().unwrap()
            }
        };
        kept.unwrap()
    }

    /// All bytes of an object.
    pub(crate) async fn read(&self, key: &str) -> Vec<u8> {
        let chunks = self.store.read(key, None, None).await.unwrap();
        let chunks: Vec<_> = chunks.try_collect().await.unwrap();
        chunks.concat()
    }
}

/// The current time.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

/// Two hours ago: a signature for five minutes has expired by now.
pub(crate) fn two_hours_ago() -> Timestamp {
    Timestamp(now().0 - 2 * 60 * 60 * 1_000)
}

/// A day.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An object to be made, with a unique key that needs encoding.
pub(crate) fn named(number: u32, receipt: String) -> Part {
    Part {
        number,
        offset: 0,
        size: 1,
        checksum: None,
        receipt,
        digest: None,
    }
}

pub(crate) fn object(body: &[u8]) -> NewObject {
    let upload_id = UploadId::generate(None);
    NewObject {
        size: None,
        key: format!("{upload_id}/später & mehr+.bin"),
        mime: "video/mp4".into(),
        upload_id,
        md5: Some(Md5::of(body)),
        crc64nvme: None,
        integrity: Integrity::Md5,
        record: None,
        placement: Box::default(),
    }
}
