//! Unknown ids, invalid names, uploads that have ended, and invalid pages.

use tonic::{Code, codegen::http::uri::PathAndQuery};
use upload_gateway_client::proto::v1::{
    DeleteUploadRequest, FileMetadata, GetLimitsRequest, GetUploadRequest, ListPartsRequest,
    ListUploadsRequest, UploadResponse, upload_service_client::UploadServiceClient,
};

use super::{PART, fields, file, refused, with_one_part};
use crate::common::{TestGateway, chunk, finish, open, open_file, open_known, reason};

#[tokio::test]
async fn unknown_uploads_are_not_found() {
    let gateway = TestGateway::start().await;
    let mut client = gateway.client().await;
    let unknown = format!("uploads-{:016x}-{:032x}", 1, 2);
    for id in [
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
async fn an_upload_that_has_ended_accepts_nothing() {
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
    client.delete_upload(request).await.unwrap();
    let status = refused(
        &gateway,
        vec![open_known(&done.upload_id), chunk(0, b"abc"), finish()],
    )
    .await;
    assert_eq!(reason(&status), (Code::NotFound, "UPLOAD_NOT_FOUND".into()));
}

#[tokio::test]
async fn names_that_contain_paths_are_refused_and_unusual_ones_accepted() {
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
        "a\u{61c}b",
        "a\u{e0041}b",
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
        "می\u{200c}خواهم.pdf",
        "\u{1f468}\u{200d}\u{1f467}.jpg",
        "Screenshot 2025-03-18 at 4.09.02 p.m..png",
        "...",
    ] {
        let upload = gateway
            .upload(vec![open(name, None), chunk(0, b"abc"), finish()])
            .await
            .unwrap();
        assert_eq!(upload.file.as_ref().unwrap().file_name, name);
        assert_eq!(gateway.read(&upload).await, b"abc", "{name:?}");
    }
}

#[tokio::test]
async fn a_refused_character_is_named_in_every_text() {
    let gateway = TestGateway::start().await;
    let hidden = "a\u{180e}b";
    let file = FileMetadata {
        file_name: hidden.into(),
        tags: vec![hidden.into()],
        file_path: hidden.into(),
        ..FileMetadata::default()
    };
    for (field, file) in [
        (
            "file.file_name",
            FileMetadata {
                tags: vec![],
                file_path: String::new(),
                ..file.clone()
            },
        ),
        (
            "file.tags",
            FileMetadata {
                file_name: "a".into(),
                file_path: String::new(),
                ..file.clone()
            },
        ),
        (
            "file.file_path",
            FileMetadata {
                file_name: "a".into(),
                tags: vec![],
                ..file.clone()
            },
        ),
    ] {
        let status = refused(&gateway, vec![open_file(file)]).await;
        assert_eq!(fields(&status), [field]);
        assert!(status.message().contains("U+180E"), "{status:?}");
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
async fn names_that_are_not_utf8_are_refused() {
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
async fn listings_refuse_invalid_page_sizes_tokens_and_phases() {
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

#[tokio::test]
async fn listings_of_parts_refuse_invalid_page_sizes_tokens_and_unknown_uploads() {
    let gateway = TestGateway::start().await;
    let mut client = gateway.client().await;
    let request = |upload_id: String, page_size, page_token: &str| ListPartsRequest {
        upload_id,
        page_size,
        page_token: page_token.into(),
    };
    let unknown = || format!("uploads-{:016x}-{:032x}", 1, 1);
    for (request, field) in [
        (request(unknown(), -1, ""), "page_size"),
        (request(unknown(), 1, "x"), "page_token"),
    ] {
        let status = client.list_parts(request).await.unwrap_err();
        assert_eq!(fields(&status), [field]);
    }
    for upload_id in [unknown(), "x".into()] {
        let status = client.list_parts(request(upload_id, 0, "")).await;
        assert_eq!(status.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn too_many_or_too_long_tags_are_refused() {
    let gateway = TestGateway::start().await;
    let tagged = |tags: Vec<String>| FileMetadata {
        file_name: "a.bin".into(),
        tags,
        ..FileMetadata::default()
    };
    let longest = "x".repeat(64);
    for tags in [vec!["a".into(); 17], vec![format!("{longest}x")]] {
        let mut stream = gateway.converse().await;
        stream.send(open_file(tagged(tags))).await;
        assert_eq!(fields(&stream.failure().await), ["file.tags"]);
    }
    let mut stream = gateway.converse().await;
    stream.send(open_file(tagged(vec![longest; 16]))).await;
    stream.next().await.unwrap();
}

/// A permission that this gateway does not know may be stricter than those that it knows.
#[tokio::test]
async fn unknown_permissions_are_refused() {
    let gateway = TestGateway::start().await;
    let file = FileMetadata {
        file_name: "a.bin".into(),
        permissions: 99,
        ..FileMetadata::default()
    };
    let status = gateway
        .upload(vec![open_file(file), finish()])
        .await
        .unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::InvalidArgument, "INVALID_FIELD".into())
    );
}

/// Texts that an error repeats become headers, and what becomes a header of the object is checked at Open.
#[tokio::test]
async fn texts_that_are_invalid_in_headers_are_refused() {
    let gateway = TestGateway::start().await;
    let file = FileMetadata {
        file_name: "a.bin".into(),
        storage_id: "x".repeat(100_000),
        ..FileMetadata::default()
    };
    let status = gateway.upload(vec![open_file(file)]).await.unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::NotFound, "STORAGE_NOT_FOUND".into())
    );
    let file = FileMetadata {
        file_name: "a.bin".into(),
        file_mime: "text/später".into(),
        ..FileMetadata::default()
    };
    let status = gateway
        .upload(vec![open_file(file), finish()])
        .await
        .unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::InvalidArgument, "INVALID_FIELD".into())
    );
}

/// Offsets and sizes at the ends of their ranges.
#[tokio::test]
async fn extreme_offsets_and_sizes_are_refused() {
    let gateway = TestGateway::start().await;
    for (declared, messages, expected) in [
        (Some(0), vec![chunk(0, b"a"), finish()], "SIZE_EXCEEDED"),
        (
            None,
            vec![chunk(usize::try_from(i64::MAX).unwrap(), b"a")],
            "WRONG_OFFSET",
        ),
        (
            Some(usize::try_from(i64::MAX).unwrap()),
            vec![],
            "FILE_TOO_LARGE",
        ),
        (Some(PART + 1), vec![finish()], "INCOMPLETE"),
    ] {
        let messages = [vec![open("a.bin", declared)], messages].concat();
        let status = gateway.upload(messages).await.unwrap_err();
        assert_eq!(reason(&status).1, expected);
    }
}
