//! Who may call, and in which ways.

use std::fs;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use super::server::*;

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

// Sender and server run side by side, or the sender would always have sent before it is refused.
#[tokio::test(flavor = "multi_thread")]
async fn refusal_reaches_a_sender_that_is_still_sending() {
    let server = TestServer::start().await;
    let http = reqwest::Client::new();
    for _ in 0..10 {
        let put = http
            .put(format!("{}/{BUCKET}/key", server.endpoint))
            .body(content(1, 5 * MIB));
        assert_eq!(put.send().await.unwrap().status(), 403);
    }
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
