//! What senders get wrong: each gets a typed error, the connection stays usable, and nothing committed is lost.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

#[path = "common/lib.rs"]
mod common;

use base64::{Engine, engine::general_purpose::STANDARD};
use common::{TestGateway, bytes, chunk, finish, message, open, open_file, open_known, reason};
use md5::{Digest, Md5};
use tonic::{Code, Status, codegen::http::uri::PathAndQuery};
use tonic_types::StatusExt;
use upload_gateway::proto::v1::{
    Chunk, DeleteUploadRequest, FileMetadata, Finish, GetLimitsRequest, GetUploadRequest,
    ListUploadsRequest, Open, Phase, Upload, UploadRequest, UploadResponse,
    upload_request::Message, upload_service_client::UploadServiceClient,
};

const PART: usize = 5 * 1024 * 1024;

/// Sends the messages over a connection of its own, checks that this connection still serves, and returns the refusal.
async fn refused(gateway: &TestGateway, messages: Vec<UploadRequest>) -> Status {
    let mut client = gateway.client().await;
    let status = client
        .upload(tokio_stream::iter(messages))
        .await
        .expect_err("a refusal");
    client
        .get_limits(GetLimitsRequest::default())
        .await
        .expect("the connection is still usable");
    status
}

fn file(name: &str) -> FileMetadata {
    FileMetadata {
        file_name: name.into(),
        ..FileMetadata::default()
    }
}

fn fields(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request().expect("the fields");
    details
        .field_violations
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}

fn metadata(status: &Status, key: &str) -> String {
    status
        .get_details_error_info()
        .unwrap()
        .metadata
        .remove(key)
        .unwrap_or_default()
}

/// An upload with one committed part, and what was sent of it.
async fn with_one_part(gateway: &TestGateway, size: Option<usize>) -> (String, Vec<u8>) {
    let data = bytes(2 * PART);
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", size)).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    stream.send_in_chunks(0, &data[..PART], 1 << 20).await;
    stream.committed(PART).await;
    (upload_id, data)
}

/// The upload is as it was: OPEN, with one part, and it can be finished.
async fn is_unharmed(gateway: &TestGateway, upload_id: &str, data: &[u8]) -> Upload {
    let upload = gateway.get(upload_id).await.unwrap();
    assert_eq!(
        (upload.phase(), upload.committed_size),
        (Phase::Open, i64::try_from(PART).unwrap())
    );
    let tail = PART + 10;
    let size = upload
        .file
        .unwrap()
        .file_size
        .map_or(tail, |size| usize::try_from(size).unwrap());
    let mut messages = vec![open_known(upload_id)];
    messages.extend(
        data[PART..size]
            .chunks(1 << 20)
            .enumerate()
            .map(|(index, piece)| chunk(PART + (index << 20), piece)),
    );
    messages.push(finish());
    let finished = gateway.upload(messages).await.unwrap();
    assert_eq!(gateway.read(&finished).await, &data[..size]);
    finished
}

#[tokio::test]
async fn messages_out_of_turn_are_refused() {
    let gateway = TestGateway::start().await;
    let cases: Vec<Vec<UploadRequest>> = vec![
        vec![],
        vec![chunk(0, b"abc")],
        vec![finish()],
        vec![UploadRequest { message: None }],
        vec![open("a", None), open("b", None)],
        vec![open("a", None), chunk(0, b"abc"), finish(), chunk(3, b"d")],
        vec![open("a", None), chunk(0, b"abc"), finish(), finish()],
    ];
    for messages in cases {
        let told = format!("{messages:?}");
        let status = refused(&gateway, messages).await;
        assert_eq!(
            reason(&status),
            (Code::InvalidArgument, "INVALID_SEQUENCE".into()),
            "{told}"
        );
    }
    let status = refused(&gateway, vec![message(Message::Open(Open::default()))]).await;
    assert_eq!(fields(&status), ["open.target"]);
}

#[tokio::test]
async fn a_stream_without_finish_leaves_the_upload_open() {
    let gateway = TestGateway::start().await;
    let (upload_id, data) = with_one_part(&gateway, None).await;
    let status = refused(&gateway, vec![open_known(&upload_id), chunk(PART, b"abc")]).await;
    assert_eq!(
        reason(&status),
        (Code::FailedPrecondition, "INCOMPLETE".into())
    );
    assert_eq!(metadata(&status, "upload_id"), upload_id);
    is_unharmed(&gateway, &upload_id, &data).await;
}

#[tokio::test]
async fn gaps_and_wrong_beginnings_tell_the_expected_offset() {
    let gateway = TestGateway::start().await;
    let (upload_id, data) = with_one_part(&gateway, None).await;
    for (messages, expected) in [
        // Behind the committed prefix, and inside a part before it.
        (vec![chunk(PART + 1, b"abc")], PART),
        (vec![chunk(PART - 1, b"abc")], PART),
        (vec![chunk(2 * PART, b"abc")], PART),
        // A gap and a step back within the stream.
        (vec![chunk(PART, b"abc"), chunk(PART + 4, b"d")], PART + 3),
        (vec![chunk(PART, b"abc"), chunk(PART + 2, b"d")], PART + 3),
    ] {
        let messages = [vec![open_known(&upload_id)], messages].concat();
        let status = refused(&gateway, messages).await;
        assert_eq!(reason(&status), (Code::OutOfRange, "WRONG_OFFSET".into()));
        assert_eq!(metadata(&status, "expected_offset"), expected.to_string());
    }
    is_unharmed(&gateway, &upload_id, &data).await;
}

#[tokio::test]
async fn an_overlap_that_differs_is_refused() {
    let gateway = TestGateway::start().await;
    let (upload_id, data) = with_one_part(&gateway, None).await;
    let mut other = data.clone();
    other[17] ^= 1;
    let mut messages = vec![open_known(&upload_id)];
    messages.extend(
        other
            .chunks(1 << 20)
            .enumerate()
            .map(|(index, piece)| chunk(index << 20, piece)),
    );
    messages.push(finish());
    let status = refused(&gateway, messages).await;
    assert_eq!(
        reason(&status),
        (Code::FailedPrecondition, "PREFIX_MISMATCH".into())
    );
    assert_eq!(metadata(&status, "part"), "1");
    is_unharmed(&gateway, &upload_id, &data).await;
}

#[tokio::test]
async fn more_or_fewer_bytes_than_announced_are_refused() {
    let gateway = TestGateway::start().await;
    let size = PART + 10;
    let (upload_id, data) = with_one_part(&gateway, Some(size)).await;

    let status = refused(
        &gateway,
        vec![open_known(&upload_id), chunk(PART, &data[PART..PART + 11])],
    )
    .await;
    assert_eq!(reason(&status), (Code::OutOfRange, "SIZE_EXCEEDED".into()));

    let status = refused(
        &gateway,
        vec![
            open_known(&upload_id),
            chunk(PART, &data[PART..PART + 9]),
            finish(),
        ],
    )
    .await;
    assert_eq!(
        reason(&status),
        (Code::FailedPrecondition, "INCOMPLETE".into())
    );

    let other = message(Message::Finish(Finish {
        file_size: Some(7),
        file_id: None,
    }));
    let status = refused(&gateway, vec![open_known(&upload_id), other]).await;
    assert_eq!(fields(&status), ["finish.file_size"]);
    is_unharmed(&gateway, &upload_id, &data).await;

    for (promised, code) in [(2, Code::OutOfRange), (4, Code::FailedPrecondition)] {
        let finish = message(Message::Finish(Finish {
            file_size: Some(promised),
            file_id: None,
        }));
        let status = refused(&gateway, vec![open("a", None), chunk(0, b"abc"), finish]).await;
        assert_eq!(status.code(), code, "{promised}");
    }
}

#[tokio::test]
async fn absurd_sizes_are_refused_before_any_byte() {
    let gateway =
        TestGateway::with(|config| config.limits.max_file_size = Some("1MiB".parse().unwrap()))
            .await;
    for (size, expected) in [
        (-1, "INVALID_FIELD"),
        (i64::MIN, "INVALID_FIELD"),
        (1 << 21, "FILE_TOO_LARGE"),
        (i64::MAX, "FILE_TOO_LARGE"),
    ] {
        let create = open_file(FileMetadata {
            file_size: Some(size),
            ..file("a")
        });
        let status = refused(&gateway, vec![create]).await;
        assert_eq!(
            reason(&status),
            (Code::InvalidArgument, expected.into()),
            "{size}"
        );
        assert_eq!(fields(&status), ["file.file_size"]);
    }
    // Of unknown size: when the bytes go beyond it.
    let data = bytes(1 << 20);
    let status = refused(
        &gateway,
        vec![open("a", None), chunk(0, &data), chunk(1 << 20, b"x")],
    )
    .await;
    assert_eq!(reason(&status).1, "FILE_TOO_LARGE");

    let gateway = TestGateway::start().await;
    let create = open_file(FileMetadata {
        file_size: Some(i64::MAX),
        ..file("a")
    });
    let status = refused(&gateway, vec![create]).await;
    assert_eq!(
        metadata(&status, "max_file_size"),
        (10_000_u64 * (64 << 20)).to_string()
    );

    let negative = message(Message::Chunk(Chunk {
        offset: -1,
        data: b"abc".as_slice().into(),
        crc32c: None,
    }));
    let status = refused(&gateway, vec![open("a", None), negative]).await;
    assert_eq!(fields(&status), ["chunk.offset"]);
    let far = message(Message::Chunk(Chunk {
        offset: i64::MAX,
        data: b"abc".as_slice().into(),
        crc32c: None,
    }));
    let status = refused(&gateway, vec![open("a", None), far]).await;
    assert_eq!(reason(&status).1, "WRONG_OFFSET");
}

#[tokio::test]
async fn digests_that_are_none_are_refused() {
    let gateway = TestGateway::start().await;
    for text in [
        "x",
        "5ymJIxM7GVLfTbMS6YI1",
        "5ymJIxM7GVLfTbMS6YI1Bw",
        "e72989231 33b",
        "====",
        &"A".repeat(300),
    ] {
        let create = open_file(FileMetadata {
            file_id: text.into(),
            ..file("a")
        });
        let status = refused(&gateway, vec![create]).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{text}");
        let finish = message(Message::Finish(Finish {
            file_size: None,
            file_id: Some(text.into()),
        }));
        let status = refused(&gateway, vec![open("a", None), finish]).await;
        assert_eq!(fields(&status), ["finish.file_id"], "{text}");
    }
    let contradictory = FileMetadata {
        file_id: STANDARD.encode([0; 16]),
        skip_file_digest: true,
        ..file("a")
    };
    let status = refused(&gateway, vec![open_file(contradictory)]).await;
    assert_eq!(fields(&status), ["file.skip_file_digest"]);
}

#[tokio::test]
async fn a_wrong_digest_ends_the_upload_and_leaves_nothing_in_the_store() {
    let gateway = TestGateway::start().await;
    let data = bytes(PART + 10);
    for size in [3, PART + 10] {
        for in_finish in [false, true] {
            let wrong = STANDARD.encode(Md5::digest(b"something else"));
            let create = FileMetadata {
                file_id: if in_finish {
                    String::new()
                } else {
                    wrong.clone()
                },
                file_size: Some(i64::try_from(size).unwrap()),
                ..file("a")
            };
            let finish = Finish {
                file_size: None,
                file_id: in_finish.then_some(wrong),
            };
            let mut messages = vec![open_file(create)];
            let pieces = data[..size].chunks(1 << 20).enumerate();
            messages.extend(pieces.map(|(index, piece)| chunk(index << 20, piece)));
            messages.push(message(Message::Finish(finish)));
            let status = refused(&gateway, messages).await;
            assert_eq!(reason(&status), (Code::DataLoss, "DIGEST_MISMATCH".into()));
            let upload_id = metadata(&status, "upload_id");
            assert_eq!(
                gateway.get(&upload_id).await.unwrap().phase(),
                Phase::Aborted
            );
            let status = refused(&gateway, vec![open_known(&upload_id)]).await;
            assert_eq!(
                reason(&status),
                (Code::FailedPrecondition, "WRONG_PHASE".into())
            );
        }
    }
    let listed = gateway
        .s3()
        .list_objects_v2()
        .bucket("uploads")
        .send()
        .await
        .unwrap();
    assert!(listed.contents().is_empty());
    let sessions = gateway
        .s3()
        .list_multipart_uploads()
        .bucket("uploads")
        .send()
        .await
        .unwrap();
    assert!(sessions.uploads().is_empty());
}

#[tokio::test]
async fn a_digest_cannot_be_checked_where_none_is_kept() {
    let gateway = TestGateway::start().await;
    let create = open_file(FileMetadata {
        skip_file_digest: true,
        ..file("a")
    });
    let finish = Finish {
        file_size: None,
        file_id: Some(STANDARD.encode(Md5::digest(b"abc"))),
    };
    let status = refused(
        &gateway,
        vec![create, chunk(0, b"abc"), message(Message::Finish(finish))],
    )
    .await;
    assert_eq!(
        reason(&status),
        (Code::FailedPrecondition, "DIGEST_UNKNOWN".into())
    );
}

#[tokio::test]
async fn a_wrong_checksum_costs_one_chunk_and_no_part() {
    let gateway = TestGateway::start().await;
    let (upload_id, data) = with_one_part(&gateway, None).await;
    let send = |crc32c| {
        message(Message::Chunk(Chunk {
            offset: PART as i64,
            data: b"123456789".as_slice().into(),
            crc32c: Some(crc32c),
        }))
    };
    let status = refused(&gateway, vec![open_known(&upload_id), send(1)]).await;
    assert_eq!(
        reason(&status),
        (Code::DataLoss, "CHECKSUM_MISMATCH".into())
    );
    // The check value of CRC-32C in the catalogue of parametrised CRC algorithms.
    let status = refused(&gateway, vec![open_known(&upload_id), send(0xe306_9283)]).await;
    assert_eq!(reason(&status).1, "INCOMPLETE");
    is_unharmed(&gateway, &upload_id, &data).await;
}

#[tokio::test]
async fn unknown_uploads_are_not_found() {
    let gateway = TestGateway::start().await;
    let mut client = gateway.client().await;
    let unknown = format!("uploads-{:016x}-{:032x}", 1, 2);
    for id in [
        "",
        "x",
        "uploads-1",
        "../../etc/passwd",
        "uploads-\u{0}",
        unknown.as_str(),
        &"u".repeat(10_000),
    ] {
        let status = refused(&gateway, vec![open_known(id)]).await;
        assert_eq!(
            reason(&status),
            (Code::NotFound, "UPLOAD_NOT_FOUND".into()),
            "{id:?}"
        );
        let status = client
            .get_upload(GetUploadRequest {
                upload_id: id.into(),
            })
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{id:?}");
        let status = client
            .delete_upload(DeleteUploadRequest {
                upload_id: id.into(),
            })
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{id:?}");
    }
    let elsewhere = FileMetadata {
        storage_id: "nowhere".into(),
        ..file("a")
    };
    let status = refused(&gateway, vec![open_file(elsewhere)]).await;
    assert_eq!(
        reason(&status),
        (Code::NotFound, "STORAGE_NOT_FOUND".into())
    );
}

#[tokio::test]
async fn an_upload_that_is_over_takes_no_more() {
    let gateway = TestGateway::start().await;
    let (upload_id, _) = with_one_part(&gateway, None).await;
    let mut client = gateway.client().await;
    client
        .delete_upload(DeleteUploadRequest {
            upload_id: upload_id.clone(),
        })
        .await
        .unwrap();
    let status = refused(
        &gateway,
        vec![open_known(&upload_id), chunk(PART, b"abc"), finish()],
    )
    .await;
    assert_eq!(
        reason(&status),
        (Code::FailedPrecondition, "WRONG_PHASE".into())
    );

    let done = gateway
        .upload(vec![open("a", None), chunk(0, b"abc"), finish()])
        .await
        .unwrap();
    let request = DeleteUploadRequest {
        upload_id: done.upload_id.clone(),
    };
    let status = client.delete_upload(request).await.unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::FailedPrecondition, "WRONG_PHASE".into())
    );
    assert_eq!(gateway.read(&done).await, b"abc");
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused_and_odd_ones_taken() {
    let gateway = TestGateway::start().await;
    let long = "n".repeat(10_000);
    for name in [
        "",
        "a/b",
        "..\\b",
        "..",
        "a\nb",
        "a\u{0}",
        "NUL",
        "com1.txt",
        "a\u{ff0f}b",
        "a\u{202e}gpj.exe",
        &long,
    ] {
        let status = refused(&gateway, vec![open(name, None), chunk(0, b"abc"), finish()]).await;
        assert_eq!(
            reason(&status),
            (Code::InvalidArgument, "INVALID_FIELD".into()),
            "{name:?}"
        );
        assert_eq!(fields(&status), ["file.file_name"], "{name:?}");
    }
    for name in [
        "später & mehr?.bin",
        "图片.png",
        " ",
        "-rf",
        "%2e%2e%2f",
        "<script>",
    ] {
        let upload = gateway
            .upload(vec![open(name, None), chunk(0, b"abc"), finish()])
            .await
            .unwrap();
        assert_eq!(upload.file.as_ref().unwrap().file_name, name);
        assert_eq!(gateway.read(&upload).await, b"abc", "{name:?}");
    }
}

/// An `UploadRequest` whose file name need not be UTF-8.
#[derive(Clone, PartialEq, prost::Message)]
struct RawRequest {
    #[prost(message, optional, tag = "1")]
    open: Option<RawOpen>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawOpen {
    #[prost(message, optional, tag = "1")]
    file: Option<RawFile>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawFile {
    #[prost(bytes = "vec", tag = "1")]
    file_name: Vec<u8>,
}

#[tokio::test]
async fn names_that_are_no_utf8_are_refused() {
    let gateway = TestGateway::start().await;
    let channel = tonic::transport::Endpoint::new(gateway.grpc.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    // An overlong `/`, a surrogate, a lone continuation byte.
    for name in [&b"a\xc0\xafb"[..], b"\xed\xa0\x80", b"\x80"] {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let request = RawRequest {
            open: Some(RawOpen {
                file: Some(RawFile {
                    file_name: name.to_vec(),
                }),
            }),
        };
        let codec = tonic_prost::ProstCodec::<RawRequest, UploadResponse>::default();
        let path = PathAndQuery::from_static("/uploadgateway.v1.UploadService/Upload");
        let stream = tonic::Request::new(tokio_stream::iter([request]));
        let status = client
            .client_streaming(stream, path, codec)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    UploadServiceClient::new(channel)
        .get_limits(GetLimitsRequest::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused() {
    let gateway = TestGateway::start().await;
    let (upload_id, data) = with_one_part(&gateway, None).await;
    let status = refused(
        &gateway,
        vec![open_known(&upload_id), chunk(PART, &bytes(4 << 20))],
    )
    .await;
    assert_eq!(
        reason(&status),
        (Code::InvalidArgument, "INVALID_SEQUENCE".into())
    );
    assert_eq!(metadata(&status, "max_message_size"), (4 << 20).to_string());
    is_unharmed(&gateway, &upload_id, &data).await;
}

#[tokio::test]
async fn a_silent_stream_is_ended_and_resumes() {
    let gateway = TestGateway::with(|config| config.limits.idle_timeout_seconds = 1).await;
    let (upload_id, data) = with_one_part(&gateway, None).await;
    let mut stream = gateway.converse().await;
    stream.send(open_known(&upload_id)).await;
    stream.next().await.unwrap();
    stream.send(chunk(PART, b"abc")).await;
    let status = loop {
        if let Err(status) = stream.next().await {
            break status;
        }
    };
    assert_eq!(reason(&status), (Code::Unavailable, "IDLE_TIMEOUT".into()));
    assert!(status.get_details_retry_info().is_some());
    is_unharmed(&gateway, &upload_id, &data).await;
}

#[tokio::test]
async fn listings_refuse_what_makes_no_page() {
    let gateway = TestGateway::start().await;
    let mut client = gateway.client().await;
    for (request, field) in [
        (
            ListUploadsRequest {
                page_size: -1,
                ..ListUploadsRequest::default()
            },
            "page_size",
        ),
        (
            ListUploadsRequest {
                page_size: 1001,
                ..ListUploadsRequest::default()
            },
            "page_size",
        ),
        (
            ListUploadsRequest {
                page_token: "x".into(),
                ..ListUploadsRequest::default()
            },
            "page_token",
        ),
        (
            ListUploadsRequest {
                phase: 99,
                ..ListUploadsRequest::default()
            },
            "phase",
        ),
    ] {
        let status = client.list_uploads(request).await.unwrap_err();
        assert_eq!(fields(&status), [field]);
    }
}
