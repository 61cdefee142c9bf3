//! The state store loses writes during a stream: the stream ends with STATE_LOST, and its sender resumes.

use std::io::Cursor;

use tonic::{Code, Status};
use upload_gateway_client::Md5;
use upload_gateway_client::{Client, Event, Source, proto::v1::Phase};

use super::{
    common::{bytes, finish, reason},
    for_each_store,
    sender::{self, Deployment, Kept, PART, assert_whole, file},
};

for_each_store!(
    a_stream_whose_record_vanished_resumes,
    a_finish_whose_record_vanished_resumes,
    a_stream_whose_take_over_was_undone_resumes,
    a_stream_whose_parts_were_forgotten_resumes,
);

async fn a_stream_whose_record_vanished_resumes(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(4 * PART + 9);
    let (mut kept, mut stream) = Kept::begin(&gateway, file(Some(data.len())), &data, 1).await;
    deployment.flush();
    let sent = &data[PART + 100..2 * PART];
    stream.send_in_chunks(PART + 100, sent, 1 << 20).await;
    assert_lost(stream.failure().await);
    let stream = kept.open(&gateway).await.unwrap();
    assert_eq!(kept.committed_size, PART);
    let upload = kept.complete(stream, &data).await;
    assert_whole(&gateway, upload, &data).await;
}

async fn a_finish_whose_record_vanished_resumes(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(2 * PART);
    let (mut kept, mut stream) = Kept::begin(&gateway, file(None), &data, 1).await;
    let sent = &data[PART + 100..];
    stream.send_in_chunks(PART + 100, sent, 1 << 20).await;
    kept.follow(&mut stream, 2 * PART).await;
    deployment.flush();
    stream.send(finish()).await;
    assert_lost(stream.failure().await);
    let stream = kept.open(&gateway).await.unwrap();
    assert_eq!(kept.committed_size, 2 * PART);
    let upload = kept.complete(stream, &data).await;
    assert_whole(&gateway, upload, &data).await;
}

async fn a_stream_whose_take_over_was_undone_resumes(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(4 * PART + 9);
    let (mut kept, first) = Kept::begin(&gateway, file(None), &data, 1).await;
    let older = deployment.dump();
    let mut second = kept.open(&gateway).await.unwrap();
    drop(first);
    let sent = &data[PART..2 * PART];
    second.send_in_chunks(PART, sent, 1 << 20).await;
    kept.follow(&mut second, 2 * PART).await;
    deployment.restore(&older);
    let sent = &data[2 * PART..3 * PART];
    second.send_in_chunks(2 * PART, sent, 1 << 20).await;
    assert_lost(second.failure().await);
    let third = kept.open(&gateway).await.unwrap();
    assert_eq!(kept.committed_size, 2 * PART);
    let upload = kept.complete(third, &data).await;
    assert_whole(&gateway, upload, &data).await;
}

async fn a_stream_whose_parts_were_forgotten_resumes(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(5 * PART + 9);
    let (mut kept, mut stream) = Kept::begin(&gateway, file(None), &data, 1).await;
    let older = deployment.dump();
    let sent = &data[PART + 100..3 * PART];
    stream.send_in_chunks(PART + 100, sent, 1 << 20).await;
    kept.follow(&mut stream, 3 * PART).await;
    deployment.restore(&older);
    let sent = &data[3 * PART..4 * PART];
    stream.send_in_chunks(3 * PART, sent, 1 << 20).await;
    assert_lost(stream.failure().await);
    let stream = kept.open(&gateway).await.unwrap();
    assert_eq!(kept.committed_size, 3 * PART);
    let upload = kept.complete(stream, &data).await;
    assert_whole(&gateway, upload, &data).await;
}

#[tokio::test]
async fn the_client_survives_a_flush_with_a_file() {
    the_client_survives(|data| Source::seekable(Cursor::new(data))).await;
}

#[tokio::test]
async fn the_client_survives_a_flush_with_a_pipe() {
    the_client_survives(|data| Source::pipe(Cursor::new(data))).await;
}

async fn the_client_survives(source: impl FnOnce(Vec<u8>) -> Source) {
    let Some(deployment) = sender::s3().await else {
        return;
    };
    let gateway = deployment.gateway().await;
    let data = bytes(6 * PART + 9);
    let client = Client::connect(&gateway.grpc).unwrap();
    let (mut flushed, mut causes) = (false, Vec::new());
    let upload = client.upload(file(None), source(data.clone()));
    let mut transfer = upload.limit_rate(40 << 20).start();
    while let Some(event) = transfer.next().await {
        match event {
            Event::Progress(progress) if !flushed && progress.committed_size > 0 => {
                deployment.flush();
                flushed = true;
            }
            Event::Retrying { cause, .. } => causes.push(cause.to_string()),
            _ => {}
        }
    }
    let uploaded = transfer.finish().await.unwrap();
    assert_eq!(causes.len(), 1, "{causes:?}");
    assert!(causes[0].contains("STATE_LOST"), "{causes:?}");
    assert!(uploaded.resumed_from > 0);
    assert_eq!(uploaded.md5, Some(Md5::of(&data)));
    assert_eq!(uploaded.upload.phase(), Phase::Complete);
    assert_whole(&gateway, uploaded.upload, &data).await;
}

fn assert_lost(status: Status) {
    assert_eq!(reason(&status), (Code::Unavailable, "STATE_LOST".into()));
}
