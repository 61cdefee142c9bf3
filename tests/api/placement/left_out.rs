//! A client of Azure that leaves out headers which an account key does not bind. The object has them nevertheless.

use upload_gateway::serve::connect_storage;
use upload_gateway_client::proto::v1::{Placement, Signature, Upload};
use upload_gateway_core::blobs::StoredObject;

use super::file;
use crate::common::{self, AzureBackend, TestGateway, bytes, signing_client::Client};

/// The smallest file that is sent in parts.
const IN_PARTS: usize = 5_000_001;

/// Headers without which Azure refuses the request, or which only check the bytes.
const NEEDED: [&str; 3] = ["x-ms-blob-type", "Content-MD5", "Content-Type"];

fn placement() -> Placement {
    Placement {
        metadata: [("project".into(), "42".into())].into(),
        object_tags: [("team".into(), "a b".into())].into(),
        cache_control: "private".into(),
        content_disposition: "inline".into(),
        content_encoding: "gzip".into(),
        storage_class: "Cool".into(),
        encryption: None,
    }
}

/// Sends a file without the header at `index`, if there is one. Returns the name of that header, and the upload.
async fn sent_without(client: &mut Client, size: usize, index: usize) -> Option<(String, Upload)> {
    let data = bytes(size);
    let mut step = client.create(file(size, placement())).await.unwrap();
    let id = step.upload_id.clone();
    let mut body = data.clone();
    if size >= IN_PARTS {
        client.begin(&step).await;
        client.put_part(&id, 1, &data).await;
        step = client.sign_finish(&id).await.unwrap();
        body = step.body.clone().unwrap().into_bytes();
    }
    let mut signature = step.signature.unwrap();
    let left_out = leave_out(&mut signature, index)?;
    let (status, answer) = client.send(&signature, body).await;
    assert_eq!(status, 201, "without {left_out}: {answer}");
    Some((left_out, client.complete(&id).await.unwrap()))
}

fn leave_out(signature: &mut Signature, index: usize) -> Option<String> {
    let mut names: Vec<String> = signature.headers.keys().cloned().collect();
    names.retain(|name| !NEEDED.contains(&name.as_str()));
    names.sort();
    let name = names.get(index)?.clone();
    signature.headers.remove(&name);
    Some(name)
}

/// What must be equal for every client.
fn comparable(found: StoredObject) -> StoredObject {
    let mut metadata = found.metadata;
    for own in ["uploadid", "uploadrecord"] {
        metadata.insert(own.into(), String::new());
    }
    StoredObject {
        etag: String::new(),
        modified_at: None,
        metadata,
        ..found
    }
}

async fn every_header_may_be_left_out(azure: &AzureBackend) {
    let storage = azure.storage();
    let store = connect_storage(&storage).await.unwrap();
    let gateway = TestGateway::with(|config| config.storage = vec![storage]).await;
    let mut client = Client::of(&gateway).await;
    for size in [1000, IN_PARTS] {
        let mut whole: Option<StoredObject> = None;
        let mut count = 0;
        while let Some((left_out, upload)) = sent_without(&mut client, size, count).await {
            let object = upload.object.unwrap();
            let found = store.head(&object.key).await.unwrap().unwrap();
            assert_eq!(found.upload_id(), Some(upload.upload_id.as_str()));
            assert_eq!(found.etag, object.etag, "without {left_out}");
            let placement = &found.placement;
            assert_eq!(found.mime.as_deref(), Some("video/mp4"));
            assert_eq!(found.metadata["project"], "42");
            assert_eq!(placement.cache_control.as_deref(), Some("private"));
            assert_eq!(placement.storage_class.as_deref(), Some("Cool"));
            let tags = azure.tags(&object.key).await;
            assert_eq!(tags, [("team".into(), "a b".into())].into());
            let found = comparable(found);
            let expected = whole.get_or_insert_with(|| found.clone());
            assert_eq!(found, *expected, "without {left_out}");
            count += 1;
        }
        assert!(count >= 8, "{count} headers were left out");
    }
}

#[tokio::test]
async fn on_azurite() {
    let Some(azure) = common::azure().await else {
        return;
    };
    every_header_may_be_left_out(&azure).await;
}

#[tokio::test]
async fn on_azure_in_memory() {
    let (_server, azure) = common::memory_azure().await;
    every_header_may_be_left_out(&azure).await;
}
