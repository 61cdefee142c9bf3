//! An upgrade mixes releases: this one reads what an earlier one wrote, and writes what that one reads.

use std::collections::BTreeMap;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use redis::AsyncCommands;
use serde::Deserialize;
use serde_json::Value;
use upload_gateway::state::redis::Redis;
use upload_gateway_core::{
    gateway::TokenKey,
    state::{PartRecord, PartStore, Predecessor, RecordStore},
    upload::{PART_SIZE, UploadId},
};

use super::{common, config, samples::*};

/// What a release had in Redis that knew no origins of uploads, after two parts of a stream, and the resume token that it gave
/// the sender.
#[derive(Deserialize)]
struct Written {
    keys: BTreeMap<String, Stored>,
    resume_token: String,
}

/// The value of a key, in base64.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Text(String),
    Hash(BTreeMap<String, String>),
}

fn written() -> Written {
    serde_json::from_str(include_str!("earlier-release.json")).unwrap()
}

fn decoded(base64: &str) -> Vec<u8> {
    STANDARD.decode(base64).unwrap()
}

fn id() -> UploadId {
    "uploads-e8b85f837bc981ae-db7c074c5fe14627039db674fb4d0161"
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_stream_resumes_on_the_record_of_an_earlier_release() {
    let Some(backend) = common::redis().await else {
        return;
    };
    let client = redis::Client::open(&*backend.url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for (key, value) in written().keys {
        let () = match value {
            Stored::Text(text) => connection.set(key, decoded(&text)).await.unwrap(),
            Stored::Hash(fields) => {
                let fields = fields.into_iter();
                let fields: Vec<_> = fields.map(|(name, text)| (name, decoded(&text))).collect();
                connection.hset_multiple(key, &fields).await.unwrap()
            }
        };
    }
    let store = Redis::connect(&config([backend.url.clone()]))
        .await
        .unwrap();
    let upload = get(&store, &id()).await;
    assert_eq!(upload.file.file_name, "zeros.bin");
    assert_eq!(upload.origin, None);
    let taken = store.take_over(&upload.id, writer(2), Predecessor::Any, times());
    let upload = taken.await.unwrap().unwrap();
    assert_eq!(upload.committed_size(), 2 * PART_SIZE);
    let parts = [part(3)];
    let recorded = store.record_parts(&upload.id, writer(2), 0, &parts, times());
    let recorded = recorded.await.unwrap();
    assert_eq!(recorded, PartRecord::Recorded { committed: 3 });
}

#[test]
fn a_token_of_an_earlier_release_is_opened_and_new_ones_have_the_same_fields() {
    let key = TokenKey::new("test", b"01234567890123456789012345678901");
    let token = URL_SAFE_NO_PAD.decode(written().resume_token).unwrap();
    let snapshot = key.open(&token).unwrap();
    assert_eq!(snapshot.id, id());
    // The earlier release refuses a token with any other field.
    let Value::Object(fields) = serde_json::to_value(&snapshot).unwrap() else {
        panic!("no object");
    };
    let fields: String = fields.keys().map(String::as_str).collect();
    assert_eq!(fields, "cdefiklnopqrstuvx");
}
