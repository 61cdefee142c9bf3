//! `doctor` against stores: what it reports, and that nothing of its objects remains.

mod aws;
mod setups;
mod stand_in;

use std::{collections::BTreeSet, fs, process::Stdio};

use futures::TryStreamExt;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    common::{self, AzureBackend, OpaqueEtags, S3Backend, binary, proxy},
    redis_user::{documented, user_like_it},
};

/// What `doctor` did.
struct Report {
    succeeded: bool,
    lines: String,
}

/// Runs it with one storage, and keys for that storage.
async fn doctor(storage: &str, keys: &str) -> Report {
    doctor_with(storage, keys, &[]).await
}

/// The same, with more arguments.
async fn doctor_with(storage: &str, keys: &str, arguments: &[&str]) -> Report {
    let directory = TempDir::new().unwrap();
    let config = directory.path().join("gateway.toml");
    let data = directory.path().join("data");
    fs::write(&config, format!("{storage}{keys}\n")).unwrap();
    let mut command = tokio::process::Command::from(binary());
    let output = command
        .args(["doctor", "--config"])
        .arg(&config)
        .arg("--data-dir")
        .arg(&data)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.await.unwrap();
    Report {
        succeeded: output.status.success(),
        lines: String::from_utf8(output.stdout).unwrap(),
    }
}

fn azure_toml(azure: &AzureBackend) -> String {
    format!(
        "[[storage]]\nid = \"media\"\nkind = \"azure\"\nendpoint = \"{}\"\naccount = \"{}\"\naccount_key = \"{}\"\n\
         container = \"{}\"\n",
        azure.endpoint, azure.account, azure.account_key, azure.container
    )
}

/// Whether there is no object and no multipart upload.
async fn is_empty(s3: &S3Backend) -> bool {
    let client = s3.client();
    let objects = client.list_objects_v2().bucket(&s3.bucket).send();
    let sessions = client.list_multipart_uploads().bucket(&s3.bucket).send();
    let (objects, sessions) = tokio::join!(objects, sessions);
    objects.unwrap().contents().is_empty() && sessions.unwrap().uploads().is_empty()
}

// === impl Report ===

impl Report {
    fn has(&self, text: &str) -> bool {
        self.lines.contains(text)
    }
}

#[tokio::test]
async fn a_store_with_md5s_as_etags_needs_the_setting_md5() {
    let Some(s3) = common::s3().await else { return };
    let report = doctor(&s3.toml(), "").await;
    assert!(report.succeeded, "{}", report.lines);
    let right = "ok    storage media: the ETags are MD5s: etags = \"md5\" is right";
    assert!(report.has(right), "{}", report.lines);

    let report = doctor(&s3.toml(), "etags = \"opaque\"").await;
    assert!(report.succeeded, "{}", report.lines);
    assert!(report.has("WARN  storage media"), "{}", report.lines);
    assert!(
        report.has("set storage.media.etags = \"md5\""),
        "{}",
        report.lines
    );
    assert!(is_empty(&s3).await);
}

#[tokio::test]
async fn a_store_whose_etags_only_look_like_md5s_needs_the_setting_opaque() {
    let Some(s3) = common::s3().await else { return };
    let server = OpaqueEtags::start(&s3).await;
    let toml = s3.toml().replace(&s3.endpoint, &server.endpoint);
    let report = doctor(&toml, "").await;
    assert!(!report.succeeded, "{}", report.lines);
    assert_eq!(report.lines.matches("FAIL").count(), 1, "{}", report.lines);
    assert!(
        report.has("set storage.media.etags = \"opaque\""),
        "{}",
        report.lines
    );

    let report = doctor(&toml, "etags = \"opaque\"").await;
    assert!(report.succeeded, "{}", report.lines);
    let right = "etags = \"opaque\" is right";
    assert!(report.has(right), "{}", report.lines);
    assert!(is_empty(&s3).await);
}

#[tokio::test]
async fn azure_has_no_setting_for_etags_and_keeps_nothing() {
    let Some(azure) = common::azure().await else {
        return;
    };
    let report = doctor(&azure_toml(&azure), "").await;
    assert!(report.succeeded, "{}", report.lines);
    assert_eq!(report.lines.matches("ok  ").count(), 12, "{}", report.lines);
    assert!(!report.has("etags"), "{}", report.lines);
    let pages = azure.client().list_blobs(None).unwrap();
    let blobs: Vec<_> = pages.try_collect().await.unwrap();
    assert!(blobs.is_empty());

    let (server, memory) = common::memory_azure().await;
    let report = doctor(&azure_toml(&memory), "").await;
    assert!(report.succeeded, "{}", report.lines);
    assert!(!report.has("etags"), "{}", report.lines);
    drop(server);
}

#[tokio::test]
async fn nothing_remains_of_a_check_that_fails_halfway() {
    let Some(s3) = common::s3().await else { return };
    let denied = |method, query, reaches_store| proxy::Fault {
        method,
        query,
        status: 403,
        body: "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>",
        times: 1,
        reaches_store,
        then: Vec::new(),
    };
    for (fault, step, permission) in [
        (
            denied("PUT", "x-id=PutObject", true),
            "write an object",
            "s3:PutObject",
        ),
        (
            denied("PUT", "partNumber=2", true),
            "write a part",
            "s3:PutObject",
        ),
        (
            denied("POST", "uploadId=", true),
            "make an object of parts",
            "s3:PutObject",
        ),
        (
            denied("GET", "uploadId=", false),
            "list parts",
            "s3:ListMultipartUploadParts",
        ),
        (
            denied("GET", "x-id=GetObject", false),
            "read an object",
            "s3:GetObject",
        ),
    ] {
        let proxy = proxy::Proxy::start(&s3.endpoint, vec![fault]).await;
        let toml = s3.toml().replace(&s3.endpoint, &proxy.endpoint);
        let report = doctor(&toml, "").await;
        assert!(proxy.left().is_empty(), "{step}: {}", report.lines);
        assert!(!report.succeeded, "{step}: {}", report.lines);
        let failed = format!("FAIL  storage media: {step}: ");
        assert!(report.has(&failed), "{step}: {}", report.lines);
        assert!(report.has("AccessDenied"), "{step}: {}", report.lines);
        let advice = format!("      storage.media.access_key_id: allow {permission}");
        assert!(report.has(&advice), "{step}: {}", report.lines);
        assert!(is_empty(&s3).await, "{step}: {}", report.lines);
    }
}

#[tokio::test]
async fn each_command_that_the_documented_user_has_is_tried() {
    let Some((_server, admin)) = common::private_redis(&[]) else {
        return;
    };
    let documented = documented("ACL SETUSER gateway ");
    // Without a database in the URL, no database is selected.
    let tried = documented
        .iter()
        .filter(|rule| rule.starts_with('+') && *rule != "+select");
    let mut tried: Vec<_> = tried.map(String::as_str).collect();
    let without: Vec<_> = tried
        .iter()
        .map(|rule| rule.replacen('+', "-", 1))
        .collect();
    let without: Vec<_> = without.iter().map(String::as_str).collect();
    let url = user_like_it(&admin, "gateway", &without).await;
    let report = doctor(&format!("redis_url = \"{url}\"\n"), "").await;
    let (_, lacks) = report.lines.split_once("the user lacks ").unwrap();
    let mut lacks: Vec<_> = lacks.lines().next().unwrap().split(' ').collect();
    lacks.sort_unstable();
    tried.sort_unstable();
    assert_eq!(lacks, tried);
    let keys: Vec<String> = common::try_query(&admin, redis::cmd("KEYS").arg("*")).unwrap();
    assert_eq!(keys, [""; 0]);
}

#[tokio::test]
async fn a_cluster_and_sentinels_that_work_are_well() {
    let key =
        "[[records.key]]\nid = \"a\"\nkey = \"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\"\n";
    let Some(cluster) = common::redis_cluster() else {
        return;
    };
    let url = &cluster.urls[0];
    let toml = format!("redis_url = \"{url}\"\n[redis]\nmode = \"cluster\"\n{key}");
    let report = doctor(&toml, "").await;
    assert!(report.succeeded, "{}", report.lines);
    for node in &cluster.urls {
        let node = node.replace("redis://", "node ");
        assert!(report.has(&node), "{node}: {}", report.lines);
    }
    assert!(
        report.has("the user may use all commands"),
        "{}",
        report.lines
    );

    let Some(sentinels) = common::redis_sentinels() else {
        return;
    };
    let url = &sentinels.urls[0];
    let toml = format!(
        "redis_url = \"{url}\"\n[redis]\nmode = \"sentinel\"\nservice_name = \"{}\"\nwait_replicas = 1\n{key}",
        sentinels.name
    );
    let report = doctor(&toml, "").await;
    assert!(report.succeeded, "{}", report.lines);
    let replicas = "1 replicas are connected, and writes wait for 1";
    assert!(report.has(replicas), "{}", report.lines);
}

#[tokio::test]
async fn one_document_has_all_results() {
    let Some(s3) = common::s3().await else { return };
    let wrong = s3.toml().replace(s3.region, "eu-west-1");
    let report = doctor_with(&wrong, "", &["--json"]).await;
    assert!(!report.succeeded, "{}", report.lines);
    let document: Value = serde_json::from_str(&report.lines).unwrap();
    let checks = document["checks"].as_array().unwrap();
    let failed = |check: &&Value| check["result"] == "failed";
    let failed: Vec<_> = checks.iter().filter(failed).collect();
    let [failed] = failed[..] else {
        panic!("{document:#}");
    };
    for (name, value) in [
        ("subject", "storage media"),
        ("check", "find the bucket or container"),
        ("key", "storage.media.region"),
        ("value", "\"us-east-1\""),
    ] {
        assert_eq!(failed[name], value, "{document:#}");
    }

    let report = doctor_with(&s3.toml(), "", &["--json"]).await;
    assert!(report.succeeded, "{}", report.lines);
    let document: Value = serde_json::from_str(&report.lines).unwrap();
    let checks = document["checks"].as_array().unwrap().iter();
    let results: BTreeSet<_> = checks
        .map(|check| check["result"].as_str().unwrap())
        .collect();
    assert_eq!(results, BTreeSet::from(["not checked", "ok"]));
}

#[tokio::test]
async fn the_memory_of_redis_and_its_limit_are_reported() {
    let Some(s3) = common::s3().await else { return };
    for (options, limit, expected) in [
        (vec![], "", "maxmemory is not set"),
        (vec!["--maxmemory", "64mb"], "", "may use it up to 32 MiB"),
        (
            vec!["--maxmemory", "64mb"],
            "max_memory = \"40MiB\"",
            "may use it up to 40 MiB",
        ),
    ] {
        let Some((_server, url)) = common::private_redis(&options) else {
            return;
        };
        let toml = format!("redis_url = \"{url}\"\n[records]\n{limit}\n{}", s3.toml());
        let report = doctor(&toml, "").await;
        let lines = report.lines.lines();
        let is_it = |line: &&str| line.starts_with("ok    state in") && line.contains(expected);
        assert_eq!(lines.filter(is_it).count(), 1, "{}", report.lines);
    }
}
