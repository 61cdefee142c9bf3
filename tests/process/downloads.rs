//! Downloads: `get`, and a client that continues at another gateway.

use std::{fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, process::Command};
use upload_gateway::config::{Config, S3Profile};
use upload_gateway_client::{Client, Event, proto::v1::Upload};

use crate::{
    client::command,
    common::{self, Forwarder, TestGateway, bytes, chunk, finish, open},
};

const SIZE: usize = 12 << 20;

async fn upload(gateway: &TestGateway, data: &[u8]) -> Upload {
    let mut messages = vec![open("a.bin", Some(data.len()))];
    let pieces = data.chunks(1 << 20).enumerate();
    messages.extend(pieces.map(|(index, piece)| chunk(index << 20, piece)));
    messages.push(finish());
    gateway.upload(messages).await.unwrap()
}

/// Runs `get` in a directory. What it printed to standard error, and whether it succeeded.
async fn get(gateway: &TestGateway, directory: &Path, arguments: &[&str]) -> (bool, String) {
    let arguments = [&["get"], arguments].concat();
    let mut command = command(gateway, &arguments);
    let output = command.current_dir(directory).output().await.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    (output.status.success(), errors)
}

#[tokio::test]
async fn get_stores_a_file_once_it_is_whole() {
    let (gateway, directory) = (TestGateway::start().await, TempDir::new().unwrap());
    let (at, data) = (directory.path(), bytes(SIZE));
    let id = upload(&gateway, &data).await.upload_id;
    let (is_done, errors) = get(&gateway, at, &[&id]).await;
    assert!(is_done, "{errors}");
    assert!(fs::read(at.join("a.bin")).unwrap() == data);

    fs::write(at.join("a.bin"), b"mine").unwrap();
    let (is_done, errors) = get(&gateway, at, &[&id]).await;
    assert!(!is_done && errors.contains("--force"), "{errors}");
    assert_eq!(fs::read(at.join("a.bin")).unwrap(), b"mine");
    let (is_done, errors) = get(&gateway, at, &[&id, "--force"]).await;
    assert!(is_done, "{errors}");
    assert!(fs::read(at.join("a.bin")).unwrap() == data);
    let left: Vec<_> = fs::read_dir(at).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn get_continues_a_partial_file_of_the_same_bytes_only() {
    let (gateway, directory) = (TestGateway::start().await, TempDir::new().unwrap());
    let (at, data) = (directory.path(), bytes(SIZE));
    let id = upload(&gateway, &data).await.upload_id;
    let partial = at.join(format!("b.bin.{}.part", &id[id.len() - 8..]));
    let (mut other, mut longer) = (data[..SIZE / 2].to_vec(), data.clone());
    other[7] ^= 1;
    longer.push(0);
    for wrong in [other, longer] {
        fs::write(&partial, &wrong).unwrap();
        // It begins again.
        let (is_done, errors) = get(&gateway, at, &[&id, "b.bin"]).await;
        assert!(is_done, "{errors}");
        assert!(fs::read(at.join("b.bin")).unwrap() == data);
        assert!(!partial.exists());
        fs::remove_file(at.join("b.bin")).unwrap();
    }
    fs::write(&partial, &data[..SIZE / 2]).unwrap();
    let (is_done, errors) = get(&gateway, at, &[&id, "b.bin"]).await;
    assert!(is_done && errors.contains("resuming from byte"), "{errors}");
    assert!(fs::read(at.join("b.bin")).unwrap() == data);
    assert!(!partial.exists());
}

#[tokio::test]
async fn get_needs_a_complete_upload() {
    let (gateway, directory) = (TestGateway::start().await, TempDir::new().unwrap());
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", None)).await;
    let id = stream.next().await.unwrap().upload_id;
    let (is_done, errors) = get(&gateway, directory.path(), &[&id]).await;
    assert!(
        !is_done && errors.contains("the upload is OPEN"),
        "{errors}"
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_download_continues_at_another_gateway() {
    let (Some(redis), Some(s3)) = (common::redis().await, common::s3().await) else {
        return;
    };
    let mut config = Config {
        redis_url: Some(redis.url.parse().unwrap()),
        storage: vec![s3.storage(S3Profile::Compatible)],
        ..Config::default()
    };
    config.limits.drain_seconds = 1;
    let here = TestGateway::over(config.clone()).await;
    let there = TestGateway::over(config).await;
    let data = bytes(4 * SIZE);
    let id = upload(&there, &data).await.upload_id;
    let address = |gateway: &TestGateway| {
        let address = gateway.grpc.trim_start_matches("http://");
        address.parse().unwrap()
    };
    let forwarder = Forwarder::start([address(&here), address(&there)]).await;
    let client = Client::connect(&format!("http://{}", forwarder.address)).unwrap();
    let (output, mut input) = tokio::io::duplex(64 << 10);
    let mut download = client.download(&id).write_to(output);
    let mut retries = 0;
    let reading = async {
        let mut read = vec![0];
        input.read_exact(&mut read).await.unwrap();
        // While nothing is read, the gateway cannot send the rest.
        here.stop().await;
        input.read_to_end(&mut read).await.unwrap();
        read
    };
    let downloading = async {
        while let Some(event) = download.next().await {
            retries += usize::from(matches!(event, Event::Retrying { .. }));
        }
        download.finish().await.unwrap();
    };
    let (read, ()) = tokio::join!(reading, downloading);
    assert!(read == data);
    assert!(retries > 0, "the whole file was sent before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parallel_download_that_is_killed_continues() {
    let (gateway, directory) = (TestGateway::start().await, TempDir::new().unwrap());
    let (at, data) = (directory.path(), bytes(100 << 20));
    let id = upload(&gateway, &data).await.upload_id;
    let address = gateway.grpc.trim_start_matches("http://");
    let forwarder = Forwarder::start([address.parse().unwrap()]).await;
    let get = || {
        let mut get = command(&gateway, &["get", &id, "--json"]);
        let server = format!("http://{}", forwarder.address);
        get.env("UPLOAD_GATEWAY_SERVER", server).current_dir(at);
        get
    };
    let mut killed = get().spawn().unwrap();
    forwarder.has_answered(60 << 20).await;
    killed.kill().await.unwrap();
    let output = get().output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Of each of the four streams no more than one step is lost, and what was still on the connection.
    assert!(line["resumed_from"].as_u64().unwrap() >= 32 << 20, "{line}");
    assert!(fs::read(at.join("a.bin")).unwrap() == data);
    assert_eq!(fs::read_dir(at).unwrap().count(), 1);
}

#[tokio::test]
async fn a_full_disk_is_reported_with_the_file_and_what_has_arrived_is_kept() {
    let (gateway, directory) = (TestGateway::start().await, TempDir::new().unwrap());
    let (at, data) = (directory.path(), bytes(SIZE));
    let id = upload(&gateway, &data).await.upload_id;
    let shell = |script: &str| {
        let mut shell = Command::new("sh");
        let script = format!(
            "{script} {} get {id} $0",
            env!("CARGO_BIN_EXE_upload-gateway")
        );
        shell.args(["-c", &script]).current_dir(at);
        shell.env("UPLOAD_GATEWAY_SERVER", &gateway.grpc);
        shell
    };
    // A limit of the file's size stands for the end of the disk, in blocks of 512 bytes.
    let limited = shell("trap '' XFSZ; ulimit -f 10000; exec")
        .arg("a.bin")
        .output();
    let output = limited.await.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let partial = format!("a.bin.{}.part", &id[id.len() - 8..]);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains(&partial) && errors.contains("too large"),
        "{errors}"
    );
    assert!(fs::metadata(at.join(partial)).unwrap().len() > 1 << 20);
    let (is_done, errors) = get(&gateway, at, &[&id]).await;
    assert!(is_done && errors.contains("resuming from byte"), "{errors}");
    assert!(fs::read(at.join("a.bin")).unwrap() == data);

    let full = shell("exec >/dev/full;").arg("-").output().await.unwrap();
    let errors = String::from_utf8(full.stderr).unwrap();
    assert!(
        !full.status.success() && errors.contains("No space left"),
        "{errors}"
    );
}

#[tokio::test]
async fn several_files_are_downloaded_by_id_or_by_name() {
    let (gateway, directory) = (TestGateway::start().await, TempDir::new().unwrap());
    let mut ids = Vec::new();
    for name in ["a-1.bin", "a-2.bin", "b.bin"] {
        let messages = vec![
            open(name, Some(5)),
            chunk(0, &name.as_bytes()[..5]),
            finish(),
        ];
        ids.push(gateway.upload(messages).await.unwrap().upload_id);
    }
    for (arguments, names) in [
        (&["--name", "a-"][..], ["a-1.bin", "a-2.bin"]),
        (&[&ids[0], &ids[2]], ["a-1.bin", "b.bin"]),
    ] {
        let target = directory.path().join(names[1]);
        fs::create_dir(&target).unwrap();
        let arguments = [arguments, &[target.to_str().unwrap()]].concat();
        let (is_done, errors) = get(&gateway, directory.path(), &arguments).await;
        assert!(is_done, "{errors}");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 2);
        for name in names {
            assert_eq!(fs::read(target.join(name)).unwrap(), &name.as_bytes()[..5]);
        }
        // All of them are named, one line for each.
        let again = [&["get", "--json"], &arguments[..]].concat();
        let output = command(&gateway, &again).output().await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let lines = String::from_utf8(output.stdout).unwrap();
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(
                line["error"].as_str().unwrap().contains("--force"),
                "{line}"
            );
        }
        assert_eq!(lines.lines().count(), 2);
    }
}
