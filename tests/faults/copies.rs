//! Copies and moves of files: what the copy has, and what is left if one stops.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use upload_gateway_core::{
    blobs::NewObject,
    error::{Error, Kind, Reason, Result},
    gateway::{Action, Caller, CopyTo, Counts, Gateway, Observer, Search, Start},
    upload::{FileMetadata, Md5, Permissions, Phase, Upload, UploadId},
};

use super::{
    common::bytes,
    object_records::{collect, upload},
    world::{PART, World, file, for_each_store, sweep},
};

for_each_store!(
    a_copy_has_the_bytes_and_the_metadata_of_its_source,
    a_copy_that_stops_is_continued_by_the_same_call,
    a_copy_of_a_changed_object_fails,
    a_moved_file_is_found_by_its_old_id_only_as_moved,
    a_move_that_stopped_before_the_deletion_is_finished_without_another_copy,
    a_moved_file_expires_when_its_source_would_have,
    a_move_whose_copy_is_gone_copies_again,
    an_upload_that_is_not_complete_is_not_copied,
);

pub(crate) struct Copying {
    pub(crate) to: CopyTo,
    pub(crate) opened: oneshot::Receiver<Upload>,
    pub(crate) counts: watch::Receiver<Counts>,
    cancelled: CancellationToken,
}

pub(crate) fn copying(storage_id: &str) -> Copying {
    let (sender, opened) = oneshot::channel();
    let (counts, counted) = watch::channel(Counts::default());
    let cancelled = CancellationToken::new();
    Copying {
        to: CopyTo {
            storage_id: storage_id.to_owned(),
            observer: Observer::new(sender, counts),
            cancelled: cancelled.clone(),
        },
        opened,
        counts: counted,
        cancelled,
    }
}

pub(crate) async fn copy(gateway: &Gateway, id: &UploadId) -> Result<Upload> {
    copy_to(gateway, id, "").await
}

pub(crate) async fn copy_to(gateway: &Gateway, id: &UploadId, storage_id: &str) -> Result<Upload> {
    let Copying {
        to,
        opened: _opened,
        counts: _counts,
        ..
    } = copying(storage_id);
    Box::pin(gateway.copy_upload(&Caller::default(), id, to)).await
}

pub(crate) async fn move_to(gateway: &Gateway, id: &UploadId) -> Result<Upload> {
    let Copying {
        to,
        opened: _opened,
        counts: _counts,
        ..
    } = copying("");
    Box::pin(gateway.move_upload(&Caller::default(), id, to)).await
}

pub(crate) async fn get(gateway: &Gateway, id: &UploadId) -> Result<Upload> {
    let caller = Caller::default();
    let read = gateway.records.get_summary(&caller, Action::Read, id);
    read.await
}

async fn listed(gateway: &Gateway) -> Vec<UploadId> {
    let all = Search::default();
    let caller = Caller::default();
    let listed = gateway
        .records
        .list_uploads(&caller, &all, Start::default(), 99);
    let listed = listed.await.unwrap().uploads.into_iter();
    listed.map(|upload| upload.id).collect()
}

pub(crate) fn moved_to(error: &Error) -> Option<String> {
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
    assert_eq!(error.reason(), Reason::UploadMoved, "{error:?}");
    error.metadata().get("moved_to").cloned()
}

async fn a_copy_has_the_bytes_and_the_metadata_of_its_source(world: World) {
    let gateway = world.gateway().await;
    for size in [0, 1000, 2 * PART + 1] {
        let known = FileMetadata {
            tags: vec!["a".into()],
            file_path: "some/where".into(),
            permissions: Permissions::Support,
            public: true,
            expire_after: Some(7200),
            ..file(size)
        };
        let source = upload(&gateway, known).await;
        let copied = copy(&gateway, &source.id).await.unwrap();
        assert_eq!(copied.phase, Phase::Complete);
        assert_ne!(copied.object_key, source.object_key);
        assert_eq!(copied.copy_of.as_ref(), Some(&source.id));
        let object = source.object.as_ref().unwrap();
        assert_eq!(copied.object.as_ref().unwrap().md5, object.md5);
        let file_id = object.md5.map(|md5| md5.to_string());
        let expected = FileMetadata {
            file_id,
            ..source.file.clone()
        };
        assert_eq!(copied.file, expected);
        assert_eq!(copied.owner, source.owner);
        assert_eq!(copied.file_expires_at, source.file_expires_at);
        let key = &copied.object_key;
        assert!(collect(&*world.store(), key).await == bytes(size));
        assert_eq!(
            get(&gateway, &source.id).await.unwrap().phase,
            Phase::Complete
        );
    }
}

async fn a_copy_that_stops_is_continued_by_the_same_call(world: World) {
    let gateway = world.gateway().await;
    let source = upload(&gateway, file(14 * PART + 7)).await;
    let Copying {
        to,
        opened,
        mut counts,
        cancelled,
    } = copying("");
    let (copier, id) = (Arc::clone(&gateway), source.id.clone());
    let running = tokio::spawn(async move {
        let caller = Caller::default();
        Box::pin(copier.copy_upload(&caller, &id, to)).await
    });
    let begun = opened.await.unwrap();
    let first = counts.wait_for(|counts| counts.committed_size > 0).await;
    first.unwrap();
    cancelled.cancel();
    let stopped = running.await.unwrap().unwrap_err();
    assert_eq!(stopped.reason(), Reason::ClientGone, "{stopped:?}");
    let kept = get(&gateway, &begun.id).await.unwrap();
    assert_eq!(kept.phase, Phase::Open);
    assert!(kept.committed_size() >= PART as u64);
    let copied = copy(&gateway, &source.id).await.unwrap();
    assert_eq!((copied.id, copied.phase), (begun.id, Phase::Complete));
}

async fn a_copy_of_a_changed_object_fails(world: World) {
    let gateway = world.gateway().await;
    let source = upload(&gateway, file(1000)).await;
    let object = NewObject {
        md5: Some(Md5::of(b"other")),
        ..world.object_of(&source)
    };
    let store = world.store();
    store
        .replace(&object, (&b"other"[..]).into())
        .await
        .unwrap();
    let error = copy(&gateway, &source.id).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ObjectChanged, "{error:?}");
    let error = move_to(&gateway, &source.id).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ObjectChanged, "{error:?}");
    assert_eq!(
        get(&gateway, &source.id).await.unwrap().phase,
        Phase::Complete
    );
}

async fn a_moved_file_is_found_by_its_old_id_only_as_moved(world: World) {
    let gateway = world.gateway().await;
    let source = upload(&gateway, file(PART + 9)).await;
    let moved = move_to(&gateway, &source.id).await.unwrap();
    assert_eq!(moved.phase, Phase::Complete);
    assert!(
        world
            .store()
            .head(&source.object_key)
            .await
            .unwrap()
            .is_none()
    );
    assert!(collect(&*world.store(), &moved.object_key).await == bytes(PART + 9));
    assert_eq!(listed(&gateway).await, std::slice::from_ref(&moved.id));
    let error = get(&gateway, &source.id).await.unwrap_err();
    assert_eq!(moved_to(&error).as_deref(), Some(moved.id.as_str()));
    let deleted = gateway.delete_upload(&Caller::default(), &source.id).await;
    let error = deleted.unwrap_err();
    assert_eq!(moved_to(&error).as_deref(), Some(moved.id.as_str()));
    let again = move_to(&gateway, &source.id).await.unwrap();
    assert_eq!(again.id, moved.id);
    sweep(&gateway).await;
    assert_eq!(
        get(&gateway, &moved.id).await.unwrap().phase,
        Phase::Complete
    );
}

async fn a_move_that_stopped_before_the_deletion_is_finished_without_another_copy(world: World) {
    let gateway = world.gateway().await;
    let source = upload(&gateway, file(1000)).await;
    let made = copy(&gateway, &source.id).await.unwrap();
    let current = world.get(&source.id).await;
    let moving = Upload {
        moves_to: Some(made.id.clone()),
        ..current
    };
    world.state().update(&moving, moving.writer).await.unwrap();
    assert_eq!(
        get(&gateway, &source.id).await.unwrap().phase,
        Phase::Complete
    );
    let moved = move_to(&gateway, &source.id).await.unwrap();
    assert_eq!(moved.id, made.id);
    assert_eq!(listed(&gateway).await, [made.id]);
}

/// A COMPLETE upload, and a COMPLETE copy to which its move has stopped.
async fn stopped_move(world: &World, gateway: &Gateway) -> (Upload, Upload) {
    let source = upload(gateway, file(1000)).await;
    let made = copy(gateway, &source.id).await.unwrap();
    let moving = Upload {
        moves_to: Some(made.id.clone()),
        ..world.get(&source.id).await
    };
    world.state().update(&moving, moving.writer).await.unwrap();
    (source, made)
}

async fn a_moved_file_expires_when_its_source_would_have(world: World) {
    let gateway = world.gateway().await;
    let (source, made) = stopped_move(&world, &gateway).await;
    let caller = Caller::default();
    let kept = gateway.keep_upload(&caller, &source.id, Some(7200)).await;
    let expires = kept.unwrap().file_expires_at;
    assert!(expires.is_some());
    let moved = move_to(&gateway, &source.id).await.unwrap();
    assert_eq!((&moved.id, moved.file_expires_at), (&made.id, expires));
    let found = get(&gateway, &made.id).await.unwrap();
    assert_eq!(found.file_expires_at, expires);
}

async fn a_move_whose_copy_is_gone_copies_again(world: World) {
    let gateway = world.gateway().await;
    let (source, made) = stopped_move(&world, &gateway).await;
    world.store().delete(&made.object_key).await.unwrap();
    let moved = move_to(&gateway, &source.id).await.unwrap();
    assert_ne!(moved.id, made.id);
    assert!(collect(&*world.store(), &moved.object_key).await == bytes(1000));
}

async fn an_upload_that_is_not_complete_is_not_copied(world: World) {
    let gateway = world.gateway().await;
    let open = world.interrupted(&gateway, PART).await;
    for copied in [
        copy(&gateway, &open.id).await,
        move_to(&gateway, &open.id).await,
    ] {
        assert_eq!(copied.unwrap_err().reason(), Reason::WrongPhase);
    }
    let unknown = UploadId::generate(None);
    let copied = copy(&gateway, &unknown).await;
    assert_eq!(copied.unwrap_err().reason(), Reason::UploadNotFound);
}
