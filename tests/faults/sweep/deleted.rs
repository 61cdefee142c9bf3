//! Deleted files: what callers see, what the sweeper still does, and how long the deletion is remembered.

use upload_gateway_core::{
    blobs::Put,
    clock::Clock,
    error::Kind,
    gateway::{Action, Caller, Gateway, Search, Start, Sweep, SweepReport},
    upload::{Cleanup, Phase, Timestamp, Upload},
};

use super::{
    common::bytes,
    for_each_store,
    world::{DAY, HOUR, MINUTE, World, pass, settings, sweep, sweep_as},
};

for_each_store!(
    a_deleted_file_is_gone_for_every_call,
    a_deletion_that_stopped_is_finished_by_the_sweeper,
    an_object_that_is_already_gone_is_deleted,
    what_a_client_puts_after_the_deletion_is_deleted,
    a_deletion_is_remembered_for_some_time,
    a_file_is_deleted_when_it_has_expired,
    a_file_that_is_kept_longer_is_not_deleted,
);

/// A COMPLETE upload, whose object a client has put.
async fn complete(world: &World, gateway: &Gateway) -> Upload {
    let upload = world.put_as_client(gateway).await;
    let caller = Caller::default();
    let completed = gateway.signing.complete_upload(&caller, &upload.id);
    completed.await.unwrap()
}

async fn has_object(world: &World, upload: &Upload) -> bool {
    let found = world.store().head(&upload.object_key).await.unwrap();
    found.is_some()
}

async fn delete(gateway: &Gateway, upload: &Upload) -> Upload {
    let caller = Caller::default();
    gateway.delete_upload(&caller, &upload.id).await.unwrap()
}

/// No call finds the upload.
async fn assert_unknown(gateway: &Gateway, upload: &Upload) {
    let (caller, id) = (Caller::default(), &upload.id);
    let records = &gateway.records;
    for action in [
        Action::Read,
        Action::Send,
        Action::Complete,
        Action::Download,
    ] {
        let read = records.get_upload(&caller, action, id).await.unwrap_err();
        let summary = records.get_summary(&caller, action, id).await.unwrap_err();
        let kinds = (read.kind(), summary.kind());
        assert_eq!(kinds, (Kind::NotFound, Kind::NotFound), "{action:?}");
    }
    assert_eq!(records.watch(id).next().await.unwrap(), None);
    let completed = gateway.signing.complete_upload(&caller, id).await;
    assert_eq!(completed.unwrap_err().kind(), Kind::NotFound);
    let all = Search::default();
    let listed = records.list_uploads(&caller, &all, Start::default(), 9);
    assert!(listed.await.unwrap().uploads.is_empty());
}

async fn a_deleted_file_is_gone_for_every_call(world: World) {
    let gateway = world.gateway().await;
    let upload = complete(&world, &gateway).await;
    assert!(has_object(&world, &upload).await);
    // Also repeated.
    for _ in 0..2 {
        assert_eq!(delete(&gateway, &upload).await.phase, Phase::Deleting);
        assert!(!has_object(&world, &upload).await);
        assert_unknown(&gateway, &upload).await;
    }
}

async fn a_deletion_that_stopped_is_finished_by_the_sweeper(world: World) {
    let gateway = world.gateway().await;
    let upload = complete(&world, &gateway).await;
    // The gateway has died, or the store did not answer, after the record became DELETING.
    let stopped = Upload {
        phase: Phase::Deleting,
        cleanup: Cleanup::Now,
        kept_until: Some(Timestamp::never()),
        ..upload.clone()
    };
    let updated = world.state().update(&stopped, stopped.writer).await;
    updated.unwrap();
    assert!(has_object(&world, &upload).await);
    assert_unknown(&gateway, &upload).await;

    world.clock.advance(2 * DAY);
    let cleared = SweepReport {
        examined: 1,
        cleared: 1,
        ..SweepReport::default()
    };
    assert_eq!(sweep(&gateway).await, cleared);
    assert!(!has_object(&world, &upload).await);
    assert_eq!(world.get(&upload.id).await.cleanup, Cleanup::Done);
    assert!(sweep(&gateway).await.is_idle(), "once is enough");
}

async fn an_object_that_is_already_gone_is_deleted(world: World) {
    let gateway = world.gateway().await;
    let upload = complete(&world, &gateway).await;
    world.store().delete(&upload.object_key).await.unwrap();
    assert_eq!(delete(&gateway, &upload).await.phase, Phase::Deleting);
    assert_unknown(&gateway, &upload).await;
}

/// A request that was signed before the upload was complete can still reach the store.
async fn what_a_client_puts_after_the_deletion_is_deleted(world: World) {
    let gateway = world.gateway().await;
    let upload = complete(&world, &gateway).await;
    let deleted = delete(&gateway, &upload).await;
    assert_eq!(deleted.cleanup, Cleanup::AtExpiry);
    let object = world.object_of(&upload);
    let put = world.store().put_object(&object, bytes(1000).into()).await;
    assert!(matches!(put.unwrap(), Put::Stored(_)));
    assert_unknown(&gateway, &upload).await;
    assert!(
        sweep(&gateway).await.is_idle(),
        "a signature is still valid"
    );
    world.clock.advance(HOUR);
    assert_eq!(sweep(&gateway).await.cleared, 1);
    assert!(!has_object(&world, &upload).await);
    assert!(sweep(&gateway).await.is_idle(), "once is enough");
}

async fn a_deletion_is_remembered_for_some_time(world: World) {
    let gateway = world.gateway().await;
    let upload = complete(&world, &gateway).await;
    // No signature is valid any more.
    world.clock.advance(DAY);
    let deleted = delete(&gateway, &upload).await;
    assert_eq!(deleted.cleanup, Cleanup::Done);
    let now = deleted.updated_at;
    assert_eq!(deleted.kept_until, Some(now.plus(settings().tombstone)));
    world.clock.advance(MINUTE);
    assert!(sweep(&gateway).await.is_idle(), "nothing is left to do");
    let repeated = delete(&gateway, &upload).await;
    assert_eq!(repeated.kept_until, deleted.kept_until);
}

async fn keep(gateway: &Gateway, upload: &Upload, expire_after: Option<u64>) -> Upload {
    let caller = Caller::default();
    let kept = gateway.keep_upload(&caller, &upload.id, expire_after);
    kept.await.unwrap()
}

async fn a_file_is_deleted_when_it_has_expired(world: World) {
    let gateway = world.gateway().await;
    let open = world.put_as_client(&gateway).await;
    keep(&gateway, &open, Some(DAY.as_secs())).await;
    let caller = Caller::default();
    let completed = gateway.signing.complete_upload(&caller, &open.id);
    let upload = completed.await.unwrap();
    assert_eq!(upload.expires(), Some(upload.updated_at.plus(DAY)));

    world.clock.advance(DAY);
    assert!(
        sweep(&gateway).await.is_idle(),
        "by another clock it has not"
    );
    assert!(has_object(&world, &upload).await);
    world.clock.advance(2 * MINUTE);
    let dry = Sweep {
        dry_run: true,
        ..pass()
    };
    let expected = SweepReport {
        examined: 1,
        expired_files: 1,
        ..SweepReport::default()
    };
    assert_eq!(sweep_as(&gateway, &dry).await, expected);
    assert!(has_object(&world, &upload).await);
    assert_eq!(sweep(&gateway).await, expected);
    assert!(!has_object(&world, &upload).await);
    assert_unknown(&gateway, &upload).await;
    assert!(sweep(&gateway).await.is_idle(), "once is enough");
}

async fn a_file_that_is_kept_longer_is_not_deleted(world: World) {
    let gateway = world.gateway().await;
    let upload = complete(&world, &gateway).await;
    for (expire_after, left) in [
        (Some(60), Some(MINUTE)),
        (Some(2 * 86_400), Some(2 * DAY)),
        (None, None),
    ] {
        let kept = keep(&gateway, &upload, expire_after).await;
        let expected = left.map(|left| world.clock.now().plus(left));
        assert_eq!(kept.expires(), expected);
        assert_eq!(world.get(&upload.id).await.expires(), expected);
    }
    world.clock.advance(9 * DAY);
    assert!(sweep(&gateway).await.is_idle());
    assert!(has_object(&world, &upload).await);
    let caller = Caller::default();
    for wrong in [0, u64::MAX] {
        let refused = gateway.keep_upload(&caller, &upload.id, Some(wrong)).await;
        assert_eq!(refused.unwrap_err().kind(), Kind::InvalidArgument);
    }
    delete(&gateway, &upload).await;
    let refused = gateway.keep_upload(&caller, &upload.id, None).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::NotFound);
}
