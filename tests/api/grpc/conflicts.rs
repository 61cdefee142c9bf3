//! Conflicts between streams, gateways and their configuration: nothing is left in the stores, nothing hangs.

use tonic::Code;
use upload_gateway::config::{
    ByteSize, Config, S3Config, S3Profile, StorageConfig, StorageOptions, StoreConfig,
};
use upload_gateway_client::proto::v1::{DeleteUploadRequest, Phase};
use upload_gateway_core::{gateway::IntegrityChoice, upload::PART_SIZE};

use crate::common::{
    self, TestGateway, bytes, chunk, finish, open, open_known, reason, s3_client, until,
};

const PART: usize = 5 * 1024 * 1024;

async fn delete(gateway: &TestGateway, upload_id: &str) {
    let upload_id = upload_id.to_owned();
    let mut client = gateway.client().await;
    let deleted = client
        .delete_upload(DeleteUploadRequest { upload_id })
        .await;
    assert_eq!(deleted.unwrap().into_inner().phase(), Phase::Aborted);
}

/// The number of multipart uploads in the embedded store.
async fn sessions(gateway: &TestGateway) -> usize {
    let listed = gateway.s3().list_multipart_uploads().bucket("uploads");
    listed.send().await.unwrap().uploads().len()
}

#[tokio::test]
async fn a_stream_that_was_taken_over_leaves_no_session_behind() {
    let gateway = TestGateway::start().await;
    let data = bytes(PART);
    let mut old = gateway.converse().await;
    old.send(open("a.bin", None)).await;
    let upload_id = old.next().await.unwrap().upload_id;
    let mut new = gateway.converse().await;
    new.send(open_known(&upload_id)).await;
    new.next().await.unwrap();
    old.send_in_chunks(0, &data, 1 << 20).await;
    let status = old.end().await.unwrap_err();
    assert_eq!(reason(&status), (Code::Aborted, "TAKEN_OVER".into()));
    // The stream may hear of the takeover while it creates the session.
    until("no session is left", async || sessions(&gateway).await == 0).await;
}

#[tokio::test]
async fn a_stream_on_an_upload_that_is_deleted_leaves_no_session_behind() {
    let gateway = TestGateway::start().await;
    let data = bytes(PART);
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", None)).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    delete(&gateway, &upload_id).await;
    stream.send_in_chunks(0, &data, 1 << 20).await;
    let status = stream.end().await.unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::FailedPrecondition, "WRONG_PHASE".into())
    );
    assert_eq!(sessions(&gateway).await, 0);
}

/// The gateway was killed after it put a small file and before it recorded that: the object is deleted with the upload.
#[tokio::test]
async fn deleting_an_upload_deletes_the_object_of_its_single_put() {
    let gateway = TestGateway::start().await;
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", Some(3))).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    let (s3, key) = (gateway.s3(), format!("{upload_id}/a.bin"));
    let object = s3.put_object().bucket("uploads").key(&key);
    let object = object.metadata("uploadid", &upload_id);
    object.body(b"abc".to_vec().into()).send().await.unwrap();
    delete(&gateway, &upload_id).await;
    let left = s3.list_objects_v2().bucket("uploads").send().await.unwrap();
    assert!(left.contents().is_empty(), "{left:?}");
}

/// A replica whose configuration lacks the storage must not fence out the one that has it.
#[tokio::test]
async fn an_upload_whose_storage_is_not_configured_is_not_changed() {
    let directory = tempfile::TempDir::new().unwrap();
    let config = Config {
        data_dir: directory.path().join("data"),
        ..Config::default()
    };
    let first = TestGateway::over(config.clone()).await;
    let data = bytes(PART + 10);
    let mut stream = first.converse().await;
    stream.send(open("a.bin", Some(data.len()))).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    stream.send_in_chunks(0, &data[..PART], 1 << 20).await;
    stream.committed(PART).await;
    drop(stream);
    first.stop().await;

    let other = TestGateway::over(Config {
        storage: vec![elsewhere()],
        ..config.clone()
    })
    .await;
    let before = other.get(&upload_id).await.unwrap();
    let status = other
        .upload(vec![open_known(&upload_id), finish()])
        .await
        .unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::NotFound, "STORAGE_NOT_FOUND".into())
    );
    let mut client = other.client().await;
    let request = DeleteUploadRequest {
        upload_id: upload_id.clone(),
    };
    let status = client.delete_upload(request).await.unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::NotFound, "STORAGE_NOT_FOUND".into())
    );
    assert_eq!(other.get(&upload_id).await.unwrap(), before);
    drop(client);
    other.stop().await;

    let first = TestGateway::over(config).await;
    let rest = chunk(PART, &data[PART..]);
    let upload = first
        .upload(vec![open_known(&upload_id), rest, finish()])
        .await
        .unwrap();
    assert!(first.read(&upload).await == data);
}

/// A storage that no test uses.
fn elsewhere() -> StorageConfig {
    StorageConfig {
        options: StorageOptions {
            id: "elsewhere".into(),
            default: true,
            prefix: String::new(),
            part_size: ByteSize(PART_SIZE),
            allow_http: true,
            ext_filter: Vec::new(),
            mime_filter: Vec::new(),
            key: "{upload_id}/{name}".into(),
            max_file_size: None,
            expire_after: None,
            max_expire_after: None,
            metadata: std::collections::BTreeMap::new(),
            object_tags: std::collections::BTreeMap::new(),
            cache_control: None,
            content_disposition: None,
            content_encoding: None,
            storage_class: None,
            require_encryption: false,
            integrity: IntegrityChoice::default(),
            tenants: Vec::new(),
        },
        store: StoreConfig::S3(S3Config {
            endpoint: Some("http://127.0.0.1:9".parse().unwrap()),
            profile: Some(S3Profile::Compatible),
            access_key_id: Some("key".into()),
            secret_access_key: Some("secret".into()),
            ..S3Config::new("nowhere")
        }),
    }
}

/// Many streams open one upload on two gateways at once, in every order: one finishes it, the others get an error.
#[tokio::test(flavor = "multi_thread")]
async fn of_racing_streams_on_one_upload_one_finishes_it() {
    let Some(redis) = common::redis().await else {
        return;
    };
    let Some(s3) = common::s3().await else {
        return;
    };
    let mut storage = elsewhere();
    storage.store = StoreConfig::S3(S3Config {
        region: Some(s3.region.into()),
        endpoint: Some(s3.endpoint.parse().unwrap()),
        profile: Some(S3Profile::Compatible),
        access_key_id: Some(s3.access_key.into()),
        secret_access_key: Some(s3.secret_key.into()),
        ..S3Config::new(&s3.bucket)
    });
    let config = Config {
        redis_url: Some(redis.url.parse().unwrap()),
        storage: vec![storage],
        ..Config::default()
    };
    let gateways = [
        TestGateway::over(config.clone()).await,
        TestGateway::over(config).await,
    ];
    let client = s3_client(&s3.endpoint, s3.access_key, s3.secret_key);
    for size in [2 * PART + 17, 3000] {
        let data = bytes(size);
        let mut first = gateways[0].converse().await;
        first.send(open("a.bin", Some(size))).await;
        let upload_id = first.next().await.unwrap().upload_id;
        let racers = (0..8).map(|racer| {
            let (gateway, data, upload_id) = (&gateways[racer % 2], &data, &upload_id);
            async move {
                let step = 100_000 + racer * 77_777;
                let mut messages = vec![open_known(upload_id)];
                let pieces = data.chunks(step).enumerate();
                messages.extend(pieces.map(|(index, piece)| chunk(index * step, piece)));
                messages.push(finish());
                gateway.upload(messages).await
            }
        });
        let mut finished = 0;
        for ended in futures::future::join_all(racers).await {
            match ended {
                Ok(upload) => {
                    assert_eq!(upload.phase(), Phase::Complete);
                    finished += 1;
                }
                Err(status) => {
                    assert_eq!(reason(&status), (Code::Aborted, "TAKEN_OVER".into()));
                }
            }
        }
        assert!(finished >= 1);
        let upload = gateways[1].get(&upload_id).await.unwrap();
        let object = upload.object.unwrap();
        let stored = client.get_object().bucket(&object.bucket).key(&object.key);
        let stored = stored.send().await.unwrap().body.collect().await.unwrap();
        assert!(stored.to_vec() == data);
    }
}
