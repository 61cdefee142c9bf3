//! Buckets and accounts whose policies demand headers of new objects: every way in has them.

use tempfile::TempDir;
use tonic::Code;
use upload_gateway::{
    blobs::s3::SseMethod,
    config::{KeyConfig, S3Config, S3Profile, StorageConfig, StoreConfig},
    embedded_s3::{EmbeddedS3, EmbeddedS3Config},
    serve::connect_storage,
};
use upload_gateway_client::proto::v1::{Phase, Placement, Upload};

use super::{
    check_archived, file, send,
    ways::{TWO_PARTS, every_way_in, keep, plain},
};
use crate::common::{
    self, AzureBackend, TestGateway,
    bucket_policy::{BucketPolicy, Demands},
    bytes, reason, refused_for_good,
    signing_client::Client,
    storage, until,
};

const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234-abcd";
const SSE: &str = "x-amz-server-side-encryption";
const SSE_KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const SCOPE: &str = "x-ms-encryption-scope";

/// What a bucket demands that accepts one key and one tag only.
const BUCKET: Demands = Demands {
    object: &[
        (SSE, "aws:kms"),
        (SSE_KEY, KEY),
        ("x-amz-tagging", "team=media"),
    ],
    block: &[],
    described: &[],
    forgets: false,
    archives: false,
};

/// What a container demands that accepts one scope and one tag only.
const CONTAINER: Demands = Demands {
    object: &[(SCOPE, "scope-1"), ("x-ms-tags", "team=media")],
    block: &[(SCOPE, "scope-1")],
    ..BUCKET
};

/// A store behind a policy.
struct Guarded {
    policy: BucketPolicy,
    storage: StorageConfig,
    _store: Box<dyn Send + Sync>,
}

async fn s3(demands: Demands) -> Guarded {
    let directory = TempDir::new().unwrap();
    let config = EmbeddedS3Config {
        directory: directory.path().to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        bucket: "media".into(),
        access_key_id: "development".into(),
        secret_access_key: "development-secret".into(),
        ..EmbeddedS3Config::default()
    };
    let server = EmbeddedS3::start(config).await.unwrap();
    let policy = BucketPolicy::start(&server.endpoint(), demands).await;
    let storage = storage(StoreConfig::S3(S3Config {
        region: Some("us-east-1".into()),
        endpoint: Some(policy.endpoint.parse().unwrap()),
        profile: Some(S3Profile::Compatible),
        access_key_id: Some("development".into()),
        secret_access_key: Some("development-secret".into()),
        ..S3Config::new("media")
    }));
    Guarded {
        policy,
        storage,
        _store: Box::new((server, directory)),
    }
}

/// In memory: Azurite refuses signatures for a scope.
async fn azure(demands: Demands) -> Guarded {
    let (memory, azure) = common::memory_azure().await;
    behind(demands, &azure, Box::new(memory)).await
}

/// This account behind a policy.
async fn behind(demands: Demands, azure: &AzureBackend, store: Box<dyn Send + Sync>) -> Guarded {
    let (server, account) = azure.endpoint.rsplit_once('/').unwrap();
    let policy = BucketPolicy::start(server, demands).await;
    let mut storage = azure.storage();
    if let StoreConfig::Azure(config) = &mut storage.store {
        config.endpoint = Some(format!("{}/{account}", policy.endpoint).parse().unwrap());
    }
    Guarded {
        policy,
        storage,
        _store: store,
    }
}

/// With tags only.
async fn azurite() -> Option<Guarded> {
    let azure = common::azure().await?;
    let tags = Demands {
        object: &[("x-ms-tags", "team=media")],
        block: &[],
        ..CONTAINER
    };
    let mut guarded = behind(tags, &azure, Box::new(())).await;
    guarded.storage.options.object_tags = [("team".into(), "media".into())].into();
    guarded._store = Box::new(azure);
    Some(guarded)
}

// === impl Guarded ===

impl Guarded {
    /// With what the policy demands.
    fn configured(mut self) -> Self {
        let options = &mut self.storage.options;
        options.object_tags = [("team".into(), "media".into())].into();
        options.require_encryption = true;
        match &mut self.storage.store {
            StoreConfig::S3(config) => {
                config.encryption = Some(SseMethod::Kms);
                config.kms_key_id = Some(KEY.into());
            }
            StoreConfig::Azure(config) => config.encryption_scope = Some("scope-1".into()),
        }
        self
    }

    async fn gateway(&self) -> TestGateway {
        let storage = self.storage.clone();
        TestGateway::with(|config| {
            config.storage = vec![storage];
            config.records.key = vec![KeyConfig {
                id: "1".into(),
                key: Some("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".into()),
                key_file: None,
            }];
            config.limits.store_settle_seconds = 1;
            config.sweeper.interval_seconds = 1;
            config.limits.store_retry_timeout_seconds = 1;
        })
        .await
    }
}

/// Makes objects in every way, which the policy allows, and rebuilds their records.
async fn every_way_is_allowed(guarded: Guarded) {
    let gateway = guarded.gateway().await;
    let made = every_way_in(&gateway).await;
    for upload in &made {
        assert_eq!(upload.phase(), Phase::Complete);
        let placement = upload.file.as_ref().unwrap().placement.as_ref().unwrap();
        let is_demanded = guarded.storage.options.require_encryption;
        assert_eq!(placement.encryption.is_some(), is_demanded);
    }
    // Its state store has nothing.
    let other = guarded.gateway().await;
    for upload in made {
        let rebuilt = other.get(&upload.upload_id).await.unwrap();
        assert_eq!(rebuilt.object.unwrap().key, upload.object.unwrap().key);
        keep(&other, &upload.upload_id).await;
    }
    assert_eq!(guarded.policy.refused(), 0);
}

#[tokio::test]
async fn every_way_into_s3_has_the_demanded_headers() {
    every_way_is_allowed(s3(BUCKET).await.configured()).await;
}

#[tokio::test]
async fn every_way_into_azure_has_the_demanded_headers() {
    every_way_is_allowed(azure(CONTAINER).await.configured()).await;
}

#[tokio::test]
async fn every_way_into_azurite_has_the_demanded_tags() {
    if let Some(guarded) = azurite().await {
        every_way_is_allowed(guarded).await;
    }
}

#[tokio::test]
async fn the_policy_refuses_what_lacks_its_headers() {
    let guarded = s3(BUCKET).await;
    let gateway = guarded.gateway().await;
    for size in [1000, TWO_PARTS] {
        let sent = send(&gateway, plain(Some(size)), &bytes(size)).await;
        assert_eq!(sent.unwrap_err().code(), Code::Unavailable);
    }
    assert!(guarded.policy.refused() >= 2);
}

#[tokio::test]
async fn a_caller_cannot_weaken_what_the_storage_demands() {
    use upload_gateway_client::proto::v1::{Encryption, encryption::Method};
    let guarded = s3(BUCKET).await.configured();
    let gateway = guarded.gateway().await;
    let weaker = Placement {
        encryption: Some(Encryption {
            method: Some(Method::SseS3(())),
        }),
        ..Placement::default()
    };
    let refused = send(&gateway, file(3, weaker), &bytes(3))
        .await
        .unwrap_err();
    assert_eq!(
        reason(&refused),
        (Code::InvalidArgument, "INVALID_FIELD".into())
    );
}

/// A store that ignores the demand: the upload is aborted, and the object is deleted.
#[tokio::test]
async fn an_object_that_is_not_encrypted_as_demanded_is_not_kept() {
    let forgets = Demands {
        forgets: true,
        ..BUCKET
    };
    let guarded = s3(forgets).await.configured();
    let gateway = guarded.gateway().await;
    let mut client = Client::of(&gateway).await;
    let data = bytes(1000);
    let step = client.create(plain(Some(1000))).await.unwrap();
    client.deliver(&step, data.clone()).await;
    let first = client.complete(&step.upload_id).await.unwrap_err();
    assert_eq!(first.code(), Code::Unavailable, "{first:?}");
    let aborted = refused_for_good(async || client.complete(&step.upload_id).await).await;
    let expected = (Code::FailedPrecondition, "PART_REPLACED".to_owned());
    assert_eq!(reason(&aborted), expected);
    check_gone(&guarded, &gateway, &step.upload_id).await;

    let streamed = send(&gateway, plain(Some(1000)), &data).await.unwrap_err();
    assert_eq!(streamed.code(), Code::Unavailable, "{streamed:?}");
}

/// Checks that the upload is aborted, and waits until its object is deleted.
async fn check_gone(guarded: &Guarded, gateway: &TestGateway, id: &str) {
    let upload: Upload = gateway.get(id).await.unwrap();
    assert_eq!(upload.phase(), Phase::Aborted);
    let store = connect_storage(&guarded.storage).await.unwrap();
    let key = format!("kept/here/{id}/film.mp4");
    until("the object is deleted", async || {
        // A HEAD beside the deletion may get a 500 from versitygw.
        matches!(store.head(&key).await, Ok(None))
    })
    .await;
}

#[tokio::test]
async fn an_archived_object_of_s3_is_neither_read_nor_linked() {
    let archives = Demands {
        object: &[],
        described: &[("x-amz-storage-class", "GLACIER")],
        archives: true,
        ..BUCKET
    };
    let guarded = s3(archives).await;
    let gateway = guarded.gateway().await;
    let upload = send(&gateway, plain(Some(1000)), &bytes(1000))
        .await
        .unwrap();
    check_archived(&gateway, &upload.upload_id).await;
}
