//! Wrong bytes, offsets, sizes and digests, and messages in the wrong order.

use std::future::poll_fn;

use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};
use prost::Message as _;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Service as _, http},
    transport::Endpoint,
};
use tonic_types::StatusExt;
use upload_gateway_client::proto::v1::{
    Chunk, FileDigest, FileMetadata, Finish, Open, Phase, UploadRequest, upload_request::Message,
};

use super::{PART, assert_unchanged, fields, file, metadata, refused, with_one_part};
use crate::common::{
    TestGateway, bytes, chunk, finish, message, open, open_file, open_known, reason, until,
};

#[tokio::test]
async fn messages_out_of_order_are_refused() {
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
        let sent = format!("{messages:?}");
        let status = refused(&gateway, messages).await;
        assert_eq!(
            reason(&status),
            (Code::InvalidArgument, "INVALID_SEQUENCE".into()),
            "{sent}"
        );
    }
    let status = refused(&gateway, vec![message(Message::Open(Open::default()))]).await;
    assert_eq!(fields(&status), ["open.target"]);
}

#[tokio::test]
async fn malformed_frames_are_refused() {
    let gateway = TestGateway::start().await;
    let opened = open("a", None).encode_to_vec();
    let length = u32::try_from(opened.len()).unwrap().to_be_bytes();
    let whole = [&[0][..], &length, &opened].concat();
    for (malformed, frame) in [
        ("truncated message", &[0, 0, 0, 0, 9, 1, 2][..]),
        ("truncated header", &[0, 0, 0]),
        ("compressed message", &[1, 0, 0, 0, 1, 1]),
        ("unknown flag", &[7, 0, 0, 0, 1, 1]),
        ("other message", &[0, 0, 0, 0, 1, 1]),
    ] {
        let request = http::Request::post(format!(
            "{}/uploadgateway.v1.UploadService/Upload",
            gateway.grpc
        ))
        .header("content-type", "application/grpc")
        .body(Body::new(axum::body::Body::from([&whole, frame].concat())));
        let endpoint = Endpoint::new(gateway.grpc.clone()).unwrap();
        let mut channel = endpoint.connect().await.unwrap();
        poll_fn(|context| channel.poll_ready(context))
            .await
            .unwrap();
        let response = channel.call(request.unwrap()).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(
            reason(&status),
            (Code::InvalidArgument, "INVALID_SEQUENCE".into()),
            "{malformed}: {status:?}"
        );
    }
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
    assert_unchanged(&gateway, &upload_id, &data).await;
}

#[tokio::test]
async fn gaps_and_wrong_first_offsets_return_the_expected_offset() {
    let gateway = TestGateway::start().await;
    let (upload_id, data) = with_one_part(&gateway, None).await;
    for (messages, expected) in [
        // After the committed prefix, and inside a part of it.
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
    assert_unchanged(&gateway, &upload_id, &data).await;
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
    assert_unchanged(&gateway, &upload_id, &data).await;
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
        crc64nvme: None,
    }));
    let status = refused(&gateway, vec![open_known(&upload_id), other]).await;
    assert_eq!(fields(&status), ["finish.file_size"]);
    assert_unchanged(&gateway, &upload_id, &data).await;

    for (promised, code) in [(2, Code::OutOfRange), (4, Code::FailedPrecondition)] {
        let finish = message(Message::Finish(Finish {
            file_size: Some(promised),
            file_id: None,
            crc64nvme: None,
        }));
        let status = refused(&gateway, vec![open("a", None), chunk(0, b"abc"), finish]).await;
        assert_eq!(status.code(), code, "{promised}");
    }
}

#[tokio::test]
async fn impossible_sizes_are_refused_before_any_byte() {
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
    // Of unknown size: refused when the bytes exceed the limit.
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
async fn malformed_digests_are_refused() {
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
            crc64nvme: None,
        }));
        let status = refused(&gateway, vec![open("a", None), finish]).await;
        assert_eq!(fields(&status), ["finish.file_id"], "{text}");
    }
    let contradictory = FileMetadata {
        file_id: STANDARD.encode([0; 16]),
        file_digest: FileDigest::None.into(),
        ..file("a")
    };
    let status = refused(&gateway, vec![open_file(contradictory)]).await;
    assert_eq!(fields(&status), ["file.file_digest"]);
}

#[tokio::test]
async fn a_wrong_digest_aborts_the_upload_and_leaves_nothing_in_the_store() {
    let gateway = TestGateway::with(|config| config.sweeper.interval_seconds = 1).await;
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
                file_digest: FileDigest::Md5.into(),
                ..file("a")
            };
            let finish = Finish {
                file_size: None,
                file_id: in_finish.then_some(wrong),
                crc64nvme: None,
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
            assert_eq!(reason(&status), (Code::DataLoss, "DIGEST_MISMATCH".into()));
        }
    }
    let s3 = gateway.s3();
    until("the sweeper removes everything", async || {
        let listed = s3.list_objects_v2().bucket("uploads").send().await;
        let sessions = s3.list_multipart_uploads().bucket("uploads").send().await;
        listed.unwrap().contents().is_empty() && sessions.unwrap().uploads().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_digest_cannot_be_checked_if_none_is_kept() {
    let gateway = TestGateway::start().await;
    let create = open_file(FileMetadata {
        file_digest: FileDigest::None.into(),
        ..file("a")
    });
    let finish = Finish {
        file_size: None,
        file_id: Some(STANDARD.encode(Md5::digest(b"abc"))),
        crc64nvme: None,
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
async fn a_wrong_checksum_loses_one_chunk_and_no_part() {
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
    assert_unchanged(&gateway, &upload_id, &data).await;
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
    assert_unchanged(&gateway, &upload_id, &data).await;
}

#[tokio::test]
async fn an_idle_stream_ends_and_can_resume() {
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
    assert_unchanged(&gateway, &upload_id, &data).await;
}
