//! Put, read, delete and list objects.

use std::fs;

use aws_sdk_s3::primitives::ByteStream;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use super::server::*;

#[tokio::test]
async fn put_object_verifies_its_md5_and_keeps_an_existing_object_if_asked() {
    let server = TestServer::start().await;
    let put = |body: &'static [u8]| {
        server
            .client
            .put_object()
            .bucket(BUCKET)
            .key(KEY)
            .body(body.to_vec().into())
    };

    let wrong = put(b"received")
        .content_md5(BASE64_STANDARD.encode(md5(b"sent")))
        .send()
        .await;
    assert_eq!(code(wrong).unwrap_err(), "BadDigest");
    assert_eq!(server.read(None).await.unwrap_err(), "NoSuchKey");

    let stored = put(b"first")
        .content_md5(BASE64_STANDARD.encode(md5(b"first")))
        .if_none_match("*")
        .send()
        .await;
    assert_eq!(
        stored.unwrap().e_tag(),
        Some(quoted(&hexadecimal(&md5(b"first"))).as_str())
    );
    let refused = put(b"second").if_none_match("*").send().await;
    assert_eq!(
        refused
            .as_ref()
            .unwrap_err()
            .raw_response()
            .unwrap()
            .status()
            .as_u16(),
        412
    );
    assert_eq!(code(refused).unwrap_err(), "PreconditionFailed");
    assert_eq!(server.read(None).await.unwrap(), b"first");

    put(b"third").send().await.unwrap();
    assert_eq!(server.read(None).await.unwrap(), b"third");
    assert_eq!(
        part_files(server.directory.path()),
        1,
        "the replaced object's bytes are gone"
    );
}

#[tokio::test]
async fn object_is_read_only_with_the_etag_asked_for() {
    let server = TestServer::start().await;
    server.upload(&[Bytes::from_static(b"first")]).await;
    let head = server.client.head_object().bucket(BUCKET).key(KEY);
    let etag = head.send().await.unwrap().e_tag.unwrap();
    let get = |etag: &str| {
        server
            .client
            .get_object()
            .bucket(BUCKET)
            .key(KEY)
            .if_match(etag)
            .send()
    };

    assert!(get(&etag).await.is_ok());
    assert_eq!(
        code(get("\"another\"").await).unwrap_err(),
        "PreconditionFailed"
    );
}

#[tokio::test]
async fn complete_keeps_an_existing_object_if_asked() {
    let server = TestServer::start().await;
    server.upload(&[Bytes::from_static(b"first")]).await;
    let upload_id = server.create().await;
    let named = vec![part_named(
        1,
        &server.put_part(&upload_id, 1, b"second").await,
    )];

    assert_eq!(
        server
            .complete_if_absent(&upload_id, named)
            .await
            .unwrap_err(),
        "PreconditionFailed"
    );

    assert_eq!(server.read(None).await.unwrap(), b"first");
    assert_eq!(server.parts(&upload_id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn empty_object_is_put_read_and_deleted() {
    let server = TestServer::start().await;
    server
        .client
        .put_object()
        .bucket(BUCKET)
        .key(KEY)
        .send()
        .await
        .unwrap();
    assert_eq!(server.read(None).await.unwrap(), b"");

    let delete = || server.client.delete_object().bucket(BUCKET).key(KEY).send();
    delete().await.unwrap();
    assert_eq!(server.read(None).await.unwrap_err(), "NoSuchKey");
    delete().await.unwrap();
    assert_eq!(part_files(server.directory.path()), 0);
}

#[tokio::test]
async fn keys_of_any_shape_stay_inside_the_directory_and_apart() {
    let server = TestServer::start().await;
    let long = "x".repeat(1024);
    let keys = [
        "../../escape",
        "a/../b",
        "a//b",
        "a/b",
        "a",
        ".",
        "..",
        "ü%2e%2e/+ &=",
        "lock",
        long.as_str(),
    ];
    for key in keys {
        let body = ByteStream::from(key.as_bytes().to_vec());
        server
            .client
            .put_object()
            .bucket(BUCKET)
            .key(key)
            .body(body)
            .send()
            .await
            .unwrap();
    }
    for key in keys {
        let object = server
            .client
            .get_object()
            .bucket(BUCKET)
            .key(key)
            .send()
            .await
            .unwrap();
        assert_eq!(
            object.body.collect().await.unwrap().to_vec(),
            key.as_bytes()
        );
    }
    let entries: Vec<_> = fs::read_dir(server.root.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(entries, ["store"]);
    assert_eq!(
        fs::read_dir(server.directory.path().join("objects"))
            .unwrap()
            .count(),
        keys.len()
    );
}

#[tokio::test]
async fn objects_are_listed_by_prefix_delimiter_and_page() {
    let server = TestServer::start().await;
    for key in ["a/1", "a/2/x", "a/2/y", "a/3", "b"] {
        server
            .client
            .put_object()
            .bucket(BUCKET)
            .key(key)
            .body(key.as_bytes().to_vec().into())
            .send()
            .await
            .unwrap();
    }
    let list = || {
        server
            .client
            .list_objects_v2()
            .bucket(BUCKET)
            .prefix("a/")
            .delimiter("/")
            .max_keys(2)
    };

    let first = list().send().await.unwrap();
    assert_eq!(first.contents()[0].key(), Some("a/1"));
    assert_eq!(first.contents()[0].size(), Some(3));
    assert_eq!(first.common_prefixes()[0].prefix(), Some("a/2/"));
    let second = list()
        .continuation_token(first.next_continuation_token().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(second.contents()[0].key(), Some("a/3"));
    assert_eq!(
        (second.key_count(), second.is_truncated()),
        (Some(1), Some(false))
    );
}
