//! The whole record is lost.

use tonic::Code;
use upload_gateway_client::proto::v1::{DeleteUploadRequest, Phase};
use upload_gateway_core::upload::Md5;

use super::{
    client::Client,
    common::{bytes, finish, open_known, reason},
    for_each_store,
    sender::{Deployment, Kept, PART, assert_whole, file, finish_with_md5, open_with},
    stores::read,
};

for_each_store!(
    a_lost_record_is_rebuilt_and_the_digest_continues,
    a_lost_record_of_unknown_size_is_rebuilt,
    an_upload_without_parts_is_rebuilt,
    without_a_token_the_upload_is_not_found,
    a_finished_upload_is_found_by_its_object,
    a_small_file_is_found_by_its_object,
    bytes_that_are_sent_again_after_a_rebuild_are_compared,
    a_prefix_of_signed_parts_is_rebuilt,
    an_aborted_upload_stays_aborted,
    the_same_create_made_again_meanwhile_keeps_its_upload,
);

async fn a_lost_record_is_rebuilt_and_the_digest_continues(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(4 * PART + 9);
    let (mut kept, first) = Kept::begin(&gateway, file(Some(data.len())), &data, 2).await;
    drop(first);
    deployment.flush();
    let other = deployment.another(gateway).await;
    let stream = kept.open(&other).await.unwrap();
    assert_eq!(kept.committed_size, 2 * PART);
    // Again: now the last part is from a rebuilt record.
    stream
        .send_in_chunks(2 * PART, &data[2 * PART..3 * PART], 1 << 20)
        .await;
    let mut stream = stream;
    kept.follow(&mut stream, 3 * PART).await;
    drop(stream);
    deployment.flush();
    let stream = kept.open(&other).await.unwrap();
    assert_eq!(kept.committed_size, 3 * PART);
    stream
        .send_in_chunks(3 * PART, &data[3 * PART..], 1 << 20)
        .await;
    stream.send(finish_with_md5(&data)).await;
    assert_whole(&other, stream.end().await.unwrap(), &data).await;
}

async fn a_lost_record_of_unknown_size_is_rebuilt(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(2 * PART + 900);
    let (mut kept, first) = Kept::begin(&gateway, file(None), &data, 2).await;
    drop(first);
    deployment.flush();
    let other = deployment.another(gateway).await;
    let stream = kept.open(&other).await.unwrap();
    assert_eq!(kept.committed_size, 2 * PART);
    let upload = kept.complete(stream, &data).await;
    assert_whole(&other, upload, &data).await;
}

async fn an_upload_without_parts_is_rebuilt(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(PART + 9);
    let (mut kept, first) = Kept::begin(&gateway, file(Some(data.len())), &data, 0).await;
    drop(first);
    deployment.flush();
    let stream = kept.open(&gateway).await.unwrap();
    let upload = kept.complete(stream, &data).await;
    assert_whole(&gateway, upload, &data).await;
}

async fn without_a_token_the_upload_is_not_found(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(2 * PART);
    let (kept, first) = Kept::begin(&gateway, file(None), &data, 1).await;
    drop(first);
    deployment.flush();
    let gone = gateway.upload(vec![open_known(&kept.upload_id)]).await;
    assert_eq!(
        reason(&gone.unwrap_err()),
        (Code::NotFound, "UPLOAD_NOT_FOUND".into())
    );
}

async fn a_finished_upload_is_found_by_its_object(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    for size in [Some(2 * PART + 900), None] {
        let data = bytes(2 * PART + 900);
        let (kept, mut stream) = Kept::begin(&gateway, file(size), &data, 2).await;
        let mut last = kept.clone();
        stream
            .send_in_chunks(2 * PART + 100, &data[2 * PART + 100..], 1 << 20)
            .await;
        stream.send(finish()).await;
        last.follow(&mut stream, data.len()).await;
        let upload = stream.end().await.unwrap();
        assert_eq!(upload.resume_token, "");

        // The last token covers all bytes. The one before does not: its digest does not prove the whole file.
        for (kept, md5) in [(last, Md5::of(&data).to_string()), (kept, String::new())] {
            deployment.flush();
            let opened = open_with(&kept.upload_id, &kept.token);
            let found = gateway.upload(vec![opened]).await.unwrap();
            assert_eq!(found.phase(), Phase::Complete);
            let (found, object) = (found.object.unwrap(), upload.object.clone().unwrap());
            assert_eq!((&found.key, found.size), (&object.key, object.size));
            assert_eq!((&found.etag, found.md5), (&object.etag, md5));
            let record = gateway.get(&kept.upload_id).await.unwrap();
            assert_eq!(record.phase(), Phase::Complete);
        }
    }
}

async fn a_small_file_is_found_by_its_object(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(1000);
    let (kept, stream) = Kept::begin(&gateway, file(None), &data, 0).await;
    stream.send_in_chunks(100, &data[100..], 1 << 20).await;
    stream.send(finish()).await;
    stream.end().await.unwrap();
    deployment.flush();
    let opened = open_with(&kept.upload_id, &kept.token);
    let upload = gateway.upload(vec![opened]).await.unwrap();
    // No part of it was recorded, and so no digest is in the token.
    assert_eq!(upload.phase(), Phase::Complete);
    assert!(read(&gateway, &upload).await == data);
}

async fn bytes_that_are_sent_again_after_a_rebuild_are_compared(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(3 * PART + 9);
    let (mut kept, mut stream) = Kept::begin(&gateway, file(None), &data, 2).await;
    let other_bytes = vec![7; PART];
    for wrong in [0, PART] {
        drop(stream);
        deployment.flush();
        stream = kept.open(&gateway).await.unwrap();
        stream.send_in_chunks(0, &data[..wrong], 1 << 20).await;
        stream.send_in_chunks(wrong, &other_bytes, 1 << 20).await;
        // Azure returns no digests: there both parts are compared at their end.
        if wrong == 0 {
            stream
                .send_in_chunks(PART, &data[PART..2 * PART], 1 << 20)
                .await;
        }
        let refused = stream.end().await.unwrap_err();
        assert_eq!(
            reason(&refused),
            (Code::FailedPrecondition, "PREFIX_MISMATCH".into())
        );
        stream = gateway.converse().await;
    }
    // From the middle there is nothing to compare with; from the beginning there is.
    deployment.flush();
    stream = kept.open(&gateway).await.unwrap();
    stream
        .send_in_chunks(PART, &data[PART..2 * PART], 1 << 20)
        .await;
    if deployment.is_azure() {
        let refused = stream.end().await.unwrap_err();
        assert_eq!(reason(&refused), (Code::OutOfRange, "WRONG_OFFSET".into()));
        stream = kept.open(&gateway).await.unwrap();
        stream.send_in_chunks(0, &data[..2 * PART], 1 << 20).await;
    }
    let upload = kept.complete(stream, &data).await;
    assert_whole(&gateway, upload, &data).await;
}

async fn a_prefix_of_signed_parts_is_rebuilt(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let mut client = Client::of(&gateway).await;
    let data = bytes(4 * PART + 9);
    let step = client
        .create(super::client::file("film.mp4", &data))
        .await
        .unwrap();
    let mut kept = Kept {
        upload_id: step.upload_id.clone(),
        ..Kept::default()
    };
    client.begin(&step).await;
    for part in 1..=2 {
        client.put_part(&kept.upload_id, part, &data).await;
    }
    let mut stream = kept.open(&gateway).await.unwrap();
    assert_eq!(kept.committed_size, 2 * PART);
    stream
        .send_in_chunks(2 * PART, &data[2 * PART..3 * PART], 1 << 20)
        .await;
    kept.follow(&mut stream, 3 * PART).await;
    drop(stream);
    // Reading the record returns an equivalent token.
    kept.token = gateway.get(&kept.upload_id).await.unwrap().resume_token;
    deployment.flush();
    let stream = kept.open(&gateway).await.unwrap();
    assert_eq!(kept.committed_size, 3 * PART);
    let upload = kept.complete(stream, &data).await;
    assert_eq!(upload.phase(), Phase::Complete);
    assert_eq!(
        upload.object.as_ref().unwrap().md5,
        "",
        "not all of it was streamed"
    );
    assert!(read(&gateway, &upload).await == data);
}

async fn an_aborted_upload_stays_aborted(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(2 * PART);
    let (mut kept, stream) = Kept::begin(&gateway, file(None), &data, 1).await;
    drop(stream);
    let upload_id = kept.upload_id.clone();
    let mut client = gateway.client().await;
    let deleted = client
        .delete_upload(DeleteUploadRequest { upload_id })
        .await;
    assert_eq!(deleted.unwrap().into_inner().resume_token, "");
    let refused = kept.open(&gateway).await.err().unwrap();
    assert_eq!(
        reason(&refused),
        (Code::FailedPrecondition, "WRONG_PHASE".into())
    );
    // Azure keeps blocks for a week.
    if !deployment.is_azure() {
        deployment.flush();
        let refused = kept.open(&gateway).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unavailable, "one observation");
        let mut last = refused;
        let is_refused = async || {
            last = kept.open(&gateway).await.err().unwrap();
            last.code() != Code::Unavailable
        };
        crate::common::until("the second observation", is_refused).await;
        assert_eq!(
            reason(&last),
            (Code::FailedPrecondition, "SESSION_LOST".into())
        );
    }
}

async fn the_same_create_made_again_meanwhile_keeps_its_upload(deployment: Deployment) {
    let gateway = deployment.gateway().await;
    let data = bytes(2 * PART + 900);
    let described = super::client::file("film.mp4", &data);
    let (mut kept, stream) = Kept::begin(&gateway, described.clone(), &data, 1).await;
    drop(stream);
    deployment.flush();
    let (again, stream) = Kept::begin(&gateway, described, &data, 1).await;
    assert_ne!(again.upload_id, kept.upload_id);
    let first = kept.open(&gateway).await.unwrap();
    assert_eq!(kept.committed_size, PART);
    let upload = kept.complete(first, &data).await;
    assert_eq!(upload.upload_id, kept.upload_id);
    assert_whole(&gateway, upload, &data).await;
    stream
        .send_in_chunks(PART + 100, &data[PART + 100..], 1 << 20)
        .await;
    stream.send(finish()).await;
    assert_whole(&gateway, stream.end().await.unwrap(), &data).await;
}
