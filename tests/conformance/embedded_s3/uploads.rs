//! Create, parts, list, complete, abort.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use super::server::*;

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
