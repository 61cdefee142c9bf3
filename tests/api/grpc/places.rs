//! More lists, watches and downloads at once than the gateway has places for.

use tokio_stream::StreamExt;
use tonic::{
    Code, Request, Response, Status, Streaming,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;
use upload_gateway_client::proto::v1::{
    DownloadRequest, GetLimitsRequest, ListUploadsRequest, ListUploadsResponse, WatchUploadRequest,
};

use super::{records::create_largest, upload::whole};
use crate::common::{self, TestGateway, bytes, open, reason};

/// The initial window of HTTP/2 (RFC 9113, section 6.9.2).
const WINDOW: u32 = 65_535;

/// Lists a page of 1,000 uploads and does not read it.
async fn list_unread(channel: &Channel) -> Result<Streaming<ListUploadsResponse>, Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let request = ListUploadsRequest {
        page_size: 1_000,
        ..ListUploadsRequest::default()
    };
    let path = "/uploadgateway.v1.UploadService/ListUploads";
    let codec = tonic_prost::ProstCodec::default();
    let answer = client.server_streaming(Request::new(request), path.parse().unwrap(), codec);
    Ok(answer.await?.into_inner())
}

async fn channel(gateway: &TestGateway) -> Channel {
    let endpoint = Endpoint::from_shared(gateway.grpc.clone()).unwrap();
    let endpoint = endpoint
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(100 * WINDOW);
    endpoint.connect().await.unwrap()
}

#[tokio::test]
async fn lists_that_are_not_read_give_way_to_others() {
    let gateway = TestGateway::with(|config| config.limits.max_lists = 2).await;
    create_largest(&gateway, 260).await;
    let channel = channel(&gateway).await;
    let mut unread = Vec::new();
    for _ in 0..5 {
        unread.push(list_unread(&channel).await.unwrap());
    }
    let http = reqwest::get(format!("{}{}", gateway.http, upload_gateway::rest::BASE));
    assert_eq!(http.await.unwrap().status(), 200);
    let mut whole = 0;
    for mut answer in unread {
        match answer.next().await.unwrap() {
            Ok(page) => {
                assert!(page.uploads.len() > 200);
                whole += 1;
            }
            Err(status) => assert_ne!(status.code(), Code::Ok),
        }
    }
    assert!(whole <= 1, "{whole} answers were kept");
}

#[tokio::test]
async fn a_watch_beyond_the_limit_is_refused_until_another_one_ends() {
    let gateway = TestGateway::with(|config| config.limits.max_watches = 2).await;
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", None)).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    let client = gateway.client().await;
    let limits = client.clone().get_limits(GetLimitsRequest::default()).await;
    assert_eq!(limits.unwrap().into_inner().max_watches, 2);
    let watch = || async {
        let upload_id = upload_id.clone();
        let mut client = client.clone();
        let answer = client.watch_upload(WatchUploadRequest { upload_id });
        answer.await.map(Response::into_inner)
    };
    let mut watches = vec![watch().await.unwrap(), watch().await.unwrap()];
    let refused = watch().await.unwrap_err();
    let overloaded = (Code::ResourceExhausted, "OVERLOADED".to_owned());
    assert_eq!(reason(&refused), overloaded);
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.metadata["limit"], "max_watches");
    assert!(refused.get_details_retry_info().is_some());
    watches.pop();
    common::until("a place is free again", async || watch().await.is_ok()).await;
}

#[tokio::test]
async fn a_download_beyond_the_limit_is_refused_until_another_one_ends() {
    let gateway = TestGateway::with(|config| config.limits.max_downloads = 1).await;
    // More than the windows of a connection hold.
    let data = bytes(4 << 20);
    let upload = gateway
        .upload(whole("a.bin", &data, 1 << 20))
        .await
        .unwrap();
    let client = gateway.client().await;
    let download = || async {
        let request = DownloadRequest {
            upload_id: upload.upload_id.clone(),
            ..DownloadRequest::default()
        };
        let answer = client.clone().download(request).await;
        answer.map(Response::into_inner)
    };
    let unread = download().await.unwrap();
    let refused = download().await.unwrap_err();
    let overloaded = (Code::ResourceExhausted, "OVERLOADED".to_owned());
    assert_eq!(reason(&refused), overloaded);
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.metadata["limit"], "max_downloads");
    drop(unread);
    common::until("a place is free again", async || download().await.is_ok()).await;
}

#[tokio::test]
async fn calls_that_have_sent_nothing_end_for_others() {
    let gateway = TestGateway::with(|config| config.limits.max_calls = 2).await;
    let mut client = gateway.client().await;
    let mut silent = [gateway.converse().await, gateway.converse().await];
    let limits = client.get_limits(GetLimitsRequest::default()).await;
    assert_eq!(limits.unwrap().into_inner().max_calls, 2);
    // One of them has ended.
    let mut opened = 0;
    for stream in &mut silent {
        stream.send(open("a.bin", None)).await;
        opened += usize::from(stream.next().await.is_ok());
    }
    assert_eq!(opened, 1);
}

#[tokio::test]
async fn health_is_reported_while_all_calls_are_busy() {
    let gateway = TestGateway::with(|config| config.limits.max_calls = 1).await;
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", None)).await;
    stream.next().await.unwrap();
    let mut client = gateway.client().await;
    let refused = client.get_limits(GetLimitsRequest::default()).await;
    let info = refused.unwrap_err().get_details_error_info().unwrap();
    assert_eq!(info.reason, "OVERLOADED");
    assert_eq!(info.metadata["limit"], "max_calls");
    let mut health = HealthClient::new(channel(&gateway).await);
    let checked = health.check(HealthCheckRequest::default()).await;
    checked.unwrap();
    let ready = reqwest::get(format!("{}/readyz", gateway.http));
    assert_eq!(ready.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_watch_of_the_health_ends_for_another_call() {
    let gateway = TestGateway::with(|config| config.limits.max_calls = 1).await;
    let mut health = HealthClient::new(channel(&gateway).await);
    let watched = health.watch(HealthCheckRequest::default()).await;
    let mut watched = watched.unwrap().into_inner();
    watched.next().await.unwrap().unwrap();
    let mut client = gateway.client().await;
    let limits = client.get_limits(GetLimitsRequest::default()).await;
    limits.unwrap();
    assert!(watched.next().await.is_none_or(|next| next.is_err()));
}
