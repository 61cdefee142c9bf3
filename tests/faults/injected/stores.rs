//! The stores against which each case runs, the gateways over them, and what is stored in them afterwards.

use std::{fs, process::Command, sync::Arc};

use aws_sdk_s3::types::MultipartUpload;
use bytes::Bytes;
use futures::TryStreamExt;
use tonic::Status;
use upload_gateway::{
    config::{ByteSize, Config, Faults, S3Profile, StorageConfig, StoreConfig},
    serve::connect_storage,
};
use upload_gateway_client::proto::v1::{
    ListUploadsRequest, Phase, Upload, UploadProgress, upload_service_client::UploadServiceClient,
};
use upload_gateway_core::{
    blobs::{BlobStore, Session, StoredPart},
    upload::Md5,
};

use super::common::{
    self, AzureBackend, Conversation, RedisBackend, S3Backend, Server, TestGateway, finish, open,
    open_known,
};

/// Redis and one storage, until it is dropped.
pub(crate) struct Stores {
    pub(crate) config: Config,
    /// The size of a part in bytes.
    pub(crate) part: usize,
    pub(crate) s3: Option<S3Backend>,
    pub(crate) azure: Option<AzureBackend>,
    _redis: RedisBackend,
}

pub(crate) async fn s3() -> Option<Stores> {
    let (redis, s3) = (common::redis().await?, common::s3().await?);
    Some(Stores {
        config: config(&redis.url, s3.storage(S3Profile::Compatible)),
        part: 5 << 20,
        s3: Some(s3),
        azure: None,
        _redis: redis,
    })
}

/// With the smallest parts.
pub(crate) async fn azure() -> Option<Stores> {
    let (redis, azure) = (common::redis().await?, common::azure().await?);
    let mut storage = azure.storage();
    storage.options.part_size = ByteSize(1 << 20);
    Some(Stores {
        config: config(&redis.url, storage),
        part: 1 << 20,
        s3: None,
        azure: Some(azure),
        _redis: redis,
    })
}

fn config(redis_url: &str, storage: StorageConfig) -> Config {
    Config {
        redis_url: Some(redis_url.parse().unwrap()),
        storage: vec![storage],
        faults: Faults {
            enabled: true,
            allow_in_this_environment: true,
        },
        ..Config::default()
    }
}

// === impl Stores ===

impl Stores {
    /// New, empty stores of the same kind, with the same configuration otherwise.
    pub(crate) async fn fresh(&self) -> Self {
        let other = if self.s3.is_some() {
            s3().await
        } else {
            azure().await
        };
        let mut other = other.expect("the servers run");
        let (redis_url, storage) = (other.config.redis_url, other.config.storage);
        other.config = Config {
            redis_url,
            storage,
            ..self.config.clone()
        };
        other
    }

    pub(crate) async fn gateway(&self) -> TestGateway {
        TestGateway::over(self.config.clone()).await
    }

    /// A process of the real binary, which a fault ends.
    pub(crate) fn process(&self) -> Server {
        let secret = match &self.config.storage[0].store {
            StoreConfig::S3(s3) => ("SECRET_ACCESS_KEY", &s3.secret_access_key),
            StoreConfig::Azure(azure) => ("ACCOUNT_KEY", &azure.account_key),
        };
        let (key, secret) = (secret.0, secret.1.as_ref().unwrap().expose());
        Server::start(|port, directory| {
            let file = directory.join("gateway.toml");
            fs::write(&file, self.config.to_toml()).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_upload-gateway"));
            command
                .args(["serve", "--http-listen", "127.0.0.1:0", "--grpc-listen"])
                .arg(format!("127.0.0.1:{port}"))
                .arg("--config")
                .arg(file)
                .env(format!("UPLOAD_GATEWAY_STORAGE__MEDIA__{key}"), secret);
            command
        })
    }

    pub(crate) async fn store(&self) -> Arc<dyn BlobStore> {
        connect_storage(&self.config.storage[0]).await.unwrap()
    }

    /// The stored bytes of a finished upload.
    pub(crate) async fn read(&self, upload: &Upload) -> Vec<u8> {
        let object = upload.object.as_ref().expect("a finished upload");
        let read = self
            .store()
            .await
            .read(&object.key, None, None)
            .await
            .unwrap();
        let pieces: Vec<Bytes> = read.try_collect().await.unwrap();
        pieces.concat()
    }

    /// The parts that the store has of an upload that is not finished.
    pub(crate) async fn stored_parts(&self, upload: &Upload) -> Vec<StoredPart> {
        let name = &upload.file.as_ref().unwrap().file_name;
        let key = format!("kept/here/{}/{name}", upload.upload_id);
        let session = Session {
            key: &key,
            id: &upload.resumable_id,
            scope: None,
        };
        let listed = self.store().await.list_parts(&session).await.unwrap();
        listed.unwrap()
    }

    /// The keys and names of the open sessions in the store; Azure has none.
    pub(crate) async fn open_sessions(&self) -> Vec<(String, String)> {
        let Some(s3) = &self.s3 else {
            return Vec::new();
        };
        let listed = s3
            .client()
            .list_multipart_uploads()
            .bucket(&s3.bucket)
            .send();
        let name =
            |upload: &MultipartUpload| Some((upload.key.clone()?, upload.upload_id.clone()?));
        listed
            .await
            .unwrap()
            .uploads()
            .iter()
            .filter_map(name)
            .collect()
    }

    /// Ends the open sessions in the store.
    pub(crate) async fn abort_open_sessions(&self) {
        for (key, id) in self.open_sessions().await {
            let session = Session {
                key: &key,
                id: &id,
                scope: None,
            };
            self.store().await.abort(&session).await.unwrap();
        }
    }

    /// The keys of the objects in the store.
    pub(crate) async fn objects(&self) -> Vec<String> {
        match (&self.s3, &self.azure) {
            (Some(s3), _) => {
                let listed = s3.client().list_objects_v2().bucket(&s3.bucket).send();
                let listed = listed.await.unwrap();
                let keys = listed.contents().iter();
                keys.filter_map(|object| object.key.clone()).collect()
            }
            (None, Some(azure)) => {
                let blobs = azure.client().list_blobs(None).unwrap();
                let blobs: Vec<_> = blobs.try_collect().await.unwrap();
                blobs.into_iter().filter_map(|blob| blob.name).collect()
            }
            (None, None) => Vec::new(),
        }
    }
}

/// Checks that the upload is COMPLETE with exactly these bytes, and that nothing else is stored.
pub(crate) async fn assert_whole(
    stores: &Stores,
    gateway: &TestGateway,
    upload: &Upload,
    data: &[u8],
) {
    let object = upload.object.as_ref().unwrap();
    assert_eq!(object.md5, Md5::of(data).to_string());
    assert_stored(stores, gateway, upload, data).await;
}

/// As [`assert_whole`], if the gateway has not seen all bytes of the file.
pub(crate) async fn assert_stored(
    stores: &Stores,
    gateway: &TestGateway,
    upload: &Upload,
    data: &[u8],
) {
    assert_eq!(upload.phase(), Phase::Complete);
    let object = upload.object.as_ref().unwrap();
    assert!(stores.read(upload).await == data, "other bytes were stored");
    assert_eq!(gateway.get(&upload.upload_id).await.unwrap(), *upload);
    assert_eq!(stores.objects().await, [object.key.as_str()]);
    assert_eq!(stores.open_sessions().await, []);
    assert_eq!(records(gateway).await, 1);
}

/// A stream to the gateway at `grpc` with `faults` in its header.
pub(crate) async fn converse(grpc: &str, faults: &str) -> Conversation {
    let client = UploadServiceClient::connect(grpc.to_owned()).await.unwrap();
    Conversation::begin_with(client, Some(faults))
        .await
        .unwrap()
}

/// Opens a new upload of `data`; returns the gateway's first message.
pub(crate) async fn begin(
    grpc: &str,
    faults: &str,
    data: &[u8],
) -> Result<(Conversation, UploadProgress), Status> {
    begin_of_size(grpc, faults, Some(data.len())).await
}

/// Opens a new upload of this size, or of an unknown one.
pub(crate) async fn begin_of_size(
    grpc: &str,
    faults: &str,
    size: Option<usize>,
) -> Result<(Conversation, UploadProgress), Status> {
    let mut stream = converse(grpc, faults).await;
    stream.send(open("a.bin", size)).await;
    let opened = stream.next().await?;
    Ok((stream, opened))
}

/// Opens an existing upload, sends the missing rest of `data`, and finishes.
pub(crate) async fn resume(
    grpc: &str,
    faults: &str,
    upload_id: &str,
    data: &[u8],
) -> Result<Upload, Status> {
    let mut stream = converse(grpc, faults).await;
    stream.send(open_known(upload_id)).await;
    let committed = usize::try_from(stream.next().await?.committed_size).unwrap();
    stream
        .send_in_chunks(committed, &data[committed..], 1 << 20)
        .await;
    stream.send(finish()).await;
    stream.end().await
}

/// The number of records.
pub(crate) async fn records(gateway: &TestGateway) -> usize {
    let mut client = gateway.client().await;
    let listed = client.list_uploads(ListUploadsRequest::default()).await;
    listed.unwrap().into_inner().uploads.len()
}
