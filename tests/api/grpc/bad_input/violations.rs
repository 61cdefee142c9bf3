//! Requests with several invalid fields: one error names all of them.

use prost_types::Timestamp;
use tonic::Code;
use upload_gateway_client::proto::v1::{
    CompleteUploadRequest, CreateUploadRequest, DeleteUploadRequest, FileMetadata,
    GetResidenceRequest, GetUploadRequest, ListPartsRequest, ListUploadsRequest, Part, PartRef,
    SignDownloadRequest, SignFinishRequest, SignPartRequest, SignPartsRequest, UpdateUploadRequest,
    WatchUploadRequest, signing_service_client::SigningServiceClient, update_upload_request::Next,
    upload_request::Message,
};

use super::{fields, refused};
use crate::common::{TestGateway, finish, open, open_file, open_known, reason};

#[tokio::test]
async fn an_empty_upload_id_is_invalid_in_every_call() {
    let gateway = TestGateway::start().await;
    let mut uploads = gateway.client().await;
    let mut signing = SigningServiceClient::connect(gateway.grpc.clone())
        .await
        .unwrap();
    let status = refused(&gateway, vec![open_known("")]).await;
    assert_eq!(fields(&status), ["open.upload_id"]);
    let part = PartRef {
        part: 1,
        file_id: "0".repeat(32),
    };
    let refusals = [
        uploads
            .get_upload(GetUploadRequest::default())
            .await
            .map(drop),
        uploads
            .delete_upload(DeleteUploadRequest::default())
            .await
            .map(drop),
        uploads
            .list_parts(ListPartsRequest::default())
            .await
            .map(drop),
        uploads
            .watch_upload(WatchUploadRequest::default())
            .await
            .map(drop),
        signing
            .update_upload(UpdateUploadRequest::default())
            .await
            .map(drop),
        signing
            .sign_part(SignPartRequest {
                part: part.part,
                file_id: part.file_id.clone(),
                ..SignPartRequest::default()
            })
            .await
            .map(drop),
        signing
            .sign_parts(SignPartsRequest {
                parts: vec![part],
                ..SignPartsRequest::default()
            })
            .await
            .map(drop),
        signing
            .sign_finish(SignFinishRequest::default())
            .await
            .map(drop),
        signing
            .complete_upload(CompleteUploadRequest::default())
            .await
            .map(drop),
        signing
            .sign_download(SignDownloadRequest::default())
            .await
            .map(drop),
    ];
    for refused in refusals {
        let status = refused.unwrap_err();
        let expected = (Code::InvalidArgument, "INVALID_FIELD".into());
        assert_eq!(reason(&status), expected, "{status:?}");
        assert_eq!(fields(&status), ["upload_id"], "{status:?}");
    }
}

/// A time that no message can have.
const BEFORE_A_SECOND: Timestamp = Timestamp {
    seconds: 1,
    nanos: -1,
};

#[tokio::test]
async fn all_invalid_fields_of_a_call_are_reported_together() {
    let gateway = TestGateway::start().await;
    let mut uploads = gateway.client().await;
    let mut signing = SigningServiceClient::connect(gateway.grpc.clone())
        .await
        .unwrap();
    let invalid = FileMetadata {
        file_name: "a/b".into(),
        file_size: Some(-1),
        file_mime: "text/\n".into(),
        file_id: "no MD5".into(),
        permissions: 99,
        tags: vec!["\u{0}".into()],
        file_path: "\u{200b}".into(),
        ..FileMetadata::default()
    };
    let of_file = [
        "file.file_id",
        "file.file_mime",
        "file.file_name",
        "file.file_path",
        "file.file_size",
        "file.permissions",
        "file.tags",
    ];
    let sorted = |status: &tonic::Status| {
        let mut fields = fields(status);
        fields.sort();
        fields
    };
    let mut opened = open_file(invalid.clone());
    if let Some(Message::Open(open)) = &mut opened.message {
        open.takeover = 99;
    }
    let status = refused(&gateway, vec![opened]).await;
    assert_eq!(sorted(&status), [&of_file[..], &["open.takeover"]].concat());
    for field in of_file {
        assert!(status.message().contains(field), "{status:?}");
    }

    let create = signing.create_upload(CreateUploadRequest {
        file: Some(FileMetadata {
            file_id: String::new(),
            ..invalid.clone()
        }),
    });
    assert_eq!(sorted(&create.await.unwrap_err()), of_file[1..]);
    let check = signing.get_residence(GetResidenceRequest {
        file_name: "..".into(),
        file_size: -1,
        file_mime: "ü".into(),
        ..GetResidenceRequest::default()
    });
    assert_eq!(
        sorted(&check.await.unwrap_err()),
        [of_file[1], of_file[2], of_file[4]]
    );

    let mut finished = finish();
    if let Some(Message::Finish(finish)) = &mut finished.message {
        (finish.file_size, finish.file_id) = (Some(-1), Some("x".into()));
    }
    let status = refused(&gateway, vec![open("a", None), finished]).await;
    assert_eq!(fields(&status), ["finish.file_size", "finish.file_id"]);

    let list = uploads.list_uploads(ListUploadsRequest {
        page_size: -1,
        page_token: "x".into(),
        phase: 99,
        created_after: Some(BEFORE_A_SECOND),
        ..ListUploadsRequest::default()
    });
    let list = list.await.unwrap_err();
    let wrong = ["created_after", "page_size", "page_token", "phase"];
    assert_eq!(sorted(&list), wrong);
    let list = uploads.list_parts(ListPartsRequest {
        page_size: -1,
        page_token: "x".into(),
        ..ListPartsRequest::default()
    });
    let list = list.await.unwrap_err();
    assert_eq!(sorted(&list), ["page_size", "page_token", "upload_id"]);
}

#[tokio::test]
async fn all_invalid_parts_of_a_call_are_reported_together() {
    let gateway = TestGateway::start().await;
    let mut signing = SigningServiceClient::connect(gateway.grpc.clone())
        .await
        .unwrap();
    let part = |part: i32, file_id: &str| PartRef {
        part,
        file_id: file_id.into(),
    };
    let md5 = "0".repeat(32);
    let signed = signing.sign_part(SignPartRequest::default()).await;
    let signed = signed.unwrap_err();
    assert_eq!(fields(&signed), ["upload_id", "part", "file_id"]);
    let signed = signing.sign_parts(SignPartsRequest {
        upload_id: "unknown".into(),
        parts: vec![part(0, &md5), part(1, &md5), part(-1, "x")],
    });
    // That the upload is unknown matters only when the request is valid.
    let expected = ["parts[0].part", "parts[2].part", "parts[2].file_id"];
    assert_eq!(fields(&signed.await.unwrap_err()), expected);
    let updated = signing.update_upload(UpdateUploadRequest {
        part_list: vec![1, 0],
        part_data: vec![Part {
            part: 0,
            md5: "x".into(),
            ..Part::default()
        }],
        next: Some(Next::Part(part(0, ""))),
        ..UpdateUploadRequest::default()
    });
    let expected = [
        "upload_id",
        "part_list[1]",
        "part_data[0].part",
        "part_data[0].md5",
        "part.part",
        "part.file_id",
    ];
    assert_eq!(fields(&updated.await.unwrap_err()), expected);
    let signed = signing.sign_download(SignDownloadRequest {
        expiry_minutes: -1,
        ..SignDownloadRequest::default()
    });
    let expected = ["upload_id", "expiry_minutes"];
    assert_eq!(fields(&signed.await.unwrap_err()), expected);
    // The trailers of a response are limited.
    let many = signing.update_upload(UpdateUploadRequest {
        part_list: vec![0; 10_000],
        ..UpdateUploadRequest::default()
    });
    assert_eq!(fields(&many.await.unwrap_err()).len(), 16);
}
