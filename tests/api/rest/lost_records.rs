//! Files of PlaceOS clients after their records were made compact, and after Redis has lost them: their addresses stay valid, and
//! they can be deleted.

use serde_json::{Value, json};
use upload_gateway::{config::KeyConfig, serve::connect};
use upload_gateway_core::upload::Timestamp;

use super::{
    client::{Http, file, text},
    common::{
        bytes,
        stores::{self, Stores, has_object, key},
    },
};

/// How many small files there are.
const SMALL: usize = 100;

#[tokio::test]
async fn links_stay_valid_on_s3() {
    if let Some(stores) = stores::s3().await {
        links_stay_valid(stores).await;
    }
}

#[tokio::test]
async fn links_stay_valid_on_azure() {
    if let Some(stores) = stores::azure().await {
        links_stay_valid(stores).await;
    }
}

async fn described(http: &Http, id: &str) -> Value {
    http.get(&format!("/{id}")).await.json()
}

/// Checks that the link of a file and the file itself are as before.
async fn assert_valid(http: &Http, (id, sent): (&str, &[u8]), before: &Value) {
    let link = http.get(&format!("/{id}/url")).await;
    assert_eq!(link.status, 303, "{id}");
    let found = reqwest::get(link.header("location")).await.unwrap();
    assert!(found.bytes().await.unwrap() == sent, "{id}");
    let through = http.get(&format!("/{id}/download")).await;
    assert!(through.body == sent, "{id}");
    let after = described(http, id).await;
    for same in ["file_name", "file_size", "public", "permissions", "tags"] {
        assert_eq!(after[same], before[same], "{id} {same}");
    }
}

/// Does what the sweeper does some time after the completion.
async fn compact(stores: &Stores) {
    let backends = connect(&stores.config).await.unwrap();
    let mut after = None;
    loop {
        let page = backends.state.due(Timestamp::never(), after.as_ref(), 100);
        after = page.await.unwrap().next;
        if after.is_none() {
            return backends.stop().await;
        }
    }
}

/// How many records are compact: their header is in pieces.
fn compact_records(redis: &mut redis::Connection) -> usize {
    let keys = redis::cmd("KEYS").arg("*").query::<Vec<String>>(redis);
    let mut is_compact = |key: &String| {
        let piece = redis::cmd("HEXISTS").arg((key, "r1")).query(redis);
        piece.unwrap_or(false)
    };
    keys.unwrap().iter().filter(|key| is_compact(key)).count()
}

async fn links_stay_valid(mut stores: Stores) {
    stores.config.limits.rebuilds_per_second = 1000;
    stores.config.records.key = vec![KeyConfig {
        id: "1".into(),
        key: Some("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".into()),
        key_file: None,
    }];
    let gateway = stores.gateway().await;
    let http = Http::of(&gateway);
    let mut files = Vec::new();
    for number in 0..SMALL {
        let sent = bytes(number);
        let mut described = file("plan.pdf", &sent);
        described["public"] = json!(number % 2 == 0);
        described["tags"] = match number % 3 {
            0 => json!(["plans"]),
            _ => json!([]),
        };
        let step = http.call("POST", "", described).await.json();
        let id = text(&step["upload_id"]);
        http.deliver(&step, sent.clone()).await;
        let done = http.call("PUT", &format!("/{id}"), json!({})).await;
        assert_eq!(done.status, 200);
        files.push((id, sent));
    }
    let mut before = Vec::new();
    for (id, _) in &files {
        before.push(described(&http, id).await);
    }
    let url = stores.config.redis_url.as_ref().unwrap().to_string();
    let mut redis = redis::Client::open(url).unwrap().get_connection().unwrap();
    assert_eq!(compact_records(&mut redis), 0);
    compact(&stores).await;
    assert_eq!(compact_records(&mut redis), SMALL);
    for ((id, sent), before) in files.iter().zip(&before) {
        assert_valid(&http, (id, sent), before).await;
    }
    gateway.stop().await;
    redis::cmd("FLUSHDB").query::<()>(&mut redis).unwrap();

    let gateway = stores.gateway().await;
    let http = Http::of(&gateway);
    for ((id, sent), before) in files.iter().zip(&before) {
        assert_valid(&http, (id, sent), before).await;
    }
    for (id, _) in &files {
        let deleted = http.call("DELETE", &format!("/{id}"), json!({})).await;
        assert_eq!(deleted.status, 202, "{id}");
        assert!(!has_object(&gateway, &key(&gateway, id, "plan.pdf")).await);
        assert_eq!(http.get(&format!("/{id}/url")).await.status, 404);
    }
}
