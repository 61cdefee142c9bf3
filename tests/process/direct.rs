//! `put --direct` and `url` of the real binary: files get into the embedded S3, a strict S3 server and Azurite without
//! the gateway, also if the sender, the gateway or the store is killed, and are downloaded unchanged.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use upload_gateway::config::{S3Profile, StorageConfig, StoreConfig};
use upload_gateway_client::proto::v1::Phase;
use upload_gateway_core::upload::Md5;

use crate::{
    client::command,
    common::{
        self, TestGateway, bytes,
        proxy::{Fault, Proxy},
        signing_client::{Client, PART, file},
        stores::{self, Stores, for_each_store, read},
    },
};

for_each_store!(
    a_file_is_put_directly_into_the_store_and_downloaded_by_a_link,
    a_killed_put_resumes_with_the_same_command,
    a_part_that_the_store_has_with_other_bytes_is_sent_again,
    two_concurrent_puts_of_the_same_file_both_succeed,
);

/// A file on this machine and its bytes.
struct Local {
    _directory: TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
}

async fn a_file_is_put_directly_into_the_store_and_downloaded_by_a_link(stores: Stores) {
    let gateway = stores.gateway().await;
    for size in [12 << 20, 3 << 20, 0] {
        let local = Local::new("film.mp4", size);
        let put = json(&gateway, &["put", "--direct", "--json", local.path()]).await;
        assert_eq!(put["size"], size);
        assert_eq!(put["resumed_from"], 0);
        let id = put["upload_id"].as_str().unwrap();
        let upload = gateway.get(id).await.unwrap();
        assert_eq!(upload.phase(), Phase::Complete);
        let object = upload.object.clone().unwrap();
        assert_eq!(put["bucket"], object.bucket.as_str());
        assert_eq!(put["object_key"], object.key.as_str());
        // Only S3 returns a digest of a small object that it has computed itself.
        let is_proven = size < 5_000_000 && stores.has_sessions;
        let md5 = is_proven.then(|| Md5::of(&local.bytes).to_string());
        assert_eq!(put["md5"], md5.map_or(Value::Null, Value::from));
        let stored = read(&gateway, &upload).await;
        assert!(stored == local.bytes, "{size} bytes differ in the store");

        let downloaded = download(&gateway, id).await;
        assert!(
            downloaded == local.bytes,
            "{size} bytes differ when downloaded"
        );
    }
}

async fn a_killed_put_resumes_with_the_same_command(stores: Stores) {
    let gateway = stores.gateway().await;
    let local = Local::new("film.mp4", 12 << 20);
    // So slowly that the second part begins seconds after the first one is stored.
    let slowly = ["put", "--direct", local.path(), "--limit-rate", "1MiB"];
    let mut put = command(&gateway, &slowly).spawn().unwrap();
    let id = store_has_a_part(&gateway, &local).await;
    put.kill().await.unwrap();

    let put = json(&gateway, &["put", "--direct", "--json", local.path()]).await;
    assert_eq!(put["upload_id"], id);
    let resumed_from = put["resumed_from"].as_u64().unwrap();
    assert!([5 << 20, 10 << 20].contains(&resumed_from), "{put}");
    let upload = gateway.get(&id).await.unwrap();
    assert!(read(&gateway, &upload).await == local.bytes);
}

async fn a_part_that_the_store_has_with_other_bytes_is_sent_again(stores: Stores) {
    let gateway = stores.gateway().await;
    let local = Local::new("film.mp4", 12 << 20);
    let mut other = local.bytes.clone();
    other[PART] ^= 1;
    let mut client = Client::of(&gateway).await;
    let step = client.create(file("film.mp4", &local.bytes)).await.unwrap();
    client.begin(&step).await;
    client.put_part(&step.upload_id, 1, &local.bytes).await;
    client.put_part(&step.upload_id, 2, &other).await;

    let put = json(&gateway, &["put", "--direct", "--json", local.path()]).await;
    assert_eq!(put["upload_id"], step.upload_id);
    // On Azure another MD5 can also mean parts of another size, so all are sent again.
    let kept = if stores.has_sessions { PART } else { 0 };
    assert_eq!(put["resumed_from"], kept);
    let upload = gateway.get(&step.upload_id).await.unwrap();
    assert!(read(&gateway, &upload).await == local.bytes);
}

async fn two_concurrent_puts_of_the_same_file_both_succeed(stores: Stores) {
    let gateway = stores.gateway().await;
    let local = Local::new("film.mp4", 22 << 20);
    let arguments = ["put", "--direct", "--json", local.path()];
    let (one, other) = tokio::join!(json(&gateway, &arguments), json(&gateway, &arguments));
    for put in [one, other] {
        let upload = gateway.get(put["upload_id"].as_str().unwrap()).await;
        assert!(read(&gateway, &upload.unwrap()).await == local.bytes);
    }
}

#[tokio::test]
async fn aborting_an_upload_ends_its_put() {
    let gateway = TestGateway::start().await;
    let local = Local::new("film.mp4", 12 << 20);
    let slowly = ["put", "--direct", local.path(), "--limit-rate", "4MiB"];
    let put = command(&gateway, &slowly).spawn().unwrap();
    let id = store_has_a_part(&gateway, &local).await;
    assert!(run(&gateway, &["rm", &id]).await.status.success());
    let output = put.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("[WRONG_PHASE]"), "{errors}");
}

#[tokio::test]
async fn a_failing_s3_is_retried_with_a_fresh_signature() {
    let Some(s3) = common::s3().await else { return };
    let faults = vec![
        fault("POST", "uploads=", 503, ""),
        fault("PUT", "partNumber=1&", 500, ""),
        fault("PUT", "partNumber=1&", 403, EXPIRED),
        fault("PUT", "partNumber=2&", 429, ""),
        fault(
            "PUT",
            "partNumber=3&",
            400,
            "<Error><Code>RequestTimeout</Code></Error>",
        ),
        fault("POST", "uploadId=", 200, INTERNAL_ERROR),
    ];
    let proxy = Proxy::start(&s3.endpoint, faults).await;
    let storage = s3.storage(S3Profile::Compatible);
    Box::pin(is_put_through(storage, &proxy, "")).await;
}

#[tokio::test]
async fn a_failing_azure_is_retried_with_a_fresh_signature() {
    let Some(azure) = common::azure().await else {
        return;
    };
    let (server, path) = azure.endpoint.rsplit_once('/').unwrap();
    let faults = vec![
        fault("PUT", "comp=block&", 500, ""),
        fault("PUT", "comp=block&", 403, EXPIRED),
        fault("PUT", "comp=blocklist", 503, ""),
    ];
    let proxy = Proxy::start(server, faults).await;
    let path = format!("/{path}");
    Box::pin(is_put_through(azure.storage(), &proxy, &path)).await;
}

/// Checks that a large and a small file are put through `proxy`, and that all faults occur.
async fn is_put_through(mut storage: StorageConfig, proxy: &Proxy, path: &str) {
    let public = format!("{}{path}", proxy.endpoint);
    let public_endpoint = match &mut storage.store {
        StoreConfig::S3(s3) => &mut s3.public_endpoint,
        StoreConfig::Azure(azure) => &mut azure.public_endpoint,
    };
    *public_endpoint = Some(public.parse().unwrap());
    let gateway = TestGateway::with(|config| config.storage = vec![storage]).await;
    let local = Local::new("film.mp4", 12 << 20);
    let output = run(&gateway, &["put", "--direct", local.path()]).await;
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("retrying in"), "{errors}");
    assert!(!errors.contains("http"), "a signed URL is shown: {errors}");
    assert!(proxy.left().is_empty(), "{:?}", proxy.left());
    let key = String::from_utf8(output.stdout).unwrap();
    let id = key.split('/').find(|name| name.starts_with("uploads-"));
    assert!(download(&gateway, id.unwrap()).await == local.bytes);
}

#[tokio::test]
async fn a_request_that_the_store_always_refuses_is_an_error() {
    let Some(s3) = common::s3().await else { return };
    let always = Fault {
        times: usize::MAX,
        ..fault("PUT", "partNumber=", 403, EXPIRED)
    };
    let proxy = Proxy::start(&s3.endpoint, vec![always]).await;
    let mut storage = s3.storage(S3Profile::Compatible);
    if let StoreConfig::S3(s3) = &mut storage.store {
        s3.public_endpoint = Some(proxy.endpoint.parse().unwrap());
    }
    let gateway = TestGateway::with(|config| config.storage = vec![storage]).await;
    let local = Local::new("film.mp4", 6 << 20);
    let output = run(&gateway, &["put", "--direct", local.path()]).await;
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("error: the store answered 403 AccessDenied: Request has expired"),
        "{errors}"
    );
    assert!(errors.contains("run the same command again"), "{errors}");
}

#[tokio::test]
async fn an_unreachable_store_is_waited_for() {
    let Some((mut server, s3)) = common::private_s3().await else {
        return;
    };
    let storage = s3.storage(S3Profile::Compatible);
    let gateway = TestGateway::with(|config| config.storage = vec![storage]).await;
    let local = Local::new("film.mp4", 12 << 20);
    let slowly = ["put", "--direct", local.path(), "--limit-rate", "4MiB"];
    let mut put = command(&gateway, &slowly).spawn().unwrap();
    store_has_a_part(&gateway, &local).await;
    server.kill();
    let mut lines = BufReader::new(put.stderr.take().unwrap()).lines();
    while !lines
        .next_line()
        .await
        .unwrap()
        .unwrap()
        .contains("retrying in")
    {}
    server.restart();
    while lines.next_line().await.unwrap().is_some() {}
    let output = put.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let key = String::from_utf8(output.stdout).unwrap();
    let id = key.split('/').find(|name| name.starts_with("uploads-"));
    assert!(download(&gateway, id.unwrap()).await == local.bytes);
}

#[tokio::test]
async fn an_aborted_session_is_replaced_by_a_new_one() {
    let stores = stores::embedded();
    let gateway = stores.gateway().await;
    let local = Local::new("film.mp4", 12 << 20);
    let slowly = [
        "put",
        "--direct",
        "--json",
        local.path(),
        "--limit-rate",
        "4MiB",
    ];
    let put = command(&gateway, &slowly).spawn().unwrap();
    let id = store_has_a_part(&gateway, &local).await;
    let upload = gateway.get(&id).await.unwrap();
    stores::abort(&gateway, &upload, &format!("{id}/film.mp4")).await;
    let output = put.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let put: Value = serde_json::from_slice(&output.stdout).unwrap();
    let upload = gateway.get(put["upload_id"].as_str().unwrap()).await;
    assert!(read(&gateway, &upload.unwrap()).await == local.bytes);
}

#[tokio::test]
async fn a_direct_upload_can_run_in_a_spawned_task() {
    let gateway = TestGateway::start().await;
    let local = Local::new("film.mp4", 6 << 20);
    let client = upload_gateway_client::Client::connect(&gateway.grpc).unwrap();
    let (opened, metadata) = (
        std::fs::File::open(&local.path).unwrap(),
        file("film.mp4", &[]),
    );
    let uploading = tokio::spawn(client.upload_direct(metadata, opened).into_future());
    let uploaded = uploading.await.unwrap().unwrap();
    assert_eq!((uploaded.size, uploaded.md5), (6 << 20, None));
    assert!(gateway.read(&uploaded.upload).await == local.bytes);
}

const EXPIRED: &str =
    "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";

const INTERNAL_ERROR: &str =
    "<Error><Code>InternalError</Code><Message>We encountered an error</Message></Error>";

fn fault(method: &'static str, query: &'static str, status: u16, body: &'static str) -> Fault {
    Fault {
        method,
        query,
        status,
        body,
        times: 1,
        reaches_store: false,
        then: Vec::new(),
    }
}

/// Waits until the store has a part of the file; returns the id of the upload.
async fn store_has_a_part(gateway: &TestGateway, local: &Local) -> String {
    let mut client = Client::of(gateway).await;
    loop {
        let step = client.create(file("film.mp4", &local.bytes)).await.unwrap();
        if !step.part_list.is_empty() {
            return step.upload_id;
        }
    }
}

async fn run(gateway: &TestGateway, arguments: &[&str]) -> std::process::Output {
    command(gateway, arguments).output().await.unwrap()
}

/// The content behind the printed link.
async fn download(gateway: &TestGateway, upload_id: &str) -> bytes::Bytes {
    let output = run(gateway, &["url", upload_id, "--minutes", "5"]).await;
    let link = String::from_utf8(output.stdout).unwrap();
    let answer = reqwest::get(link.trim()).await.unwrap();
    assert!(answer.status().is_success(), "{link}: {answer:?}");
    answer.bytes().await.unwrap()
}

async fn json(gateway: &TestGateway, arguments: &[&str]) -> Value {
    let output = run(gateway, arguments).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stderr, b"", "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

// === impl Local ===

impl Local {
    fn new(name: &str, size: usize) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join(name);
        let bytes = bytes(size);
        std::fs::write(&path, &bytes).unwrap();
        Self {
            _directory: directory,
            path,
            bytes,
        }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}
