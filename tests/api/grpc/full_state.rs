//! A gateway whose Redis has no free memory.

use redis::aio::MultiplexedConnection;
use tonic::Code;
use upload_gateway::config::{Config, S3Profile};
use upload_gateway_client::proto::v1::{DeleteUploadRequest, Phase, upload_request::Message};

use crate::common::{self, TestGateway, open, open_known, reason};

#[tokio::test]
async fn a_full_redis_refuses_new_uploads_and_deletes_old_ones() {
    let Some((_redis, url)) = common::private_redis(&[]) else {
        return;
    };
    let Some(s3) = common::s3().await else {
        return;
    };
    let client = redis::Client::open(url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut config = Config {
        redis_url: Some(url.parse().unwrap()),
        storage: vec![s3.storage(S3Profile::Compatible)],
        ..Config::default()
    };
    config.limits.store_retry_timeout_seconds = 1;
    let gateway = TestGateway::over(config).await;
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", None)).await;
    let opened = stream.next().await.unwrap();
    drop(stream);

    limit_memory(&mut connection, 1).await;
    let mut refused = gateway.converse().await;
    refused.send(open("b.bin", None)).await;
    let refused = refused.failure().await;
    let full = (Code::ResourceExhausted, "STATE_FULL".to_owned());
    assert_eq!(reason(&refused), full);
    let request = DeleteUploadRequest {
        upload_id: opened.upload_id.clone(),
    };
    let deleted = gateway.client().await.delete_upload(request).await.unwrap();
    assert_eq!(deleted.into_inner().phase(), Phase::Aborted);

    limit_memory(&mut connection, 0).await;
    let mut created = gateway.converse().await;
    created.send(open("b.bin", None)).await;
    created.next().await.unwrap();
    // The resume token does not bring the deleted upload back.
    let mut resumed = open_known(&opened.upload_id);
    if let Some(Message::Open(open)) = &mut resumed.message {
        open.resume_token = opened.resume_token;
    }
    let mut stream = gateway.converse().await;
    stream.send(resumed).await;
    assert_eq!(reason(&stream.failure().await).1, "WRONG_PHASE");
}

async fn limit_memory(connection: &mut MultiplexedConnection, bytes: u64) {
    let set = redis::cmd("CONFIG")
        .arg("SET")
        .arg("maxmemory")
        .arg(bytes)
        .to_owned();
    let () = set.query_async(connection).await.unwrap();
}
