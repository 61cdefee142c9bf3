//! As many open uploads as the gateway accepts.

use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt;
use upload_gateway_client::proto::v1::{
    CreateUploadRequest, DeleteUploadRequest, FileMetadata, GetLimitsRequest, Open, UploadRequest,
    open::Target, signing_service_client::SigningServiceClient, upload_request::Message,
};
use upload_gateway_core::upload::Md5;

use crate::{
    common::{self, TestGateway, chunk, finish, message, open, open_file, open_known, reason},
    rest::client::{Http, file},
};

const DATA: &[u8] = b"abc";

/// A file that the same create finds again.
fn known_file() -> FileMetadata {
    FileMetadata {
        file_name: "known.bin".into(),
        file_size: Some(3),
        file_id: Md5::of(DATA).to_string(),
        ..FileMetadata::default()
    }
}

fn restart() -> UploadRequest {
    message(Message::Open(Open {
        target: Some(Target::File(known_file())),
        restart: true,
        ..Open::default()
    }))
}

async fn begin(gateway: &TestGateway, request: UploadRequest) -> String {
    let mut stream = gateway.converse().await;
    stream.send(request).await;
    stream.next().await.unwrap().upload_id
}

#[tokio::test]
async fn at_the_limit_nothing_is_created_but_everything_else_continues() {
    let gateway = TestGateway::with(|config| config.limits.max_open_uploads = 2).await;
    let mut client = gateway.client().await;
    let limits = client.get_limits(GetLimitsRequest::default()).await;
    assert_eq!(limits.unwrap().into_inner().max_open_uploads, 2);
    let first = begin(&gateway, open("a.bin", None)).await;
    let known = begin(&gateway, open_file(known_file())).await;

    let overloaded = (Code::ResourceExhausted, "OVERLOADED".to_owned());
    let mut refused = gateway.converse().await;
    refused.send(open("b.bin", None)).await;
    let status = refused.failure().await;
    assert_eq!(reason(&status), overloaded);
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata["limit"], "max_open_uploads");
    assert_eq!(info.metadata["max_open_uploads"], "2");
    assert!(status.get_details_retry_info().is_some());
    let mut signing = SigningServiceClient::connect(gateway.grpc.clone())
        .await
        .unwrap();
    let request = CreateUploadRequest {
        file: Some(FileMetadata {
            file_name: "b.bin".into(),
            ..known_file()
        }),
    };
    let status = signing.create_upload(request).await.unwrap_err();
    assert_eq!(reason(&status), overloaded);
    let http = Http::of(&gateway);
    let answer = http.call("POST", "", file("b.bin", DATA)).await;
    assert_eq!(
        (answer.status, &answer.json()["reason"]),
        (429, &json!("OVERLOADED"))
    );
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);

    let resumed = begin(&gateway, open_file(known_file())).await;
    assert_eq!(resumed, known);
    let restarted = begin(&gateway, restart()).await;
    assert_ne!(restarted, known);
    assert_eq!(begin(&gateway, open_known(&first)).await, first);
    let whole = vec![open_known(&restarted), chunk(0, DATA), finish()];
    gateway.upload(whole).await.unwrap();
    // The next count shows the room.
    let again = async || {
        gateway
            .upload(vec![open("c.bin", None)])
            .await
            .map_err(|status| reason(&status).1)
    };
    common::until("there is room for one", async || {
        again().await.unwrap_err() == "INCOMPLETE"
    })
    .await;
    let upload_id = first;
    client
        .delete_upload(DeleteUploadRequest { upload_id })
        .await
        .unwrap();
    common::until("there is room for another one", async || {
        again().await.unwrap_err() == "INCOMPLETE"
    })
    .await;
    assert_eq!(again().await.unwrap_err(), "OVERLOADED");
}
