//! `put -r` that is killed again and again.

use std::{collections::BTreeMap, fs, path::Path, process::Stdio};

use futures::{StreamExt, stream};
use rand::{RngExt as _, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use upload_gateway_client::proto::v1::{Phase, Upload};
use upload_gateway_core::upload::PART_SIZE;

use crate::{
    client::{command, uploads},
    common::{Forwarder, TestGateway, bytes},
};

const FILES: usize = 1000;
const KILLS: usize = 10;
const PARALLEL: usize = 16;
const LARGE: usize = 12 << 20;

/// The rate of each upload of a run that is killed, so that no run ends before its kill: a large file takes 12 s.
const LIMIT: [&str; 2] = ["--limit-rate", "1MiB"];

/// What a run sends besides the bytes of files, for each file that it looks at: calls, and what describes the file.
const CALL: u64 = 512;

/// The files by their paths in the directory: 1,000 small ones and three large ones.
fn files(random: &mut StdRng) -> BTreeMap<String, Vec<u8>> {
    let data = bytes(LARGE + FILES);
    let small = (0..FILES).map(|index| {
        let size = random.random_range(0..6 << 10);
        let path = format!("{}/{index:03}.bin", index % 7);
        (path, data[index..index + size].to_vec())
    });
    let mut files: BTreeMap<_, _> = small.collect();
    for index in 0..3 {
        let content = data[index..index + LARGE].to_vec();
        files.insert(format!("{}/large.bin", index * 2), content);
    }
    files
}

fn write(files: &BTreeMap<String, Vec<u8>>, directory: &Path) {
    for (path, content) in files {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// How many bytes of the files the store has.
fn committed(uploads: &[Upload]) -> u64 {
    let sizes = uploads.iter().map(|upload| upload.committed_size);
    u64::try_from(sizes.sum::<i64>()).unwrap()
}

/// How many bytes can have been in flight when the sender was killed: two parts of each upload that is open, at most.
fn in_flight(uploads: &[Upload]) -> u64 {
    let open = uploads
        .iter()
        .filter(|upload| upload.phase() == Phase::Open);
    let missing = open.map(|upload| {
        let size = upload.file.as_ref().unwrap().file_size.unwrap();
        u64::try_from(size - upload.committed_size).unwrap()
    });
    missing.map(|missing| missing.min(2 * PART_SIZE)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_arrives_once_however_often_the_command_is_killed() {
    let gateway = TestGateway::start().await;
    let address = gateway.grpc.trim_start_matches("http://");
    let forwarder = Forwarder::start([address.parse().unwrap()]).await;
    let directory = TempDir::new().unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let files = files(&mut random);
    write(&files, &directory.path().join("files"));
    let put = || -> Command {
        let mut put = command(&gateway, &["put", "-r", "files", "--json"]);
        put.args(["--parallel", &PARALLEL.to_string()])
            .env(
                "UPLOAD_GATEWAY_SERVER",
                format!("http://{}", forwarder.address),
            )
            .env("XDG_STATE_HOME", directory.path().join("state"))
            .current_dir(directory.path());
        put
    };
    let calls = |runs: usize| CALL * (runs * files.len()) as u64;
    let size: usize = files.values().map(Vec::len).sum();
    let mut allowed = size as u64;
    for kill in 1..=KILLS {
        // Nothing reads its output: a full pipe would stop it.
        let mut running = put()
            .args(LIMIT)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Some end among small files, and some in a large one.
        let next = 1 << random.random_range(14..22);
        let end = forwarder.received() + random.random_range(next..2 * next);
        forwarder.has_received(end).await;
        eprintln!("kill {kill}: {} of {size}", forwarder.received());
        running.kill().await.unwrap();
        forwarder.is_quiet().await;
        let uploads = uploads(&gateway).await;
        allowed += in_flight(&uploads);
        let sent = forwarder.received();
        let unused = sent.saturating_sub(committed(&uploads));
        assert!(
            unused <= allowed - size as u64 + calls(kill),
            "kill {kill}: {unused}"
        );
    }
    let output = put().output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let sent = forwarder.received();
    assert!(sent <= allowed + calls(KILLS + 1), "{sent} of {allowed}");

    check_store(&gateway, &files).await;
    let output = put().output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), files.len());
    assert!(lines.iter().all(|line| line["was_complete"] == true));
    assert!(forwarder.received() - sent <= calls(1));
}

/// Checks that the store has each file once, with its bytes, and nothing else.
async fn check_store(gateway: &TestGateway, files: &BTreeMap<String, Vec<u8>>) {
    let mut complete = uploads(gateway).await;
    // A kill can separate the creation of an upload from the note of its id.
    assert!(complete.len() <= files.len() + KILLS * PARALLEL);
    complete.retain(|upload| upload.phase() == Phase::Complete);
    let path = |upload: &Upload| upload.file.as_ref().unwrap().file_path.clone();
    let mut paths: Vec<_> = complete.iter().map(path).collect();
    paths.sort_unstable();
    assert!(paths.iter().eq(files.keys()), "{} files", paths.len());
    let bucket = &complete[0].object.as_ref().unwrap().bucket;
    let store = gateway.s3();
    let list = store.list_objects_v2().bucket(bucket);
    let mut pages = list.into_paginator().send();
    let mut objects = Vec::new();
    while let Some(page) = pages.next().await {
        objects.extend(page.unwrap().contents.unwrap_or_default());
    }
    // Beside each object there is a copy of its record.
    objects.retain(|object| !object.key().unwrap().contains(".records/"));
    assert_eq!(objects.len(), files.len());
    let reads = complete.iter().map(|upload| {
        let object = upload.object.as_ref().unwrap();
        let read = store.get_object().bucket(bucket).key(&object.key).send();
        async move {
            let found = read.await.unwrap().body.collect().await.unwrap();
            assert!(found.to_vec() == files[&path(upload)], "{}", path(upload));
        }
    });
    stream::iter(reads).buffer_unordered(16).count().await;
}
