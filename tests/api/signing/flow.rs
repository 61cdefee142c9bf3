//! The whole flow: in one request, in parts, interrupted and resumed, out of order.

use upload_gateway_client::proto::v1::{Phase, StepType};
use upload_gateway_core::upload::Md5;

use super::{
    client::{Client, PART, file, headers, next_part, part_of},
    common::bytes,
    for_each_store,
    stores::{Stores, read},
};

for_each_store!(
    a_small_file_is_put_whole,
    a_file_is_uploaded_in_parts,
    parts_are_uploaded_concurrently_in_any_order,
    an_interrupted_upload_is_found_by_the_same_create,
    a_completed_upload_is_not_found_again,
    a_finish_before_all_parts_names_the_missing_ones,
    an_empty_file_without_its_part_is_incomplete,
    an_unreported_object_is_found,
);

async fn a_small_file_is_put_whole(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    for size in [0, 1, 3 << 20, 5_000_000] {
        let sent = bytes(size);
        let step = client.create(file("plan.pdf", &sent)).await.unwrap();
        assert_eq!(step.r#type(), StepType::DirectUpload, "{size}");
        assert_eq!(headers(&step)["Content-Type"], "application/pdf");
        client.deliver(&step, sent.clone()).await;
        let upload = client.complete(&step.upload_id).await.unwrap();
        assert_eq!(upload.phase(), Phase::Complete);
        assert!(read(&gateway, &upload).await == sent, "{size} bytes differ");
        let again = client.complete(&step.upload_id).await.unwrap();
        assert_eq!(again, upload);
    }
}

async fn a_file_is_uploaded_in_parts(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    for size in [5_000_001, 12 << 20] {
        let sent = bytes(size);
        // A resume key that is not the file's MD5, as real clients send it.
        let mut described = file("film.mp4", &sent);
        described.file_id = Md5::of(part_of(&sent, 1)).to_string();
        let step = client.create(described).await.unwrap();
        assert_eq!(step.part_size, i64::try_from(PART).unwrap());
        let id = step.upload_id.clone();
        client.begin(&step).await;
        let count = i32::try_from(size.div_ceil(PART)).unwrap();
        let mut reported = Vec::new();
        for part in 1..=count {
            let body = part_of(&sent, part);
            let step = client
                .report(&id, "", &reported, next_part(part, body))
                .await;
            client.deliver(&step.unwrap(), body.to_vec()).await;
            reported.push((part, Md5::of(body)));
        }
        let upload = client.finish(&id).await;
        assert_eq!(upload.phase(), Phase::Complete);
        assert!(read(&gateway, &upload).await == sent, "{size} bytes differ");
        // The gateway has not seen the bytes of the whole file.
        assert_eq!(upload.object.unwrap().md5, "");
    }
}

async fn parts_are_uploaded_concurrently_in_any_order(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(3 * PART + 17);
    let step = client.create(file("film.mp4", &sent)).await.unwrap();
    let id = step.upload_id.clone();
    client.begin(&step).await;
    let puts = [3, 1, 4, 2].map(|part| {
        let (mut client, id, sent) = (client.clone(), id.clone(), &sent);
        async move { client.put_part(&id, part, sent).await }
    });
    futures::future::join_all(puts).await;
    let upload = client.finish(&id).await;
    assert!(read(&gateway, &upload).await == sent);
}

async fn an_interrupted_upload_is_found_by_the_same_create(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(2 * PART + 1);
    let described = file("film.mp4", &sent);
    let step = client.create(described.clone()).await.unwrap();
    let id = step.upload_id.clone();
    client.begin(&step).await;
    let empty = client.create(described.clone()).await.unwrap();
    assert_eq!(
        (empty.r#type(), empty.part_list.len()),
        (StepType::Parts, 0)
    );
    assert_eq!(empty.upload_id, id);
    client.put_part(&id, 1, &sent).await;

    let beside = stores.beside(&gateway).await;
    let mut other = Client::of(&beside).await;
    let found = other.create(described).await.unwrap();
    assert_eq!(found.r#type(), StepType::Parts);
    assert_eq!(found.upload_id, id);
    assert_eq!(found.part_list, [1]);
    assert_eq!(
        found.part_data[0].md5,
        Md5::of(part_of(&sent, 1)).to_string()
    );
    // Azure has no session that the list could name.
    if stores.has_sessions {
        let listed = other.deliver(&found, Vec::new()).await;
        assert!(listed.contains("<UploadId>"), "{listed}");
    } else {
        assert_eq!(found.signature.as_ref().unwrap().url, "");
    }
    other.put_part(&id, 3, &sent).await;
    other.put_part(&id, 2, &sent).await;
    let upload = other.finish(&id).await;
    assert!(read(&gateway, &upload).await == sent);
}

async fn a_completed_upload_is_not_found_again(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(7);
    let first = client.create(file("a.bin", &sent)).await.unwrap();
    client.deliver(&first, sent.clone()).await;
    client.complete(&first.upload_id).await.unwrap();
    let second = client.create(file("a.bin", &sent)).await.unwrap();
    assert_ne!(second.upload_id, first.upload_id);
}

async fn an_empty_file_without_its_part_is_incomplete(stores: Stores) {
    use tonic_types::StatusExt;
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let step = client.create(file("empty.bin", b"")).await.unwrap();
    let refused = client.complete(&step.upload_id).await.unwrap_err();
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.reason, "INCOMPLETE");
    assert_eq!(info.metadata["missing_parts"], "1");
}

async fn a_finish_before_all_parts_names_the_missing_ones(stores: Stores) {
    use tonic_types::StatusExt;
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(3 * PART);
    let step = client.create(file("film.mp4", &sent)).await.unwrap();
    let id = step.upload_id.clone();
    client.begin(&step).await;
    client.put_part(&id, 2, &sent).await;
    // A claim is no proof.
    let claimed = [(1, Md5::of(b"never sent"))];
    client.report(&id, "", &claimed, None).await.unwrap();
    for refused in [
        client.sign_finish(&id).await.map(drop).unwrap_err(),
        client.complete(&id).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        let info = refused.get_details_error_info().unwrap();
        assert_eq!(info.reason, "INCOMPLETE");
        // On Azure, a part of 5 MiB alone could also be the last one after a part of 10 MiB.
        let missing = if stores.has_sessions { "1,3" } else { "1,2,3" };
        assert_eq!(info.metadata["missing_parts"], missing);
    }
    client.put_part(&id, 1, &sent).await;
    client.put_part(&id, 3, &sent).await;
    // It can be repeated.
    client.sign_finish(&id).await.unwrap();
    let upload = client.finish(&id).await;
    assert!(read(&gateway, &upload).await == sent);
}

async fn an_unreported_object_is_found(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(PART + 1);
    let described = file("film.mp4", &sent);
    let step = client.create(described.clone()).await.unwrap();
    let id = step.upload_id.clone();
    client.begin(&step).await;
    client.put_part(&id, 1, &sent).await;
    client.put_part(&id, 2, &sent).await;
    client.commit(&id).await;
    // Its PUT is never sent: the next create finds the object, and makes a new upload.
    let next = client.create(described).await.unwrap();
    assert_ne!(next.upload_id, id);
    let found = gateway.get(&id).await.unwrap();
    assert_eq!(found.phase(), Phase::Complete);
    assert!(read(&gateway, &found).await == sent);
}
