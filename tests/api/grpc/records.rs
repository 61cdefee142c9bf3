//! The calls on records: listing, deleting and watching.

use std::time::Duration;

use prost::Message;
use upload_gateway_client::proto::v1::{
    CreateUploadRequest, DeleteUploadRequest, FileMetadata, ListUploadsRequest, Phase,
    WatchUploadRequest, signing_service_client::SigningServiceClient,
};

use super::upload::{PART, whole};
use crate::common::{TestGateway, bytes, chunk, finish, open};

#[tokio::test]
async fn uploads_are_listed_newest_first_page_by_page_and_by_phase() {
    let gateway = TestGateway::start().await;
    let mut client = gateway.client().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(
            gateway
                .upload(whole("a.bin", b"abc", 3))
                .await
                .unwrap()
                .upload_id,
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut open_one = gateway.converse().await;
    open_one.send(open("b.bin", None)).await;
    let open_id = open_one.next().await.unwrap().upload_id;
    ids.push(open_id.clone());
    ids.reverse();

    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListUploadsRequest {
            page_size: 2,
            page_token,
            phase: 0,
            ..ListUploadsRequest::default()
        };
        let page = client.list_uploads(request).await.unwrap().into_inner();
        assert!(page.uploads.len() <= 2);
        listed.extend(page.uploads.into_iter().map(|upload| upload.upload_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, ids);

    let request = ListUploadsRequest {
        phase: Phase::Open.into(),
        ..ListUploadsRequest::default()
    };
    let open_ones = client
        .list_uploads(request)
        .await
        .unwrap()
        .into_inner()
        .uploads;
    assert_eq!(
        open_ones
            .iter()
            .map(|upload| &upload.upload_id)
            .collect::<Vec<_>>(),
        [&open_id]
    );
}

#[tokio::test]
async fn uploads_are_found_by_all_filters_together() {
    let gateway = TestGateway::start().await;
    let mut client = gateway.client().await;
    let mut ids = Vec::new();
    for name in ["Plan b.pdf", "plan a.pdf", "notes.txt"] {
        ids.push(gateway.upload(whole(name, b"abc", 3)).await.unwrap());
    }
    let plans = ListUploadsRequest {
        name_prefix: "PLAN".into(),
        name_contains: ".pdf".into(),
        file_mime: "application/pdf".into(),
        phase: Phase::Complete.into(),
        storage_id: ids[0].storage_id.clone(),
        created_after: ids[0].created_at,
        page_size: 1,
        ..ListUploadsRequest::default()
    };
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListUploadsRequest {
            page_token,
            ..plans.clone()
        };
        let page = client.list_uploads(request).await.unwrap().into_inner();
        listed.extend(page.uploads.into_iter().map(|upload| upload.upload_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, [1, 0].map(|at: usize| ids[at].upload_id.clone()));
    for none in [
        ListUploadsRequest {
            tags: vec!["x".into()],
            ..plans.clone()
        },
        ListUploadsRequest {
            created_before: ids[0].created_at,
            ..plans.clone()
        },
        ListUploadsRequest {
            storage_id: "other".into(),
            ..plans
        },
    ] {
        let page = client.list_uploads(none).await.unwrap().into_inner();
        assert_eq!(
            (page.uploads, page.next_page_token),
            (vec![], String::new())
        );
    }
}

/// A default client accepts messages of 4 MiB.
#[tokio::test]
async fn a_page_of_the_largest_records_has_at_most_a_mebibyte() {
    let gateway = TestGateway::start().await;
    let ids = create_largest(&gateway, 300).await;
    let mut client = gateway.client().await;
    let (mut listed, mut sizes, mut page_token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let request = ListUploadsRequest {
            page_size: i32::MAX,
            page_token,
            phase: 0,
            ..ListUploadsRequest::default()
        };
        let page = client.list_uploads(request).await.unwrap().into_inner();
        sizes.push(page.encoded_len());
        listed.extend(page.uploads.into_iter().map(|upload| upload.upload_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(sizes.iter().all(|size| *size <= 1 << 20), "{sizes:?}");
    assert!(sizes.len() > 1 && sizes[0] > 1_000_000, "{sizes:?}");
    listed.sort();
    assert_eq!(listed, ids);
}

/// Creates signed uploads with metadata of the greatest length; their ids in order.
pub(crate) async fn create_largest(gateway: &TestGateway, count: usize) -> Vec<String> {
    let mut client = SigningServiceClient::connect(gateway.grpc.clone())
        .await
        .unwrap();
    let tag = |tag: usize| format!("{tag:064}");
    let mut ids = Vec::new();
    for number in 0..count {
        let file = FileMetadata {
            file_name: format!("{number:01024}"),
            file_size: Some(10_000_000),
            file_id: format!("{number:0255}"),
            file_mime: "x".repeat(255),
            file_path: "p".repeat(1024),
            tags: (0..16).map(tag).collect(),
            ..FileMetadata::default()
        };
        let request = CreateUploadRequest { file: Some(file) };
        let step = client.create_upload(request).await.unwrap().into_inner();
        ids.push(step.upload_id);
    }
    ids.sort();
    ids
}

#[tokio::test]
async fn delete_aborts_the_upload_and_its_session_in_the_store() {
    let gateway = TestGateway::start().await;
    let mut client = gateway.client().await;
    let data = bytes(PART + 10);
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", None)).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    stream.send_in_chunks(0, &data, 1 << 20).await;
    stream.committed(PART).await;
    let sessions = || async {
        let listed = gateway
            .s3()
            .list_multipart_uploads()
            .bucket("uploads")
            .send()
            .await
            .unwrap();
        listed.uploads().len()
    };
    assert_eq!(sessions().await, 1);
    for _ in 0..2 {
        let request = DeleteUploadRequest {
            upload_id: upload_id.clone(),
        };
        let deleted = client.delete_upload(request).await.unwrap().into_inner();
        assert_eq!(deleted.phase(), Phase::Aborted);
        assert_eq!(sessions().await, 0);
    }
}

#[tokio::test]
async fn watching_an_upload_ends_when_it_is_complete() {
    let gateway = TestGateway::start().await;
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", None)).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    let mut client = gateway.client().await;
    let mut watched = client
        .watch_upload(WatchUploadRequest {
            upload_id: upload_id.clone(),
        })
        .await
        .unwrap()
        .into_inner();
    let first = watched.message().await.unwrap().unwrap();
    assert_eq!(first.upload.unwrap().upload_id, upload_id);
    stream.send(chunk(0, b"abc")).await;
    stream.send(finish()).await;
    stream.end().await.unwrap();
    let mut last = None;
    while let Some(progress) = watched.message().await.unwrap() {
        last = Some(progress);
    }
    assert_eq!(last.unwrap().upload.unwrap().phase(), Phase::Complete);
}
