//! Complete uploads with Redis and real stores, S3 and Azure Blob: small files and files in parts, interrupted and
//! resumed by another gateway. The result is read from the store itself.

use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};
use upload_gateway::{
    config::{Config, S3Profile, StorageConfig},
    serve::connect_storage,
};
use upload_gateway_client::proto::v1::{Phase, Residence, Upload};
use upload_gateway_core::blobs::BlobStore;

use crate::common::{self, TestGateway, bytes, chunk, finish, open, open_known};

const PART: usize = 5 * 1024 * 1024;

/// Redis and one storage, until it is dropped.
struct Stores {
    config: Config,
    _backends: Box<dyn Send>,
}

async fn s3(profile: S3Profile) -> Option<Stores> {
    let (redis, s3) = (common::redis().await?, common::s3().await?);
    let config = config(&redis.url, s3.storage(profile));
    Some(Stores {
        config,
        _backends: Box::new((redis, s3)),
    })
}

async fn azure() -> Option<Stores> {
    let (redis, azure) = (common::redis().await?, common::azure().await?);
    let config = config(&redis.url, azure.storage());
    Some(Stores {
        config,
        _backends: Box::new((redis, azure)),
    })
}

fn config(redis_url: &str, storage: StorageConfig) -> Config {
    Config {
        redis_url: Some(redis_url.parse().unwrap()),
        storage: vec![storage],
        ..Config::default()
    }
}

async fn read(config: &Config, upload: &Upload) -> Vec<u8> {
    use futures::TryStreamExt;
    let store: std::sync::Arc<dyn BlobStore> = connect_storage(&config.storage[0]).await.unwrap();
    let key = &upload.object.as_ref().unwrap().key;
    assert!(key.starts_with("kept/here/uploads-"), "{key}");
    let stored = store.head(key).await.unwrap().unwrap();
    assert_eq!(stored.metadata["uploadid"], upload.upload_id);
    let pieces: Vec<bytes::Bytes> = store
        .read(key, None, None)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    pieces.concat()
}

async fn stores_files_of_every_size(stores: Stores) {
    let gateway = TestGateway::over(stores.config.clone()).await;
    let all = bytes(2 * PART + 17);
    for size in [0, 1, 5_000_000, 5_000_001, PART, all.len()] {
        for declared in [Some(size), None] {
            let data = &all[..size];
            let mut messages = vec![open("später.bin", declared)];
            let pieces = data.chunks(1 << 20).enumerate();
            messages.extend(pieces.map(|(index, piece)| chunk(index << 20, piece)));
            messages.push(finish());
            let upload = gateway.upload(messages).await.unwrap();
            assert_eq!(upload.phase(), Phase::Complete);
            assert_eq!(
                upload.object.as_ref().unwrap().md5,
                STANDARD.encode(Md5::digest(data))
            );
            assert!(
                read(&stores.config, &upload).await == data,
                "{size} {declared:?}"
            );
        }
    }
}

async fn another_gateway_resumes(stores: Stores) {
    let data = bytes(3 * PART + 1000);
    let one = TestGateway::over(stores.config.clone()).await;
    let mut first = one.converse().await;
    first.send(open("a.bin", Some(data.len()))).await;
    let upload_id = first.next().await.unwrap().upload_id;
    first
        .send_in_chunks(0, &data[..PART + PART / 2], 1 << 20)
        .await;
    first.committed(PART).await;

    // The first stream is still open when another gateway takes the upload over.
    let other = TestGateway::over(stores.config.clone()).await;
    let mut second = other.converse().await;
    second.send(open_known(&upload_id)).await;
    let committed = usize::try_from(second.next().await.unwrap().committed_size).unwrap();
    assert_eq!(committed, PART);
    second
        .send_in_chunks(committed, &data[committed..], 1 << 20)
        .await;
    second.send(finish()).await;
    let upload = second.end().await.unwrap();
    assert_eq!(
        upload.object.as_ref().unwrap().md5,
        STANDARD.encode(Md5::digest(&data))
    );
    assert!(read(&stores.config, &upload).await == data);

    // What the first stream sends after that is refused and changes nothing.
    first
        .send_in_chunks(PART + PART / 2, &data[PART + PART / 2..], 1 << 20)
        .await;
    first.send(finish()).await;
    first.end().await.unwrap_err();
    assert_eq!(one.get(&upload_id).await.unwrap(), upload);
    assert!(read(&stores.config, &upload).await == data);
}

#[tokio::test]
async fn s3_stores_files_of_every_size() {
    let Some(stores) = s3(S3Profile::Compatible).await else {
        return;
    };
    Box::pin(stores_files_of_every_size(stores)).await;
}

#[tokio::test]
async fn s3_another_gateway_resumes() {
    let Some(stores) = s3(S3Profile::Compatible).await else {
        return;
    };
    Box::pin(another_gateway_resumes(stores)).await;
}

#[tokio::test]
async fn s3_with_equal_parts_stores_files_of_every_size() {
    let Some(stores) = s3(S3Profile::EqualParts).await else {
        return;
    };
    Box::pin(stores_files_of_every_size(stores)).await;
}

#[tokio::test]
async fn azure_stores_files_of_every_size() {
    let Some(stores) = azure().await else { return };
    Box::pin(stores_files_of_every_size(stores)).await;
}

/// With parts that are smaller than the largest single put.
#[tokio::test]
async fn azure_stores_files_of_every_size_in_small_parts() {
    let Some(mut stores) = azure().await else {
        return;
    };
    stores.config.storage[0].options.part_size = upload_gateway::config::ByteSize(1 << 20);
    Box::pin(stores_files_of_every_size(stores)).await;
}

#[tokio::test]
async fn azure_another_gateway_resumes() {
    let Some(stores) = azure().await else { return };
    Box::pin(another_gateway_resumes(stores)).await;
}

#[tokio::test]
async fn uploads_name_their_residence() {
    if let Some(stores) = azure().await {
        let gateway = TestGateway::over(stores.config.clone()).await;
        let upload = gateway
            .upload(vec![open("a", None), finish()])
            .await
            .unwrap();
        assert_eq!(upload.residence(), Residence::AzureStorage);
    }
    if let Some(stores) = s3(S3Profile::Compatible).await {
        let gateway = TestGateway::over(stores.config.clone()).await;
        let upload = gateway
            .upload(vec![open("a", None), finish()])
            .await
            .unwrap();
        assert_eq!(upload.residence(), Residence::AmazonS3);
    }
}
