//! Restart, and what a crash leaves behind.

use std::fs;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use upload_gateway::embedded_s3::{EmbeddedS3, EmbeddedS3Config};

use super::server::*;

#[tokio::test]
async fn restart_keeps_sessions_parts_and_objects() {
    let server = TestServer::start().await;
    server
        .client
        .put_object()
        .bucket(BUCKET)
        .key("object")
        .body(b"kept".to_vec().into())
        .send()
        .await
        .unwrap();
    let upload_id = server.create().await;
    let one = server.put_part(&upload_id, 1, &content(1, 5 * MIB)).await;

    let server = server.restart(|_| ()).await;

    assert_eq!(
        server.open_uploads().await,
        std::slice::from_ref(&upload_id)
    );
    assert_eq!(
        server.parts(&upload_id).await.unwrap(),
        [(1, one.clone(), 5 * MIB as i64)]
    );
    let two = server.put_part(&upload_id, 2, b"end").await;
    server
        .complete(&upload_id, vec![part_named(1, &one), part_named(2, &two)])
        .await
        .unwrap();
    assert_eq!(
        server.read(None).await.unwrap(),
        [content(1, 5 * MIB), Bytes::from_static(b"end")].concat()
    );
    let head = server
        .client
        .head_object()
        .bucket(BUCKET)
        .key(KEY)
        .send()
        .await
        .unwrap();
    assert_eq!(head.content_type(), Some("video/mp4"));
    let object = server
        .client
        .get_object()
        .bucket(BUCKET)
        .key("object")
        .send()
        .await
        .unwrap();
    assert_eq!(object.body.collect().await.unwrap().to_vec(), b"kept");
}

#[tokio::test]
async fn leftovers_of_calls_that_were_never_answered_are_removed_at_start() {
    let server = TestServer::start().await;
    let upload_id = server.create().await;
    let etag = server.put_part(&upload_id, 1, b"kept").await;

    let server = server
        .restart(|directory| {
            fs::write(directory.join("temporary/0123"), b"half a part").unwrap();
            // A create without its session; a put, replace, delete or abort with bytes but no manifest.
            fs::create_dir(directory.join("parts/4567")).unwrap();
            fs::create_dir(directory.join("parts/89ab")).unwrap();
            fs::write(directory.join("parts/89ab/00001"), b"bytes of nothing").unwrap();
        })
        .await;

    let directory = server.directory.path();
    assert_eq!(temporary_files(directory), 0);
    assert_eq!(fs::read_dir(directory.join("parts")).unwrap().count(), 1);
    assert_eq!(server.parts(&upload_id).await.unwrap(), [(1, etag, 4)]);
    assert_eq!(server.read(None).await.unwrap_err(), "NoSuchKey");
}

#[tokio::test]
async fn complete_interrupted_after_the_manifest_is_finished_at_start() {
    let server = TestServer::start().await;
    let upload_id = server.create().await;
    let named = vec![part_named(
        1,
        &server.put_part(&upload_id, 1, b"used").await,
    )];
    server.put_part(&upload_id, 2, b"not used").await;
    let directory = server.directory.path();
    let session = directory.join("sessions").join(&upload_id);
    let unused = directory.join("parts").join(&upload_id).join("00002");
    let before = (fs::read(&session).unwrap(), fs::read(&unused).unwrap());
    server.complete(&upload_id, named.clone()).await.unwrap();

    let server = server
        .restart(|_| {
            fs::write(&session, &before.0).unwrap();
            fs::write(&unused, &before.1).unwrap();
        })
        .await;

    assert!(server.open_uploads().await.is_empty());
    assert_eq!(part_files(server.directory.path()), 1);
    assert_eq!(server.read(None).await.unwrap(), b"used");
    server.complete(&upload_id, named).await.unwrap();
}

#[tokio::test]
async fn complete_interrupted_before_the_manifest_can_be_repeated() {
    let server = TestServer::start().await;
    let upload_id = server.create().await;
    let named = vec![part_named(
        1,
        &server.put_part(&upload_id, 1, b"bytes").await,
    )];

    let server = server
        .restart(|directory| {
            fs::write(directory.join("temporary/cdef"), b"{\"key\": half a mani").unwrap()
        })
        .await;

    assert_eq!(server.read(None).await.unwrap_err(), "NoSuchKey");
    server.complete(&upload_id, named).await.unwrap();
    assert_eq!(server.read(None).await.unwrap(), b"bytes");
}

#[tokio::test]
async fn body_cut_off_leaves_nothing_behind() {
    let server = TestServer::start().await;
    let mut stream = server.begin_put(1_000_000).await;
    stream.write_all(&[7; 400_000]).await.unwrap();
    stream.shutdown().await.unwrap();

    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;

    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.read(None).await.unwrap_err(), "NoSuchKey");
    let server = server.restart(|_| ()).await;
    let directory = server.directory.path();
    assert_eq!((temporary_files(directory), part_files(directory)), (0, 0));
}

#[tokio::test]
async fn stop_lets_a_running_request_finish() {
    let server = TestServer::start().await;
    let mut stream = server.begin_put(10).await;
    stream.write_all(b"first").await.unwrap();
    // The request has reached storage once its temporary file is there.
    while temporary_files(server.directory.path()) == 0 {
        tokio::task::yield_now().await;
    }
    let address = stream.peer_addr().unwrap();
    let restarted = tokio::spawn(server.restart(|_| ()));
    // Nobody listens any more: the server is stopping.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }

    stream.write_all(b" last").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();

    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(
        restarted.await.unwrap().read(None).await.unwrap(),
        b"first last"
    );
}

#[tokio::test]
async fn directory_in_use_public_address_and_damaged_manifest_are_refused() {
    let server = TestServer::start().await;
    let config = server.config();
    let error = EmbeddedS3::start(config.clone()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    let public = EmbeddedS3Config {
        listen: ([0, 0, 0, 0], 0).into(),
        ..config.clone()
    };
    assert_eq!(
        EmbeddedS3::start(public).await.unwrap_err().kind(),
        std::io::ErrorKind::InvalidInput
    );
    assert!(!format!("{config:?}").contains("secret\""));

    server.server.stop().await;
    fs::write(server.directory.path().join("objects/damaged"), b"{").unwrap();
    let error = EmbeddedS3::start(config).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("objects/damaged"), "{error}");
}
