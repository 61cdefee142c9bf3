//! The embedded S3, spoken to through the official SDK, plain HTTP and, for what a crash leaves, its directory.

use std::fs;
use std::path::Path;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use md5::{Digest, Md5};
use tempfile::TempDir;
use upload_gateway::blobs::embedded::{EmbeddedS3, EmbeddedS3Config};

const BUCKET: &str = "uploads";
const KEY: &str = "media/some upload/später & mehr?.bin";
const MIB: usize = 1 << 20;

// === create, parts, list, complete, abort ===

#[tokio::test]
async fn completed_parts_become_one_object_with_composite_etag_and_attributes() {
    let server = TestServer::start().await;
    let upload_id = server.create().await;
    let parts = [content(1, 5 * MIB), content(2, 5 * MIB), content(3, 7)];
    let mut named = Vec::new();
    for (number, part) in (1..).zip(&parts) {
        let etag = server.put_part(&upload_id, number, part).await;
        assert_eq!(etag, quoted(&hexadecimal(&md5(part))));
        named.push(part_named(number, &etag));
    }

    let completed = server.complete(&upload_id, named).await.unwrap();

    let digests: Vec<u8> = parts.iter().flat_map(|part| md5(part)).collect();
    let etag = quoted(&format!("{}-3", hexadecimal(&md5(&digests))));
    assert_eq!(completed.e_tag(), Some(etag.as_str()));
    let head = server
        .client
        .head_object()
        .bucket(BUCKET)
        .key(KEY)
        .send()
        .await
        .unwrap();
    assert_eq!(head.e_tag(), Some(etag.as_str()));
    assert_eq!(head.content_length(), Some(10 * MIB as i64 + 7));
    assert_eq!(head.content_type(), Some("video/mp4"));
    assert_eq!(head.content_disposition(), Some("attachment"));
    assert_eq!(head.metadata().unwrap()["upload_id"], "uploads-1");
    assert_eq!(server.read(None).await.unwrap(), parts.concat());
    assert!(server.open_uploads().await.is_empty());
}

#[tokio::test]
async fn range_is_read_across_part_boundaries() {
    let server = TestServer::start().await;
    let parts = [content(1, 5 * MIB), content(2, 5 * MIB), content(3, 100)];
    server.upload(&parts).await;
    let whole = parts.concat();
    let (five, ten) = (5 * MIB, 10 * MIB);

    for (first, last) in [
        (0, 0),
        (five - 1, five),
        (five, five),
        (five - 3, ten + 50),
        (ten + 99, ten + 99),
    ] {
        let read = server
            .read(Some(&format!("bytes={first}-{last}")))
            .await
            .unwrap();
        assert!(read == whole[first..=last], "bytes {first} to {last}");
    }
    assert_eq!(
        server.read(Some("bytes=-101")).await.unwrap(),
        whole[ten - 1..]
    );
    assert_eq!(
        server.read(Some(&format!("bytes={ten}-"))).await.unwrap(),
        whole[ten..]
    );
    let partial = server
        .client
        .get_object()
        .bucket(BUCKET)
        .key(KEY)
        .range("bytes=1-2")
        .send()
        .await
        .unwrap();
    assert_eq!(partial.content_range(), Some("bytes 1-2/10485860"));
    assert_eq!(
        server.read(Some("bytes=99999999-")).await.unwrap_err(),
        "InvalidRange"
    );
}

#[tokio::test]
async fn part_with_wrong_md5_is_refused_and_not_listed() {
    let server = TestServer::start().await;
    let upload_id = server.create().await;

    let wrong = server
        .try_part(
            &upload_id,
            1,
            b"received",
            BASE64_STANDARD.encode(md5(b"sent")),
        )
        .await;
    assert_eq!(wrong.unwrap_err(), "BadDigest");
    let malformed = server
        .try_part(
            &upload_id,
            1,
            b"received",
            "not base64 of 16 bytes".to_owned(),
        )
        .await;
    assert_eq!(malformed.unwrap_err(), "InvalidDigest");

    assert!(server.parts(&upload_id).await.unwrap().is_empty());
    assert_eq!(temporary_files(server.directory.path()), 0);
}

#[tokio::test]
async fn repeated_part_number_replaces_the_part() {
    let server = TestServer::start().await;
    let upload_id = server.create().await;
    let old = server.put_part(&upload_id, 1, b"first bytes").await;
    let new = server.put_part(&upload_id, 1, b"second").await;

    assert_eq!(
        server.parts(&upload_id).await.unwrap(),
        [(1, new.clone(), 6)]
    );
    let stale = server.complete(&upload_id, vec![part_named(1, &old)]).await;
    assert_eq!(stale.unwrap_err(), "InvalidPart");
    server
        .complete(&upload_id, vec![part_named(1, &new)])
        .await
        .unwrap();
    assert_eq!(server.read(None).await.unwrap(), b"second");
}

#[tokio::test]
async fn parts_are_listed_in_pages() {
    let server = TestServer::start().await;
    let upload_id = server.create().await;
    for number in [7, 2, 10_000, 31] {
        server
            .put_part(&upload_id, number, &content(number, 10))
            .await;
    }
    let list = || {
        server
            .client
            .list_parts()
            .bucket(BUCKET)
            .key(KEY)
            .upload_id(&upload_id)
            .max_parts(3)
    };

    let first = list().send().await.unwrap();
    let numbers: Vec<_> = first
        .parts()
        .iter()
        .filter_map(|part| part.part_number())
        .collect();
    assert_eq!(
        (numbers, first.is_truncated()),
        (vec![2, 7, 31], Some(true))
    );
    let second = list()
        .part_number_marker(first.next_part_number_marker().unwrap())
        .send()
        .await
        .unwrap();
    let numbers: Vec<_> = second
        .parts()
        .iter()
        .filter_map(|part| part.part_number())
        .collect();
    assert_eq!(
        (numbers, second.is_truncated()),
        (vec![10_000], Some(false))
    );
}

#[tokio::test]
async fn complete_refuses_what_s3_refuses_and_changes_nothing() {
    let server = TestServer::start().await;
    let upload_id = server.create().await;
    let one = server.put_part(&upload_id, 1, &content(1, 5 * MIB)).await;
    let two = server
        .put_part(&upload_id, 2, &content(2, 5 * MIB - 1))
        .await;
    let three = server.put_part(&upload_id, 3, b"end").await;
    let (one, two, three) = (
        part_named(1, &one),
        part_named(2, &two),
        part_named(3, &three),
    );
    let refusals = [
        (
            vec![one.clone(), two.clone(), three.clone()],
            "EntityTooSmall",
        ),
        (vec![three.clone(), one.clone()], "InvalidPartOrder"),
        (vec![one.clone(), one.clone()], "InvalidPartOrder"),
        (
            vec![one.clone(), part_named(3, one.e_tag().unwrap())],
            "InvalidPart",
        ),
        (
            vec![one.clone(), part_named(4, three.e_tag().unwrap())],
            "InvalidPart",
        ),
        (vec![part_named(1, "\"nonsense\"")], "InvalidPart"),
        (vec![], "MalformedXML"),
    ];
    for (parts, code) in refusals {
        assert_eq!(server.complete(&upload_id, parts).await.unwrap_err(), code);
    }
    assert_eq!(server.parts(&upload_id).await.unwrap().len(), 3);
    assert_eq!(server.read(None).await.unwrap_err(), "NoSuchKey");

    server.complete(&upload_id, vec![one, three]).await.unwrap();
    assert_eq!(server.read(None).await.unwrap().len(), 5 * MIB + 3);
    assert_eq!(
        part_files(server.directory.path()),
        2,
        "the part that was not named is gone"
    );
}

#[tokio::test]
async fn repeated_complete_gives_the_same_answer_until_the_object_is_another() {
    let server = TestServer::start().await;
    let upload_id = server.create().await;
    let named = vec![part_named(
        1,
        &server.put_part(&upload_id, 1, b"bytes").await,
    )];
    let first = server
        .complete_if_absent(&upload_id, named.clone())
        .await
        .unwrap();

    let again = server
        .complete_if_absent(&upload_id, named.clone())
        .await
        .unwrap();
    assert_eq!(again.e_tag(), first.e_tag());
    let other = vec![part_named(1, &quoted(&hexadecimal(&md5(b"other"))))];
    assert_eq!(
        server.complete(&upload_id, other).await.unwrap_err(),
        "NoSuchUpload"
    );

    server.upload(&[Bytes::from_static(b"replacement")]).await;
    assert_eq!(
        server.complete(&upload_id, named).await.unwrap_err(),
        "NoSuchUpload"
    );
    assert_eq!(server.read(None).await.unwrap(), b"replacement");
}

#[tokio::test]
async fn unknown_and_ended_uploads_are_no_such_upload() {
    let server = TestServer::start().await;
    let ended = server.create().await;
    server.put_part(&ended, 1, b"bytes").await;
    server.abort(&ended).await.unwrap();

    for upload_id in [
        ended.as_str(),
        "unknown",
        "../../objects",
        "00000000000000000000000000000000",
    ] {
        assert_eq!(server.abort(upload_id).await.unwrap_err(), "NoSuchUpload");
        assert_eq!(server.parts(upload_id).await.unwrap_err(), "NoSuchUpload");
        let part = server
            .try_part(
                upload_id,
                1,
                b"bytes",
                BASE64_STANDARD.encode(md5(b"bytes")),
            )
            .await;
        assert_eq!(part.unwrap_err(), "NoSuchUpload");
        let named = vec![part_named(1, &quoted(&hexadecimal(&md5(b"bytes"))))];
        assert_eq!(
            server.complete(upload_id, named).await.unwrap_err(),
            "NoSuchUpload"
        );
    }
    assert_eq!(part_files(server.directory.path()), 0);
}

#[tokio::test]
async fn upload_is_reachable_under_its_own_key_only() {
    let server = TestServer::start().await;
    let upload_id = server.create().await;
    let other = server
        .client
        .list_parts()
        .bucket(BUCKET)
        .key("other")
        .upload_id(&upload_id)
        .send()
        .await;
    assert_eq!(code(other).unwrap_err(), "NoSuchUpload");
}

#[tokio::test]
async fn open_uploads_are_listed_in_pages_by_key() {
    let server = TestServer::start().await;
    let mut expected = Vec::new();
    for key in ["a/2", "a/1", "a/1", "b/1"] {
        let created = server
            .client
            .create_multipart_upload()
            .bucket(BUCKET)
            .key(key)
            .send()
            .await
            .unwrap();
        expected.push((key.to_owned(), created.upload_id().unwrap().to_owned()));
    }
    expected.sort();
    expected.pop();

    let list = || {
        server
            .client
            .list_multipart_uploads()
            .bucket(BUCKET)
            .prefix("a/")
            .max_uploads(2)
    };
    let first = list().send().await.unwrap();
    assert_eq!(first.is_truncated(), Some(true));
    let second = list()
        .key_marker(first.next_key_marker().unwrap())
        .upload_id_marker(first.next_upload_id_marker().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(second.is_truncated(), Some(false));
    let listed: Vec<_> = [first.uploads(), second.uploads()]
        .concat()
        .iter()
        .map(|upload| {
            (
                upload.key().unwrap().to_owned(),
                upload.upload_id().unwrap().to_owned(),
            )
        })
        .collect();
    assert_eq!(listed, expected);
}

// === objects ===

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

// === who may call ===

#[tokio::test]
async fn wrong_keys_no_signature_and_other_buckets_are_refused() {
    let server = TestServer::start().await;
    let head = |client: Client, bucket: &'static str| async move {
        let answer = client.head_bucket().bucket(bucket).send().await;
        answer
            .map(|_| 200)
            .unwrap_or_else(|error| error.raw_response().unwrap().status().as_u16())
    };
    assert_eq!(head(server.client.clone(), BUCKET).await, 200);
    assert_eq!(head(server.client.clone(), "another").await, 404);
    assert_eq!(
        head(client(&server.endpoint, "embedded", "wrong secret"), BUCKET).await,
        403
    );
    assert_eq!(
        head(client(&server.endpoint, "unknown", "secret"), BUCKET).await,
        403
    );

    let wrong = client(&server.endpoint, "embedded", "wrong secret");
    let put = wrong
        .put_object()
        .bucket(BUCKET)
        .key(KEY)
        .body(b"bytes".to_vec().into())
        .send()
        .await;
    assert_eq!(code(put).unwrap_err(), "SignatureDoesNotMatch");
    let unsigned = reqwest::get(format!("{}/{BUCKET}/key", server.endpoint))
        .await
        .unwrap();
    assert_eq!(unsigned.status(), 403);
    assert_eq!(server.read(None).await.unwrap_err(), "NoSuchKey");
}

#[tokio::test]
async fn presigned_part_put_and_get_work_without_credentials() {
    let server = TestServer::start().await;
    let http = reqwest::Client::new();
    let expiry = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let upload_id = server.create().await;
    let body = content(1, MIB);
    let part = server
        .client
        .upload_part()
        .bucket(BUCKET)
        .key(KEY)
        .upload_id(&upload_id)
        .part_number(1);
    let part = part
        .content_length(MIB as i64)
        .content_md5(BASE64_STANDARD.encode(md5(&body)));
    let signed = part.presigned(expiry.clone()).await.unwrap();
    let put = |body: Bytes, digest: &[u8]| {
        let request = http
            .put(signed.uri())
            .header("content-md5", BASE64_STANDARD.encode(digest))
            .body(body);
        request.send()
    };

    let other_digest_than_signed = put(content(2, MIB), &md5(&content(2, MIB))).await.unwrap();
    assert_eq!(other_digest_than_signed.status(), 403);
    assert_eq!(
        put(content(2, MIB), &md5(&body)).await.unwrap().status(),
        400
    );
    let stored = put(body.clone(), &md5(&body)).await.unwrap();
    assert_eq!(stored.status(), 200);
    let etag = stored.headers()["etag"].to_str().unwrap().to_owned();
    server
        .complete(&upload_id, vec![part_named(1, &etag)])
        .await
        .unwrap();

    let get = server.client.get_object().bucket(BUCKET).key(KEY);
    let get = get
        .response_content_disposition("attachment; filename=\"a b.bin\"")
        .response_content_type("text/plain");
    let signed = get.presigned(expiry).await.unwrap();
    let answer = http.get(signed.uri()).send().await.unwrap();
    assert_eq!(
        answer.headers()["content-disposition"],
        "attachment; filename=\"a b.bin\""
    );
    assert_eq!(answer.headers()["content-type"], "text/plain");
    assert_eq!(answer.headers()["content-length"], MIB.to_string().as_str());
    assert_eq!(answer.bytes().await.unwrap(), body);
    let tampered = signed.uri().replace("text%2Fplain", "text%2Fhtml");
    assert_eq!(http.get(tampered).send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn streamed_and_checksummed_bodies_of_the_sdk_are_understood() {
    let server = TestServer::start().await;
    // The SDK's defaults: a checksum in an aws-chunked trailer for bodies that are streams.
    let settings = settings(&server.endpoint, "embedded", "secret");
    let client = Client::from_conf(
        settings
            .request_checksum_calculation(RequestChecksumCalculation::WhenSupported)
            .build(),
    );
    let body = content(1, 3 * MIB);
    let file = server.root.path().join("source");
    fs::write(&file, &body).unwrap();

    let from_memory = client
        .put_object()
        .bucket(BUCKET)
        .key("memory")
        .body(body.clone().into())
        .send()
        .await;
    let from_file = ByteStream::from_path(&file).await.unwrap();
    let from_file = client
        .put_object()
        .bucket(BUCKET)
        .key("file")
        .body(from_file)
        .send()
        .await;

    let etag = quoted(&hexadecimal(&md5(&body)));
    assert_eq!(from_memory.unwrap().e_tag(), Some(etag.as_str()));
    assert_eq!(from_file.unwrap().e_tag(), Some(etag.as_str()));
}

// === restart and crash ===

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

    assert_eq!(server.open_uploads().await, [upload_id.clone()]);
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = TestServer::start().await;
    let expiry = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let signed = server
        .client
        .put_object()
        .bucket(BUCKET)
        .key(KEY)
        .presigned(expiry)
        .await
        .unwrap();
    let address = server.endpoint.strip_prefix("http://").unwrap();
    let target = signed.uri().strip_prefix(&server.endpoint).unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head =
        format!("PUT {target} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[7; 400_000]).await.unwrap();
    stream.shutdown().await.unwrap();

    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;

    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.read(None).await.unwrap_err(), "NoSuchKey");
    let server = server.restart(|_| ()).await;
    assert_eq!(
        (
            temporary_files(server.directory.path()),
            part_files(server.directory.path())
        ),
        (0, 0)
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

// === the server under test ===

struct Directory(std::path::PathBuf);

struct TestServer {
    server: EmbeddedS3,
    client: Client,
    endpoint: String,
    directory: Directory,
    /// Holds `directory`, and nothing else if the server behaves.
    root: TempDir,
}

impl Directory {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl TestServer {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(root: TempDir) -> Self {
        let directory = Directory(root.path().join("store"));
        let server = EmbeddedS3::start(config(directory.path())).await.unwrap();
        let endpoint = server.endpoint();
        let client = client(&endpoint, "embedded", "secret");
        Self {
            server,
            client,
            endpoint,
            directory,
            root,
        }
    }

    /// Stops the server, lets `meddle` change its directory, and starts another one on it.
    async fn restart(self, meddle: impl FnOnce(&Path)) -> Self {
        self.server.stop().await;
        meddle(self.directory.path());
        Self::start_in(self.root).await
    }

    fn config(&self) -> EmbeddedS3Config {
        config(self.directory.path())
    }

    async fn create(&self) -> String {
        let create = self
            .client
            .create_multipart_upload()
            .bucket(BUCKET)
            .key(KEY)
            .content_type("video/mp4");
        let create = create
            .content_disposition("attachment")
            .metadata("upload_id", "uploads-1");
        create.send().await.unwrap().upload_id().unwrap().to_owned()
    }

    async fn try_part(
        &self,
        upload_id: &str,
        number: i32,
        body: &[u8],
        digest: String,
    ) -> Result<String, String> {
        let part = self
            .client
            .upload_part()
            .bucket(BUCKET)
            .key(KEY)
            .upload_id(upload_id)
            .part_number(number);
        let answer = part
            .content_md5(digest)
            .body(body.to_vec().into())
            .send()
            .await;
        code(answer).map(|answer| answer.e_tag().unwrap().to_owned())
    }

    async fn put_part(&self, upload_id: &str, number: i32, body: &[u8]) -> String {
        self.try_part(upload_id, number, body, BASE64_STANDARD.encode(md5(body)))
            .await
            .unwrap()
    }

    async fn parts(&self, upload_id: &str) -> Result<Vec<(i32, String, i64)>, String> {
        let answer = self
            .client
            .list_parts()
            .bucket(BUCKET)
            .key(KEY)
            .upload_id(upload_id)
            .send()
            .await;
        let parts = code(answer)?.parts.unwrap_or_default();
        Ok(parts
            .into_iter()
            .map(|part| {
                (
                    part.part_number.unwrap(),
                    part.e_tag.unwrap(),
                    part.size.unwrap(),
                )
            })
            .collect())
    }

    async fn complete(
        &self,
        upload_id: &str,
        parts: Vec<CompletedPart>,
    ) -> Result<
        aws_sdk_s3::operation::complete_multipart_upload::CompleteMultipartUploadOutput,
        String,
    > {
        let list = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let complete = self
            .client
            .complete_multipart_upload()
            .bucket(BUCKET)
            .key(KEY)
            .upload_id(upload_id);
        code(complete.multipart_upload(list).send().await)
    }

    async fn complete_if_absent(
        &self,
        upload_id: &str,
        parts: Vec<CompletedPart>,
    ) -> Result<
        aws_sdk_s3::operation::complete_multipart_upload::CompleteMultipartUploadOutput,
        String,
    > {
        let list = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let complete = self
            .client
            .complete_multipart_upload()
            .bucket(BUCKET)
            .key(KEY)
            .upload_id(upload_id);
        code(
            complete
                .multipart_upload(list)
                .if_none_match("*")
                .send()
                .await,
        )
    }

    async fn upload(&self, parts: &[Bytes]) {
        let upload_id = self.create().await;
        let mut named = Vec::new();
        for (number, part) in (1..).zip(parts) {
            named.push(part_named(
                number,
                &self.put_part(&upload_id, number, part).await,
            ));
        }
        self.complete(&upload_id, named).await.unwrap();
    }

    async fn abort(&self, upload_id: &str) -> Result<(), String> {
        let abort = self
            .client
            .abort_multipart_upload()
            .bucket(BUCKET)
            .key(KEY)
            .upload_id(upload_id);
        code(abort.send().await).map(|_| ())
    }

    async fn open_uploads(&self) -> Vec<String> {
        let answer = self
            .client
            .list_multipart_uploads()
            .bucket(BUCKET)
            .send()
            .await
            .unwrap();
        answer
            .uploads
            .unwrap_or_default()
            .into_iter()
            .filter_map(|upload| upload.upload_id)
            .collect()
    }

    async fn read(&self, range: Option<&str>) -> Result<Vec<u8>, String> {
        let get = self
            .client
            .get_object()
            .bucket(BUCKET)
            .key(KEY)
            .set_range(range.map(str::to_owned));
        Ok(code(get.send().await)?
            .body
            .collect()
            .await
            .unwrap()
            .to_vec())
    }
}

fn config(directory: &Path) -> EmbeddedS3Config {
    EmbeddedS3Config {
        directory: directory.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        bucket: BUCKET.to_owned(),
        access_key_id: "embedded".to_owned(),
        secret_access_key: "secret".to_owned(),
    }
}

fn settings(
    endpoint: &str,
    access_key_id: &str,
    secret_access_key: &str,
) -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(
            access_key_id,
            secret_access_key,
            None,
            None,
            "test",
        ))
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
}

fn client(endpoint: &str, access_key_id: &str, secret_access_key: &str) -> Client {
    Client::from_conf(settings(endpoint, access_key_id, secret_access_key).build())
}

/// The S3 error code of an answer that is none.
fn code<T, E: ProvideErrorMetadata + std::fmt::Debug>(
    answer: Result<T, SdkError<E>>,
) -> Result<T, String> {
    answer.map_err(|error| {
        error
            .code()
            .map_or_else(|| format!("{error:?}"), str::to_owned)
    })
}

fn part_named(number: i32, etag: &str) -> CompletedPart {
    CompletedPart::builder()
        .part_number(number)
        .e_tag(etag)
        .build()
}

/// Bytes that differ from seed to seed and from offset to offset.
fn content(seed: i32, size: usize) -> Bytes {
    let seed = u64::from(seed.unsigned_abs());
    let words = (0..size.div_ceil(8) as u64)
        .map(|index| (index + seed * 1_000_003).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(size);
    bytes.into()
}

fn md5(bytes: &[u8]) -> Vec<u8> {
    Md5::digest(bytes).to_vec()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

fn temporary_files(directory: &Path) -> usize {
    fs::read_dir(directory.join("temporary")).unwrap().count()
}

fn part_files(directory: &Path) -> usize {
    let uploads = fs::read_dir(directory.join("parts")).unwrap();
    uploads
        .map(|upload| fs::read_dir(upload.unwrap().path()).unwrap().count())
        .sum()
}
