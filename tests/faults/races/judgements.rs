//! An object is judged by a record that changes meanwhile: only what was judged is refused.

use std::sync::Arc;

use futures::FutureExt;
use upload_gateway_core::{
    error::{Error, Kind, Reason},
    gateway::{Caller, Gateway, Target},
    state::{StateStore, Update},
    upload::{Event, FileMetadata, Lease, Md5, Phase, Upload, UploadId, WriterTag},
};

use super::{
    completions::send,
    for_each_store,
    interrupted::Interrupted,
    world::{DAY, MINUTE, World, file, settings, sweep},
};

for_each_store!(
    a_commit_that_begins_while_an_object_is_judged_is_not_refused,
    an_object_that_is_mended_while_it_is_judged_completes_its_upload,
    an_upload_that_changes_at_each_look_is_left_to_a_later_one,
    the_object_of_a_record_that_went_back_is_not_swept_away,
);

/// A small upload that has another object than was announced.
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

/// What `change` makes of the record that is there now.
async fn edit(state: &dyn StateStore, id: &UploadId, change: impl Fn(&mut Upload)) {
    let mut upload = state.get(id).await.unwrap().unwrap();
    change(&mut upload);
    store(state, &upload).await;
}

/// Completes the upload, and during the first `times` looks at what its object is made of `change` is made.
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
    let storages = world.backends.storages.clone().with_stores(move |store| {
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

async fn a_commit_that_begins_while_an_object_is_judged_is_not_refused(world: World) {
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
        };
        upload.apply(started).unwrap();
    };
    complete_meanwhile(&world, &upload.id, 1, begin)
        .await
        .unwrap_err();
    assert_eq!(world.get(&upload.id).await.phase, Phase::Committing);
    assert!(has_object(&world, &upload).await, "it is its committer's");
}

async fn an_object_that_is_mended_while_it_is_judged_completes_its_upload(world: World) {
    let upload = wrong_object(&world).await;
    let mend = |upload: &mut Upload| upload.file.file_id = None;
    let completed = complete_meanwhile(&world, &upload.id, 1, mend).await;
    assert_eq!(completed.unwrap().phase, Phase::Complete);
    assert!(has_object(&world, &upload).await);
}

async fn an_upload_that_changes_at_each_look_is_left_to_a_later_one(world: World) {
    let upload = wrong_object(&world).await;
    let touch = |upload: &mut Upload| upload.updated_at = upload.updated_at.plus(MINUTE);
    let refused = complete_meanwhile(&world, &upload.id, usize::MAX, touch).await;
    let refused = refused.unwrap_err();
    let told = (refused.kind(), refused.reason());
    assert_eq!(told, (Kind::Unavailable, Reason::WriterActive));
    assert_eq!(world.get(&upload.id).await.phase, Phase::Open);
    assert!(has_object(&world, &upload).await);
}

/// Of a file whose size nobody declared, the state store forgot how it ended.
async fn the_object_of_a_record_that_went_back_is_not_swept_away(world: World) {
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
