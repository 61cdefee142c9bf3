//! Every way in which an object gets into a store: through the gateway, with signed requests, and made by the gateway itself.

use std::io::Write as _;

use serde_json::json;
use upload_gateway_client::proto::v1::{
    CopyUploadRequest, FileMetadata, KeepUploadRequest, MoveUploadRequest, Placement, Upload,
    UploadProgress,
};
use upload_gateway_core::upload::Md5;

use super::{file, send};
use crate::{
    common::{TestGateway, bytes, signing_client::Client},
    rest::client::{Http, file as described, part_of, text},
};

/// The smallest file that takes two parts.
pub(super) const TWO_PARTS: usize = 5 * 1024 * 1024 + 1000;

/// A file of this size, for which only the storage decides how it is stored.
pub(super) fn plain(size: Option<usize>) -> FileMetadata {
    FileMetadata {
        file_size: size.map(|size| i64::try_from(size).unwrap()),
        placement: None,
        ..file(0, Placement::default())
    }
}

/// Makes objects in every way, and returns the uploads.
pub(super) async fn every_way_in(gateway: &TestGateway) -> Vec<Upload> {
    let mut made = Vec::new();
    for size in [1000, TWO_PARTS] {
        let data = bytes(size);
        let known = send(gateway, plain(Some(size)), &data).await.unwrap();
        made.push(send(gateway, plain(None), &data).await.unwrap());
        made.push(signed(gateway, &data).await);
        made.push(direct(gateway, &data).await);
        made.push(over_http(gateway, &data).await);
        made.push(with_side_object(gateway, &data).await);
        let copy = copied(gateway, &known.upload_id).await;
        made.push(moved(gateway, &copy.upload_id).await);
        made.push(known);
    }
    made
}

async fn signed(gateway: &TestGateway, data: &[u8]) -> Upload {
    let mut client = Client::of(gateway).await;
    if data.len() == TWO_PARTS {
        let id = client.put_parts("film.mp4", data).await;
        return client.finish(&id).await;
    }
    let step = client.create(plain(Some(data.len()))).await.unwrap();
    client.deliver(&step, data.to_vec()).await;
    client.complete(&step.upload_id).await.unwrap()
}

/// By the client library.
async fn direct(gateway: &TestGateway, data: &[u8]) -> Upload {
    let mut local = tempfile::tempfile().unwrap();
    local.write_all(data).unwrap();
    let client = upload_gateway_client::Client::connect(&gateway.grpc).unwrap();
    let sent = client.upload_direct("direct.mp4", local);
    sent.await.unwrap().upload
}

/// As a browser with PlaceOS's library does it.
async fn over_http(gateway: &TestGateway, data: &[u8]) -> Upload {
    let http = Http::of(gateway);
    let id = if data.len() == TWO_PARTS {
        let step = http.call("POST", "", described("http.mp4", data)).await;
        let step = step.json();
        let (id, session) = (text(&step["upload_id"]), http.begin(&step).await);
        let mut report = json!({"resumable_id": session});
        for part in 1..=2 {
            let body = part_of(data, part);
            let md5 = Md5::of(body).to_string();
            let path = format!("/{id}?part={part}&file_id={md5}");
            let step = http.call("PATCH", &path, report).await.json();
            http.deliver(&step, body.to_vec()).await;
            report = json!({"part_list": [1, 2]});
        }
        let step = http.call("PATCH", &format!("/{id}"), report).await.json();
        http.deliver(&step, text(&step["body"]).into_bytes()).await;
        let done = http.call("PUT", &format!("/{id}"), json!({})).await;
        assert_eq!(done.status, 200, "{done:?}");
        id
    } else {
        http.upload("http.mp4", data, &json!({})).await
    };
    gateway.get(&id).await.unwrap()
}

/// With tags in the record, which need a side object, and with another expiry, for which it is replaced.
async fn with_side_object(gateway: &TestGateway, data: &[u8]) -> Upload {
    let tagged = FileMetadata {
        tags: vec!["plans".into()],
        ..plain(Some(data.len()))
    };
    let upload = send(gateway, tagged, data).await.unwrap();
    keep(gateway, &upload.upload_id).await
}

/// Keeps a file for another time, which a side object has.
pub(super) async fn keep(gateway: &TestGateway, id: &str) -> Upload {
    let request = KeepUploadRequest {
        upload_id: id.into(),
        expire_after: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
    };
    let kept = gateway.client().await.keep_upload(request).await;
    kept.unwrap().into_inner()
}

async fn copied(gateway: &TestGateway, id: &str) -> Upload {
    let request = CopyUploadRequest {
        upload_id: id.into(),
        storage_id: String::new(),
    };
    let messages = gateway.client().await.copy_upload(request).await.unwrap();
    last(messages.into_inner()).await
}

async fn moved(gateway: &TestGateway, id: &str) -> Upload {
    let request = MoveUploadRequest {
        upload_id: id.into(),
        storage_id: String::new(),
    };
    let messages = gateway.client().await.move_upload(request).await.unwrap();
    last(messages.into_inner()).await
}

/// The upload in the last message that has one.
async fn last(mut messages: tonic::Streaming<UploadProgress>) -> Upload {
    let mut last = None;
    while let Some(progress) = messages.message().await.unwrap() {
        last = progress.upload.or(last);
    }
    last.unwrap()
}
