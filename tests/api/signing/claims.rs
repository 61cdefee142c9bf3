//! What clients report is merged, and is never proof.

use tonic::Code;
use upload_gateway_client::proto::v1::{Phase, StepType, Upload};
use upload_gateway_core::upload::Md5;

use super::{
    client::{Client, PART, file, part_of},
    common::{TestGateway, bytes, finish, open_known, reason, refused_for_good, until},
    for_each_store,
    stores::{Stores, has_object, key},
};

for_each_store!(
    fifty_concurrent_reports_lose_no_part,
    a_small_file_is_put_whole_although_a_part_was_requested,
    an_object_of_another_size_is_not_completed,
    parts_of_another_size_are_not_committed,
    false_digests_are_detected,
    false_digests_are_detected_when_a_stream_finishes,
    an_object_of_other_parts_is_not_completed,
);

async fn fifty_concurrent_reports_lose_no_part(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let mut described = file("film.mp4", b"");
    described.file_size = Some(60 * i64::try_from(PART).unwrap());
    let step = client.create(described).await.unwrap();
    let id = step.upload_id.clone();
    let reports = (1..=50).map(|part| {
        let (mut client, id) = (client.clone(), id.clone());
        async move {
            let md5 = Md5::of(&part.to_string().into_bytes());
            client.report(&id, "", &[(part, md5)], None).await.unwrap();
        }
    });
    futures::future::join_all(reports).await;
    let known = client.report(&id, "", &[], None).await.unwrap();
    assert_eq!(known.r#type(), StepType::Parts);
    assert_eq!(known.part_list, (1..=50).collect::<Vec<_>>());
    let md5s = known.part_data.iter().map(|part| part.md5.clone());
    let expected = (1..=50).map(|part| Md5::of(&part.to_string().into_bytes()).to_string());
    assert!(md5s.eq(expected));
}

/// S3 parts cannot be signed before the session has begun.
async fn a_small_file_is_put_whole_although_a_part_was_requested(stores: Stores) {
    if !stores.has_sessions {
        return;
    }
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(1000);
    let first = client.create(file("a.bin", &sent)).await.unwrap();
    let refused = client.sign_part(&first.upload_id, 1, &sent).await;
    assert_eq!(reason(&refused.unwrap_err()).1, "SESSION_NOT_STARTED");
    let again = client.create(file("a.bin", &sent)).await.unwrap();
    assert_eq!(again.upload_id, first.upload_id);
    assert_eq!(again.r#type(), StepType::DirectUpload);
    client.deliver(&again, sent.clone()).await;
    let upload = client.complete(&again.upload_id).await.unwrap();
    assert_eq!(upload.phase(), Phase::Complete);
}

/// A client puts the first bytes of the file as the whole object, although it declared a larger size.
async fn an_object_of_another_size_is_not_completed(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(1000);
    let mut described = file("a.bin", &sent);
    described.file_id = String::new();
    let step = client.create(described).await.unwrap();
    let signature = step.signature.as_ref().unwrap();
    let (status, _) = client.send(signature, sent[..999].to_vec()).await;
    if stores.has_sessions {
        assert!(status >= 400, "S3 binds the length: {status}");
        let refused = client.complete(&step.upload_id).await.unwrap_err();
        assert_eq!(reason(&refused).1, "INCOMPLETE");
    } else {
        assert_eq!(status, 201);
        assert_refused(&gateway, &mut client, &step.upload_id, "PART_REPLACED").await;
    }
}

/// On Azure a part's length is not bound.
async fn parts_of_another_size_are_not_committed(stores: Stores) {
    use tonic_types::StatusExt;
    if stores.has_sessions {
        return;
    }
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(PART + 5);
    let step = client.create(file("film.mp4", &sent)).await.unwrap();
    let id = step.upload_id.clone();
    client.begin(&step).await;
    let mut short = client.sign_part(&id, 1, &sent[..9]).await.unwrap();
    client.deliver(&short, sent[..9].to_vec()).await;
    client.put_part(&id, 2, &sent).await;
    let refused = client.sign_finish(&id).await.unwrap_err();
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.metadata["missing_parts"], "1");
    // The client commits nevertheless, with a request that was signed for something else.
    let url = &mut short.signature.as_mut().unwrap().url;
    *url = url.split("&comp=").next().unwrap().to_owned() + "&comp=blocklist";
    let list = "<BlockList><Latest>MDAwMDAx</Latest><Latest>MDAwMDAy</Latest></BlockList>";
    let mut commit = short.clone();
    commit.signature.as_mut().unwrap().headers.clear();
    client.deliver(&commit, list.into()).await;
    assert_refused(&gateway, &mut client, &id, "PART_REPLACED").await;
}

/// On S3 the composite ETag shows it; Azure has no digests of blocks.
async fn false_digests_are_detected(stores: Stores) {
    if !stores.has_sessions {
        return;
    }
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(PART + 5);
    let id = client.put_parts("film.mp4", &sent).await;
    let lie = [(1, Md5::of(b"what it says it sent"))];
    client.report(&id, "", &lie, None).await.unwrap();
    client.commit(&id).await;
    assert_refused(&gateway, &mut client, &id, "PART_REPLACED").await;
}

async fn false_digests_are_detected_when_a_stream_finishes(stores: Stores) {
    if !stores.has_sessions {
        return;
    }
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(PART + 5);
    let id = client.put_parts("film.mp4", &sent).await;
    let lie = [(1, Md5::of(b"what it says it sent"))];
    client.report(&id, "", &lie, None).await.unwrap();
    let refused = async || gateway.upload(vec![open_known(&id), finish()]).await;
    let refused = refused_for_good(refused).await;
    assert_eq!(reason(&refused).1, "PART_REPLACED");
    let record = gateway.get(&id).await.unwrap();
    assert_eq!(record.phase(), Phase::Aborted);
    let key = key(&gateway, &id, "film.mp4");
    let is_gone = async || !has_object(&gateway, &key).await;
    until("the sweeper deletes the object", is_gone).await;
}

/// All blocks are the client's and their sizes add up, but their order differs.
async fn an_object_of_other_parts_is_not_completed(stores: Stores) {
    if stores.has_sessions {
        return;
    }
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(2 * PART);
    let id = client.put_parts("film.mp4", &sent).await;
    let finish = client.sign_finish(&id).await.unwrap();
    let swapped = "<BlockList><Latest>MDAwMDAy</Latest><Latest>MDAwMDAx</Latest></BlockList>";
    client.deliver(&finish, swapped.into()).await;
    assert_refused(&gateway, &mut client, &id, "PART_REPLACED").await;
    assert_eq!(part_of(&sent, 2).len(), PART);
}

/// Checks that the upload is refused for good and that nothing of it is stored.
async fn assert_refused(gateway: &TestGateway, client: &mut Client, id: &str, why: &str) {
    let first = client.complete(id).await.unwrap_err();
    assert_eq!(first.code(), Code::Unavailable, "one observation");
    let refused = refused_for_good(async || client.complete(id).await).await;
    assert_eq!(reason(&refused), (Code::FailedPrecondition, why.to_owned()));
    let record: Upload = gateway.get(id).await.unwrap();
    assert_eq!(record.phase(), Phase::Aborted);
    let refused = client.complete(id).await.unwrap_err();
    assert_eq!(reason(&refused).1, why, "the record keeps it");
}
