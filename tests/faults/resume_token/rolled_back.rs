//! The record was rolled back.

use tonic::Code;
use tonic_types::StatusExt;
use upload_gateway::serve::connect;
use upload_gateway_client::proto::v1::Phase;
use upload_gateway_core::gateway::Caller;
use upload_gateway_core::{
    blobs::{NewPart, Session},
    upload::{Md5, WriterTag},
};

use super::{
    client::Client,
    common::{bytes, chunk, reason},
    for_each_store,
    sender::{self, Deployment, Kept, PART, assert_whole, file},
    stores::read,
};

for_each_store!(
    parts_that_an_older_record_lacks_are_recorded_again,
    a_record_without_its_session_is_repaired,
    a_record_newer_than_the_token_is_not_changed,
    an_object_belongs_to_the_upload_although_its_record_lost_parts,
);

async fn parts_that_an_older_record_lacks_are_recorded_again(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(4 * PART + 9);
    let (mut kept, mut stream) = Kept::begin(&gateway, file(None), &data, 1).await;
    let older = deployment.dump();
    let sent = &data[PART + 100..3 * PART];
    stream.send_in_chunks(PART + 100, sent, 1 << 20).await;
    kept.follow(&mut stream, 3 * PART).await;
    drop(stream);
    deployment.restore(&older);
    let other = deployment.another(gateway).await;
    assert_eq!(
        usize::try_from(other.get(&kept.upload_id).await.unwrap().committed_size),
        Ok(PART)
    );
    let stream = kept.open(&other).await.unwrap();
    assert_eq!(kept.committed_size, 3 * PART);
    let upload = kept.complete(stream, &data).await;
    assert_whole(&other, upload, &data).await;
}

async fn a_record_without_its_session_is_repaired(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(3 * PART + 9);
    let (mut kept, mut stream) = Kept::begin(&gateway, file(Some(data.len())), &data, 0).await;
    let older = deployment.dump();
    let sent = &data[100..2 * PART];
    stream.send_in_chunks(100, sent, 1 << 20).await;
    kept.follow(&mut stream, 2 * PART).await;
    drop(stream);
    deployment.restore(&older);
    let stream = kept.open(&gateway).await.unwrap();
    assert_eq!(kept.committed_size, 2 * PART);
    let upload = kept.complete(stream, &data).await;
    assert_whole(&gateway, upload, &data).await;
}

async fn a_record_newer_than_the_token_is_not_changed(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(2 * PART + 900);
    let (mut kept, mut stream) = Kept::begin(&gateway, file(None), &data, 1).await;
    let sent = &data[PART + 100..2 * PART];
    stream.send_in_chunks(PART + 100, sent, 1 << 20).await;
    stream.committed(2 * PART).await;
    drop(stream);
    let stream = kept.open(&gateway).await.unwrap();
    assert_eq!(kept.committed_size, 2 * PART);
    let upload = kept.complete(stream, &data).await;
    assert_whole(&gateway, upload, &data).await;
}

async fn an_object_belongs_to_the_upload_although_its_record_lost_parts(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(3 * PART + 9);
    let (mut kept, stream) = Kept::begin(&gateway, file(Some(data.len())), &data, 1).await;
    drop(stream);
    let older = deployment.dump();
    let stream = kept.open(&gateway).await.unwrap();
    let upload = kept.complete(stream, &data).await;
    assert_whole(&gateway, upload, &data).await;
    deployment.restore(&older);
    let mut client = Client::of(&gateway).await;
    let found = client.complete(&kept.upload_id).await.unwrap();
    assert_eq!(found.phase(), Phase::Complete);
    assert!(read(&gateway, &found).await == data);
}

#[tokio::test]
async fn parts_that_the_store_has_lost_are_reported_as_lost() {
    let Some(deployment) = sender::s3().await else {
        return;
    };
    let gateway = deployment.gateway().await;
    let data = bytes(4 * PART + 9);
    let (mut kept, mut stream) = Kept::begin(&gateway, file(None), &data, 1).await;
    let older = deployment.dump();
    let sent = &data[PART + 100..3 * PART];
    stream.send_in_chunks(PART + 100, sent, 1 << 20).await;
    kept.follow(&mut stream, 3 * PART).await;
    drop(stream);
    deployment.restore(&older);
    let record = gateway.get(&kept.upload_id).await.unwrap();
    let key = format!("kept/here/{}/film.mp4", kept.upload_id);
    let other = vec![7; PART];
    let replacing = NewPart {
        number: 2,
        writer: WriterTag::random(),
        checksum: Md5::of(&other).into(),
        body: other.into(),
    };
    let session = Session {
        key: &key,
        id: &record.resumable_id,
        scope: None,
    };
    let storage = connect(&deployment.config)
        .await
        .unwrap()
        .storages
        .for_caller(&Caller::default(), "");
    let put = storage.unwrap().store.put_part(&session, replacing).await;
    put.unwrap();

    // First beyond the committed size, then from there.
    let token = kept.token.clone();
    let stream = kept.open(&gateway).await.unwrap();
    assert_eq!(kept.committed_size, PART);
    stream
        .send(chunk(3 * PART, &data[3 * PART..4 * PART - 7][..1000]))
        .await;
    let refused = stream.end().await.unwrap_err();
    assert_eq!(reason(&refused), (Code::OutOfRange, "STATE_LOST".into()));
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.metadata["expected_offset"], PART.to_string());
    kept.token = token;
    let stream = kept.open(&gateway).await.unwrap();
    let upload = kept.complete(stream, &data).await;
    assert_whole(&gateway, upload, &data).await;
}
