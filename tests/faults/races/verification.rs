//! The record changes while its object is verified: only the record that was verified is refused.

use std::sync::Arc;

use futures::FutureExt;
use upload_gateway_core::{
    blobs::{BlobStore, NewObject, Put},
    error::{Error, Kind, Reason},
    gateway::{Caller, Gateway, Target},
    state::{StateStore, Update},
    upload::{Event, FileMetadata, Lease, Md5, Phase, Upload, UploadId, WriterTag},
};

use super::{
    common::bytes,
    completions::send,
    for_each_store,
    interrupted::Interrupted,
    world::{DAY, MINUTE, World, file, settings, sweep},
};

for_each_store!(
    a_commit_that_begins_while_an_object_is_verified_is_not_refused,
    an_object_that_is_corrected_while_it_is_verified_completes_its_upload,
    an_upload_that_changes_during_each_verification_is_left_for_later,
    the_object_of_a_rolled_back_record_is_not_deleted,
    a_different_object_that_a_second_head_does_not_find_is_not_believed,
);

/// A small upload whose object differs from what was declared.
async fn wrong_object(world: &World) -> Upload {
    let gateway = world.gateway().await;
    let upload = world.put_as_client(&gateway).await;
    let mut announced = upload.clone();
    announced.file.file_id = Some(Md5::of(b"other bytes").to_string());
    store(world.state(), &announced).await;
    world.get(&upload.id).await
}

async fn store(state: &dyn StateStore, upload: &Upload) {
    let updated = state.update(upload, upload.writer).await.unwrap();
    assert!(matches!(updated, Update::Updated(_)), "{updated:?}");
}

/// Writes the current record, changed by `change`.
async fn edit(state: &dyn StateStore, id: &UploadId, change: impl Fn(&mut Upload)) {
    let mut upload = state.get(id).await.unwrap().unwrap();
    change(&mut upload);
    store(state, &upload).await;
}

/// Completes the upload; `change` runs during the first `times` calls for the composition of its object.
async fn complete_meanwhile(
    world: &World,
    id: &UploadId,
    times: usize,
    change: impl Fn(&mut Upload) + Copy + Send + Sync + 'static,
) -> Result<Upload, Error> {
    let gateway = interrupted(world, id, times, change).await;
    gateway
        .signing
        .complete_upload(&Caller::default(), id)
        .await
}

async fn interrupted(
    world: &World,
    id: &UploadId,
    times: usize,
    change: impl Fn(&mut Upload) + Copy + Send + Sync + 'static,
) -> Arc<Gateway> {
    let (state, id) = (Arc::clone(&world.backends.state), id.clone());
    let storages = world
        .backends
        .storages
        .clone()
        .with_stores(move |_, store| {
            let (state, id) = (Arc::clone(&state), id.clone());
            let meanwhile = move || {
                let (state, id) = (Arc::clone(&state), id.clone());
                async move { edit(&*state, &id, change).await }.boxed()
            };
            Interrupted::store(store, "store.composition", times, meanwhile)
        });
    let gateway = world.gateway_with(settings(), world.clock.clone(), storages);
    gateway.await
}

async fn has_object(world: &World, upload: &Upload) -> bool {
    let found = world.store().head(&upload.object_key).await.unwrap();
    found.is_some()
}

async fn a_commit_that_begins_while_an_object_is_verified_is_not_refused(world: World) {
    let upload = wrong_object(&world).await;
    let begin = |upload: &mut Upload| {
        let now = upload.updated_at;
        let lease = Lease {
            holder: WriterTag::random(),
            until: now.plus(MINUTE),
        };
        let file_size = 1000;
        let started = Event::CommitStarted {
            lease,
            now,
            file_size,
            runs_until: now,
        };
        upload.apply(started).unwrap();
    };
    complete_meanwhile(&world, &upload.id, 1, begin)
        .await
        .unwrap_err();
    assert_eq!(world.get(&upload.id).await.phase, Phase::Committing);
    assert!(has_object(&world, &upload).await, "the commit decides");
}

async fn an_object_that_is_corrected_while_it_is_verified_completes_its_upload(world: World) {
    let upload = wrong_object(&world).await;
    let correct = |upload: &mut Upload| upload.file.file_id = None;
    let completed = complete_meanwhile(&world, &upload.id, 1, correct).await;
    assert_eq!(completed.unwrap().phase, Phase::Complete);
    assert!(has_object(&world, &upload).await);
}

async fn an_upload_that_changes_during_each_verification_is_left_for_later(world: World) {
    let upload = wrong_object(&world).await;
    let touch = |upload: &mut Upload| upload.updated_at = upload.updated_at.plus(MINUTE);
    let refused = complete_meanwhile(&world, &upload.id, usize::MAX, touch).await;
    let refused = refused.unwrap_err();
    let refusal = (refused.kind(), refused.reason());
    assert_eq!(refusal, (Kind::Unavailable, Reason::WriterActive));
    assert_eq!(world.get(&upload.id).await.phase, Phase::Open);
    assert!(has_object(&world, &upload).await);
}

/// The state store lost the end of an upload of unknown size.
async fn the_object_of_a_rolled_back_record_is_not_deleted(world: World) {
    let gateway = world.gateway().await;
    let target = Target::File {
        file: FileMetadata {
            file_size: None,
            ..file(0)
        },
        storage_id: String::new(),
    };
    let upload = send(Arc::clone(&gateway), target, 11 << 20).await.unwrap();
    let older = Upload {
        phase: Phase::Open,
        object: None,
        file: FileMetadata {
            file_size: None,
            ..upload.file
        },
        ..world.get(&upload.id).await
    };
    store(world.state(), &older).await;
    world.clock.advance(2 * DAY);
    assert_eq!(sweep(&gateway).await.completed, 1);
    assert_eq!(world.get(&upload.id).await.phase, Phase::Complete);
    let kept = world.store().head(&upload.object_key).await.unwrap();
    assert_eq!(kept.unwrap().size, 11 << 20);
}

/// The first HEAD reaches a replica that still has an object of another upload.
async fn a_different_object_that_a_second_head_does_not_find_is_not_believed(world: World) {
    let gateway = world.gateway().await;
    let upload = world.put_as_client(&gateway).await;
    let own = world.object_of(&upload);
    let other = NewObject {
        upload_id: UploadId::generate(None),
        ..own.clone()
    };
    replace(&*world.store(), &other).await;
    let (truth, own) = (world.store(), Arc::new(own));
    let storages = world
        .backends
        .storages
        .clone()
        .with_stores(move |_, store| {
            let (truth, own) = (Arc::clone(&truth), Arc::clone(&own));
            let meanwhile = move || {
                let (truth, own) = (Arc::clone(&truth), Arc::clone(&own));
                async move { replace(&*truth, &own).await }.boxed()
            };
            Interrupted::store(store, "store.composition", 1, meanwhile)
        });
    let gateway = world.gateway_with(settings(), world.clock.clone(), storages);
    let signing = &gateway.await.signing;
    let completed = signing
        .complete_upload(&Caller::default(), &upload.id)
        .await;
    assert_eq!(completed.unwrap().phase, Phase::Complete);
}

async fn replace(store: &dyn BlobStore, object: &NewObject) {
    store.delete(&object.key).await.unwrap();
    let put = store.put_object(object, bytes(1000).into()).await;
    assert!(matches!(put.unwrap(), Put::Stored(_)));
}
