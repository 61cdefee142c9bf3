//! The commands that show uploads and change them, for people and for scripts.

use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::command,
    common::{TestGateway, bytes},
};

async fn run(gateway: &TestGateway, arguments: &[&str]) -> Output {
    command(gateway, arguments).output().await.unwrap()
}

async fn text(gateway: &TestGateway, arguments: &[&str]) -> String {
    let output = run(gateway, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn json(gateway: &TestGateway, arguments: &[&str]) -> Value {
    let text = text(gateway, &[arguments, &["--json"]].concat()).await;
    serde_json::from_str(&text).unwrap()
}

async fn failure(gateway: &TestGateway, arguments: &[&str]) -> String {
    let output = run(gateway, arguments).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// The ids of files with these names, in a gateway that has no other ones.
async fn put(gateway: &TestGateway, names: &[&str]) -> Vec<String> {
    let directory = TempDir::new().unwrap();
    let mut ids = Vec::new();
    for name in names {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes(1 << 20)).unwrap();
        let put = json(gateway, &["put", path.to_str().unwrap()]).await;
        ids.push(put["upload_id"].as_str().unwrap().to_owned());
    }
    ids
}

#[tokio::test]
async fn a_list_has_a_header_and_whole_ids_for_other_programs() {
    let gateway = TestGateway::start().await;
    let ids = put(&gateway, &["a.bin", "b.bin", "später.bin"]).await;
    let list = text(&gateway, &["ls"]).await;
    let lines: Vec<Vec<&str>> = list
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        ["ID", "PHASE", "SIZE", "CREATED", "UPDATED", "NAME"]
    );
    assert_eq!(lines.len(), 4, "{list}");
    assert_eq!(lines[1][..4], [ids[2].as_str(), "COMPLETE", "1.0", "MiB"]);
    assert_eq!(lines[1].last(), Some(&"später.bin"));

    let newest = text(&gateway, &["ls", "-n", "2", "--quiet"]).await;
    assert_eq!(newest, format!("{}\n{}\n", ids[2], ids[1]));
    let newest = json(&gateway, &["ls", "-n", "1", "--since", "1h"]).await;
    assert_eq!(newest.as_array().unwrap().len(), 1);
    let older = json(&gateway, &["ls", "--until", "1h"]).await;
    assert_eq!(older, serde_json::json!([]));
}

#[tokio::test]
async fn the_beginning_of_an_id_is_enough() {
    let gateway = TestGateway::start().await;
    let id = &put(&gateway, &["a.bin"]).await[0];
    for short in [&id[..id.len() - 1], &id[..16], &id["uploads-".len()..16]] {
        let status = json(&gateway, &["status", short]).await;
        assert_eq!(status["upload_id"], id.as_str(), "{short}");
    }
    let status = text(&gateway, &["status", &id[..16]]).await;
    assert!(
        status.contains("Size       1.0 MiB (1048576 bytes)"),
        "{status}"
    );
    let followed = text(&gateway, &["watch", &id[..16]]).await;
    assert_eq!(followed, "COMPLETE    1.0 MiB\n");
    let link = json(&gateway, &["url", &id[..16], "--minutes", "5"]).await;
    assert!(
        link["url"].as_str().unwrap().starts_with("http://"),
        "{link}"
    );
    for (text, reason) in [
        ("abc", "too short"),
        ("a.bin", "is not the id of an upload"),
        ("0000-", "no upload of yours begins with 0000-"),
    ] {
        let error = failure(&gateway, &["status", text]).await;
        assert!(error.contains(reason), "{error}");
    }
}

#[tokio::test]
async fn several_uploads_are_removed_and_a_dry_run_removes_none() {
    let gateway = TestGateway::start().await;
    let ids = put(&gateway, &["a.bin", "b.bin", "c.bin"]).await;
    let dry = text(&gateway, &["rm", "--dry-run", &ids[0], &ids[1]]).await;
    let would = format!("would delete the file of a.bin ({}, 1.0 MiB)", ids[0]);
    assert!(dry.starts_with(&would), "{dry}");
    assert_eq!(json(&gateway, &["ls"]).await.as_array().unwrap().len(), 3);

    // Without a terminal no question is asked.
    let unknown = format!("uploads-{}-{}", "0".repeat(16), "0".repeat(32));
    let error = failure(&gateway, &["rm", &ids[0], &unknown, &ids[1][..20]]).await;
    assert!(error.contains("1 of 3 were not removed"), "{error}");
    assert!(error.contains(&format!("{unknown}: ")), "{error}");
    let left = text(&gateway, &["ls", "--quiet"]).await;
    assert_eq!(left.trim(), ids[2]);
    let removed = json(&gateway, &["rm", &ids[2]]).await;
    assert_eq!(removed["phase"], "DELETING");
}

#[tokio::test]
async fn a_file_is_copied_moved_and_kept() {
    let gateway = TestGateway::start().await;
    let id = &put(&gateway, &["a.bin"]).await[0];
    let copy = json(&gateway, &["cp", &id[..20]]).await;
    assert_eq!(copy["phase"], "COMPLETE");
    assert_ne!(copy["upload_id"], id.as_str());

    let dry = text(&gateway, &["mv", id, "--dry-run"]).await;
    assert!(dry.starts_with("would copy the file of a.bin"), "{dry}");
    let moved = text(&gateway, &["mv", id]).await;
    let moved = moved.trim();
    let error = failure(&gateway, &["status", id]).await;
    assert!(error.contains("[UPLOAD_MOVED]"), "{error}");

    let kept = json(&gateway, &["keep", moved, "--expire-after", "30d"]).await;
    assert!(kept["expires_at"].is_string(), "{kept}");
    let kept = text(&gateway, &["keep", moved]).await;
    assert_eq!(kept, format!("{moved} does not expire\n"));
}

#[tokio::test]
async fn storages_and_limits_are_shown() {
    let gateway = TestGateway::start().await;
    let storages = text(&gateway, &["storages"]).await;
    assert!(storages.contains("embedded (default)"), "{storages}");
    let storages = json(&gateway, &["storages"]).await;
    assert_eq!(storages[0]["is_default"], true);
    let limits = json(&gateway, &["limits", "embedded"]).await;
    let shown = text(&gateway, &["limits"]).await;
    let names: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for name in limits.as_object().unwrap().keys() {
        assert!(
            names.contains(&name.as_str()) || name == "per_owner",
            "{name}"
        );
    }
    let error = failure(&gateway, &["limits", "nowhere"]).await;
    assert!(error.contains("[STORAGE_NOT_FOUND]"), "{error}");
}
