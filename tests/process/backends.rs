//! The servers the other tests lean on start, answer, and come back when they were killed.

use std::{collections::HashSet, process::Command, time::Duration};

use aws_sdk_s3::primitives::ByteStream;
use redis::{AsyncCommands as _, TlsCertificates};

use crate::common;

async fn connect(url: &str) -> redis::aio::MultiplexedConnection {
    redis::Client::open(url)
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap()
}

#[tokio::test]
async fn each_redis_caller_gets_an_empty_database() {
    let Some(one) = common::redis().await else {
        return;
    };
    let Some(other) = common::redis().await else {
        return;
    };
    let () = connect(&one.url).await.set("key", "one").await.unwrap();
    let absent: Option<String> = connect(&other.url).await.get("key").await.unwrap();
    assert_eq!(absent, None);
}

#[tokio::test]
async fn killed_redis_comes_back_with_its_data() {
    let Some((mut server, url)) = common::private_redis(&[]) else {
        return;
    };
    let () = connect(&url).await.set("key", "value").await.unwrap();
    server.kill();
    assert!(
        redis::Client::open(&*url)
            .unwrap()
            .get_multiplexed_async_connection()
            .await
            .is_err()
    );
    server.restart();
    let value: String = connect(&url).await.get("key").await.unwrap();
    assert_eq!(value, "value");
}

#[tokio::test]
async fn paused_redis_answers_when_resumed() {
    let Some((server, url)) = common::private_redis(&[]) else {
        return;
    };
    let mut connection = connect(&url).await;
    connection.set_response_timeout(Duration::from_secs(20));
    server.pause();
    let mut ping = tokio::spawn(async move { connection.ping::<String>().await });
    assert!(
        tokio::time::timeout(Duration::from_millis(200), &mut ping)
            .await
            .is_err()
    );
    server.resume();
    assert_eq!(ping.await.unwrap().unwrap(), "PONG");
}

#[tokio::test]
async fn redis_speaks_tls_under_its_own_authority() {
    let Some(redis) = common::redis_tls() else {
        return;
    };
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: Some(redis.authority.clone().into_bytes()),
    };
    let client = redis::Client::build_with_tls(&*redis.url, certificates).unwrap();
    let answer: String = client
        .get_multiplexed_async_connection()
        .await
        .unwrap()
        .ping()
        .await
        .unwrap();
    assert_eq!(answer, "PONG");
    let untrusting = redis::Client::open(&*redis.url).unwrap();
    assert!(untrusting.get_multiplexed_async_connection().await.is_err());
}

#[tokio::test]
async fn sentinels_promote_the_replica_of_a_killed_primary() {
    let Some(mut redis) = common::redis_sentinels() else {
        return;
    };
    assert_eq!(redis.primary_port(), redis.primary.port());
    redis.fail_over();
    let promoted = format!("redis://127.0.0.1:{}", redis.replica.port());
    let () = connect(&promoted).await.set("key", "value").await.unwrap();
}

#[tokio::test]
async fn redis_cluster_spreads_keys_over_its_nodes() {
    let Some(cluster) = common::redis_cluster() else {
        return;
    };
    let client = redis::cluster::ClusterClient::new(cluster.urls.clone()).unwrap();
    let mut connection = client.get_async_connection().await.unwrap();
    for key in 0..32 {
        let () = connection.set(key, key).await.unwrap();
    }
    for url in &cluster.urls {
        let keys: u32 = redis::cmd("DBSIZE")
            .query_async(&mut connect(url).await)
            .await
            .unwrap();
        assert!((1..32).contains(&keys));
    }
}

#[tokio::test]
async fn s3_server_refuses_a_wrong_content_md5() {
    let Some(s3) = common::s3().await else { return };
    let client = s3.client();
    let put = || {
        client
            .put_object()
            .bucket(&s3.bucket)
            .key("object")
            .body(ByteStream::from_static(b"bytes"))
    };
    assert!(
        put()
            .content_md5("1B2M2Y8AsgTpgAmY7PhCfg==")
            .send()
            .await
            .is_err()
    );
    put()
        .content_md5("SzpiGLs+OnMD6KFxpg/Pkg==")
        .send()
        .await
        .unwrap();
}

#[tokio::test]
async fn killed_s3_server_comes_back_with_its_objects() {
    let Some((mut server, s3)) = common::private_s3().await else {
        return;
    };
    let client = s3.client();
    client
        .put_object()
        .bucket(&s3.bucket)
        .key("object")
        .body(ByteStream::from_static(b"bytes"))
        .send()
        .await
        .unwrap();
    server.restart();
    let object = client
        .get_object()
        .bucket(&s3.bucket)
        .key("object")
        .send()
        .await
        .unwrap();
    assert_eq!(object.body.collect().await.unwrap().to_vec(), b"bytes");
}

#[tokio::test]
async fn stopped_azure_server_comes_back_with_its_blobs() {
    let Some((mut server, azure)) = common::private_azure().await else {
        return;
    };
    let blob = azure.client().blob_client("blob");
    blob.upload(azure_core::Bytes::from_static(b"bytes").into(), None)
        .await
        .unwrap();
    server.stop();
    server.restart();
    let properties = blob.get_properties(None).await.unwrap();
    let length = properties
        .headers()
        .get_str(&"content-length".into())
        .unwrap();
    assert_eq!(length, "5");
}

#[tokio::test]
async fn each_store_caller_gets_a_place_of_its_own() {
    let (Some(s3), Some(other_s3)) = (common::s3().await, common::s3().await) else {
        return;
    };
    let (Some(azure), Some(other_azure)) = (common::azure().await, common::azure().await) else {
        return;
    };
    let places = [
        s3.bucket,
        other_s3.bucket,
        azure.container,
        other_azure.container,
    ];
    assert_eq!(HashSet::from(places).len(), 4);
}

#[test]
fn grpcurl_runs() {
    let Some(grpcurl) = common::grpcurl() else {
        return;
    };
    assert!(
        Command::new(grpcurl)
            .arg("-version")
            .output()
            .unwrap()
            .status
            .success()
    );
}

#[test]
fn python_has_grpc() {
    let Some(python) = common::python() else {
        return;
    };
    assert!(
        Command::new(python)
            .args(["-c", "import grpc, grpc_tools"])
            .status()
            .unwrap()
            .success()
    );
}
