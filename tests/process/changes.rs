//! `put` of a file that changes while it is sent, or whose size is not the number of its bytes.

use std::{
    fs::{File, FileTimes, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::PathBuf,
    process::Output,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use upload_gateway_client::proto::v1::{ListUploadsRequest, Phase};

use crate::{
    client::command,
    common::{TestGateway, bytes},
};

/// Larger than two parts, so that it takes seconds at [`SLOWLY`].
const SIZE: usize = 12 << 20;

const SLOWLY: [&str; 2] = ["--limit-rate", "4MiB"];

#[tokio::test]
async fn a_file_that_grows_is_an_error() {
    is_refused_after(|file| {
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"more").unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_truncated_is_an_error() {
    is_refused_after(|file| file.set_len(SIZE as u64 - 1).unwrap()).await;
}

#[tokio::test]
async fn a_file_that_is_written_over_is_an_error() {
    is_refused_after(|file| {
        file.write_all(b"others").unwrap();
        // The clock of a file system can be too coarse for a test.
        let later = SystemTime::now() + Duration::from_secs(10);
        file.set_times(FileTimes::new().set_modified(later))
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_file_without_a_size_is_read_to_its_end() {
    let gateway = TestGateway::start().await;
    let output = run(&gateway, &["put", "/proc/cpuinfo", "--json"]).await;
    assert!(output.status.success(), "{output:?}");
    let put: Value = serde_json::from_slice(&output.stdout).unwrap();
    let id = put["upload_id"].as_str().unwrap();
    let upload = gateway.get(id).await.unwrap();
    assert!(gateway.read(&upload).await.starts_with(b"processor"));

    let direct = run(&gateway, &["put", "/proc/cpuinfo", "--direct"]).await;
    assert_eq!(direct.status.code(), Some(2), "{direct:?}");
}

/// Checks in both modes that `put` fails if the file is changed after its upload has begun, and that nothing is stored.
async fn is_refused_after(change: impl Fn(&mut File)) {
    for mode in [&[] as &[&str], &["--direct"]] {
        let gateway = TestGateway::start().await;
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("a.bin");
        std::fs::write(&path, bytes(SIZE)).unwrap();
        let mut put = command(&gateway, &["put"])
            .arg(&path)
            .args(mode)
            .args(SLOWLY)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(put.stderr.take().unwrap()).lines();
        while !lines
            .next_line()
            .await
            .unwrap()
            .unwrap()
            .contains(" of 12582912 bytes")
        {}
        change(&mut opened(&path));
        let mut errors = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            errors.push_str(&line);
        }
        let output = put.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{mode:?}: {errors}");
        assert!(errors.contains("the file changed"), "{mode:?}: {errors}");
        assert!(!errors.contains("resume"), "{mode:?}: {errors}");
        let mut client = gateway.client().await;
        let complete = ListUploadsRequest {
            phase: Phase::Complete.into(),
            ..ListUploadsRequest::default()
        };
        let page = client.list_uploads(complete).await.unwrap().into_inner();
        assert_eq!(page.uploads, [], "{mode:?}");
    }
}

fn opened(path: &PathBuf) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

async fn run(gateway: &TestGateway, arguments: &[&str]) -> Output {
    command(gateway, arguments).output().await.unwrap()
}
