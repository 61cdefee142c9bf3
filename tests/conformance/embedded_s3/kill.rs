//! The server in a process of its own, killed with SIGKILL while clients write.

use std::process::Stdio;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use upload_gateway::embedded_s3::EmbeddedS3;
use upload_gateway_core::upload::Crc64Nvme;

use super::server::*;

const MARKER: &str = "serving at ";
const WRITERS: i32 = 4;

/// Something that the server has acknowledged.
enum Acknowledged {
    Part {
        upload_id: String,
        number: i32,
        etag: String,
    },
    Object {
        key: String,
    },
    Aborted {
        upload_id: String,
    },
}

#[tokio::test]
async fn sigkill_loses_nothing_acknowledged_and_shows_nothing_half_written() {
    let root = tempfile::tempdir().unwrap();
    let store = root.path().join("store");
    let mut acknowledged = Vec::new();
    for (round, until_kill) in (0..).zip([2, 5, 11, 17, 23, 40]) {
        let (mut process, endpoint) = spawn_server(&store).await;
        let settings =
            settings(&endpoint, "embedded", "secret").retry_config(RetryConfig::disabled());
        let client = Client::from_conf(settings.build());
        let (sender, mut receiver) = mpsc::unbounded_channel();
        for writer in 0..WRITERS {
            tokio::spawn(write_until_killed(
                client.clone(),
                round * WRITERS + writer,
                sender.clone(),
            ));
        }
        drop(sender);
        for _ in 0..until_kill {
            acknowledged.push(receiver.recv().await.unwrap());
        }
        process.kill().await.unwrap();
        while let Some(late) = receiver.recv().await {
            acknowledged.push(late);
        }
    }

    let server = TestServer::start_in(root).await;
    let open = server.open_uploads().await;
    for thing in acknowledged {
        match thing {
            Acknowledged::Part {
                upload_id,
                number,
                etag,
            } => {
                let parts = server
                    .client
                    .list_parts()
                    .bucket(BUCKET)
                    .key(KEY)
                    .upload_id(&upload_id)
                    .send()
                    .await;
                let parts = parts.unwrap().parts.unwrap_or_default();
                let part = parts
                    .into_iter()
                    .find(|part| part.part_number == Some(number))
                    .unwrap();
                assert_eq!(part.e_tag, Some(etag));
                let crc = Crc64Nvme::of(&content(number, 70_000)).to_string();
                assert_eq!(part.checksum_crc64_nvme, Some(crc));
            }
            Acknowledged::Object { key } => {
                assert!(server.read_key(&key).await.is_ok(), "{key} is lost")
            }
            Acknowledged::Aborted { upload_id } => {
                assert!(!open.contains(&upload_id), "{upload_id} is open again")
            }
        }
    }
    let objects = server
        .client
        .list_objects_v2()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap();
    for object in objects.contents() {
        let seed = object.key().unwrap().parse().unwrap();
        assert!(
            server.read_key(object.key().unwrap()).await.unwrap()
                == content(seed, object_size(seed))
        );
    }
    assert_eq!(temporary_files(server.directory.path()), 0);
}

/// Writes parts of one upload, whole objects, completed and aborted uploads in turn, until the server is killed.
async fn write_until_killed(
    client: Client,
    writer: i32,
    acknowledged: mpsc::UnboundedSender<Acknowledged>,
) -> Option<()> {
    let create = client.create_multipart_upload().bucket(BUCKET).key(KEY);
    let create = create.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
    let shared = create.send().await.ok()?.upload_id?;
    for number in 1..1000 {
        let body = content(number, 70_000);
        let part = client
            .upload_part()
            .bucket(BUCKET)
            .key(KEY)
            .upload_id(&shared)
            .part_number(number);
        let etag = part.body(body.into()).send().await.ok()?.e_tag?;
        let upload_id = shared.clone();
        acknowledged
            .send(Acknowledged::Part {
                upload_id,
                number,
                etag,
            })
            .ok()?;

        let seed = writer * 10_000 + number * 10;
        let key = seed.to_string();
        let put = client.put_object().bucket(BUCKET).key(&key);
        put.body(content(seed, object_size(seed)).into())
            .send()
            .await
            .ok()?;
        acknowledged.send(Acknowledged::Object { key }).ok()?;

        let seed = seed + 1;
        let key = seed.to_string();
        let upload_id = client
            .create_multipart_upload()
            .bucket(BUCKET)
            .key(&key)
            .send()
            .await
            .ok()?
            .upload_id?;
        let part = client
            .upload_part()
            .bucket(BUCKET)
            .key(&key)
            .upload_id(&upload_id)
            .part_number(1);
        let etag = part
            .body(content(seed, object_size(seed)).into())
            .send()
            .await
            .ok()?
            .e_tag?;
        if number % 3 == 0 {
            let abort = client
                .abort_multipart_upload()
                .bucket(BUCKET)
                .key(&key)
                .upload_id(&upload_id);
            abort.send().await.ok()?;
            acknowledged
                .send(Acknowledged::Aborted { upload_id })
                .ok()?;
        } else {
            let list = CompletedMultipartUpload::builder()
                .parts(part_named(1, &etag))
                .build();
            let complete = client
                .complete_multipart_upload()
                .bucket(BUCKET)
                .key(&key)
                .upload_id(&upload_id);
            complete.multipart_upload(list).send().await.ok()?;
            acknowledged.send(Acknowledged::Object { key }).ok()?;
        }
    }
    Some(())
}

fn object_size(seed: i32) -> usize {
    usize::try_from(seed % 7).unwrap() * 50_000 + 1
}

/// Starts this test program again, as the server.
async fn spawn_server(store: &std::path::Path) -> (Child, String) {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args([
            "embedded_s3::kill::server_process",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let line = format!("{}\n", store.display());
    process
        .stdin
        .as_mut()
        .unwrap()
        .write_all(line.as_bytes())
        .await
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, endpoint)) = line.split_once(MARKER) {
            return (process, endpoint.to_owned());
        }
    }
    panic!("the server process did not start");
}

#[tokio::test]
#[ignore = "not a test: the server process of sigkill_loses_nothing_acknowledged_and_shows_nothing_half_written"]
async fn server_process() {
    let mut store = String::new();
    std::io::stdin().read_line(&mut store).unwrap();
    let server = EmbeddedS3::start(config(store.trim_end().as_ref()))
        .await
        .unwrap();
    println!("{MARKER}{}", server.endpoint());
    // Runs until it is killed, or until its parent process ends.
    tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut store))
        .await
        .unwrap()
        .unwrap();
}
