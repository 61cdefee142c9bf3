//! PlaceOS's published client, `@placeos/cloud-uploads`, as a black box.

use serde_json::{Value, json};
use upload_gateway::config::PartDataForm;

use super::{World, stores::Stores};
use crate::rest::client::Http;

/// In one request, in one S3 part, and in several parts.
const FILES: [(&str, usize); 3] = [
    ("direct.bin", 5_000_000),
    ("one.bin", 5_000_001),
    ("parts.bin", 12_582_913),
];

/// The client reads `part_data` as an object.
fn configure(stores: &mut Stores) {
    stores.config.rest.part_data = PartDataForm::Map;
}

fn end(upload: &Value) -> &str {
    upload["end"].as_str().unwrap()
}

#[tokio::test]
async fn it_uploads_to_the_embedded_s3() {
    let Some(world) = World::embedded_with(configure).await else {
        return;
    };
    let results = world.drive(&[("published", &FILES)]).await;
    for upload in results[0].as_array().unwrap() {
        assert_eq!(end(upload), "complete", "{upload}");
    }
    world.assert_stored(&FILES).await;
}

/// The client cuts 2 MiB. What it does wrong on Azure, whatever the gateway answers: of a file that is put in one request it
/// sends only the first 2 MiB, and it never sends the commit of a file in parts, because it compares the length of a
/// function with 1. So the small file has 2 MiB, and the test sends the commit.
#[tokio::test]
async fn it_uploads_small_files_and_the_parts_of_files_to_azure() {
    let Some(world) = World::azure_with(configure).await else {
        return;
    };
    let files = [("direct.bin", 2 << 20), FILES[1], FILES[2]];
    let results = world.drive(&[("published", &files)]).await;
    let [direct, in_parts @ ..] = results[0].as_array().unwrap().as_slice() else {
        panic!("{results:?}");
    };
    assert_eq!(end(direct), "complete", "{direct}");
    let http = Http::of(&world.gateway);
    for upload in in_parts {
        assert_eq!(end(upload), "reported", "{upload}");
        let id = upload["id"].as_str().unwrap();
        let finish = http.get(&format!("/{id}/edit?part=finish")).await.json();
        let body = finish["body"].as_str().unwrap().to_owned();
        http.deliver(&finish, body.into_bytes()).await;
        let done = http.call("PUT", &format!("/{id}"), json!({})).await;
        assert_eq!(done.json(), json!({"ok": true}));
    }
    world.assert_stored(&files).await;
}
