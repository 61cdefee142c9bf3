//! Commits whose committer was killed.

use std::time::Duration;

use futures::TryStreamExt;
use upload_gateway_core::{
    blobs::{COMMIT_TIMEOUT, Commit, NewPart, Put, Session},
    error::Reason,
    gateway::{Caller, Gateway, Sweep},
    state::Update,
    upload::{AbortReason, Event, Lease, Md5, Phase, Timestamp, Upload, WriterTag},
};

use super::{
    common::bytes,
    for_each_store,
    world::{MINUTE, PART, World, pass, settings, sweep, sweep_as},
};

/// The default commit lease of a gateway.
const LEASE: Duration = Duration::from_secs(90);

for_each_store!(
    an_abandoned_commit_is_finished,
    a_commit_that_was_sent_and_never_recorded_is_finished,
    a_commit_that_cannot_succeed_ends_the_upload,
    a_commit_ends_at_the_maximum_age,
    an_object_that_is_found_at_the_maximum_age_completes_the_upload,
    a_deleted_commit_that_comes_late_leaves_nothing,
);

/// An upload whose committer was killed as soon as it had begun.
pub(super) async fn abandoned(world: &World, gateway: &std::sync::Arc<Gateway>) -> Upload {
    let mut upload = world.interrupted(gateway, 2 * PART + 1).await;
    let now: Timestamp = upload.updated_at;
    let started = Event::CommitStarted {
        lease: Lease {
            holder: WriterTag::random(),
            until: now.plus(LEASE),
        },
        now,
        file_size: 2 * PART as u64 + 1,
        runs_until: now.plus(LEASE),
    };
    upload.apply(started).unwrap();
    let updated = world.state().update(&upload, upload.writer).await.unwrap();
    assert!(matches!(updated, Update::Updated(_)));
    world.get(&upload.id).await
}

/// Makes the object as a request of the dead committer would.
async fn commit_as_store(world: &World, upload: &Upload) {
    let session = Session {
        key: &upload.object_key,
        id: upload.session.as_ref().unwrap(),
        scope: None,
    };
    let parts: Vec<_> = upload.parts.iter_committed().cloned().collect();
    let object = world.object_of(upload);
    let answer = world.store().commit(&session, &object, &parts).await;
    assert_eq!(answer.unwrap(), Commit::Done);
}

async fn is_whole(world: &World, upload: &Upload) -> bool {
    let object = upload.object.as_ref().unwrap();
    let pieces = world.store().read(&object.key, None, None).await.unwrap();
    let pieces: Vec<bytes::Bytes> = pieces.try_collect().await.unwrap();
    pieces.concat() == bytes(2 * PART + 1)
}

async fn an_abandoned_commit_is_finished(world: World) {
    let gateway = world.gateway().await;
    let upload = abandoned(&world, &gateway).await;
    world.clock.advance(LEASE);
    assert!(sweep(&gateway).await.is_idle(), "it may just be slow");
    world.clock.advance(2 * MINUTE);
    let dry = Sweep {
        dry_run: true,
        ..pass()
    };
    assert_eq!(sweep_as(&gateway, &dry).await.finished_commits, 1);
    assert_eq!(world.get(&upload.id).await, upload);
    let report = sweep(&gateway).await;
    assert_eq!(
        (report.finished_commits, report.failures),
        (1, 0),
        "{report:?}"
    );
    let complete = world.get(&upload.id).await;
    assert_eq!(complete.phase, Phase::Complete);
    assert!(is_whole(&world, &complete).await);
    assert!(sweep(&gateway).await.is_idle());
}

async fn a_commit_that_was_sent_and_never_recorded_is_finished(world: World) {
    let gateway = world.gateway().await;
    let upload = abandoned(&world, &gateway).await;
    commit_as_store(&world, &upload).await;
    world.clock.advance(LEASE + 2 * MINUTE);
    assert_eq!(sweep(&gateway).await.finished_commits, 1);
    let complete = world.get(&upload.id).await;
    assert_eq!(complete.phase, Phase::Complete);
    assert!(is_whole(&world, &complete).await);
}

async fn a_commit_that_cannot_succeed_ends_the_upload(world: World) {
    let gateway = world.gateway().await;
    let upload = abandoned(&world, &gateway).await;
    let session = Session {
        key: &upload.object_key,
        id: upload.session.as_ref().unwrap(),
        scope: None,
    };
    // Another writer has replaced a part by other bytes. Only S3 keeps one part for each number.
    let body = bytes::Bytes::from_static(b"other");
    let other = NewPart {
        number: 3,
        writer: WriterTag::random(),
        checksum: Md5::of(&body).into(),
        body,
    };
    world.store().put_part(&session, other).await.unwrap();
    world.clock.advance(LEASE + 2 * MINUTE);
    let report = sweep(&gateway).await;
    assert_eq!(
        (report.finished_commits, report.failures),
        (1, 0),
        "{report:?}"
    );
    let over = world.get(&upload.id).await;
    if world.has_sessions {
        assert_eq!(over.phase, Phase::Aborted);
        assert!(!world.has_session(&over).await);
    } else {
        assert!(is_whole(&world, &over).await);
    }
}

async fn a_commit_ends_at_the_maximum_age(world: World) {
    let gateway = world.gateway().await;
    let upload = abandoned(&world, &gateway).await;
    world.clock.advance(settings().upload_max_age + 2 * MINUTE);
    assert_eq!(sweep(&gateway).await.finished_commits, 1);
    let over = world.get(&upload.id).await;
    assert_eq!(
        (over.phase, over.abort_reason),
        (Phase::Aborted, Some(AbortReason::CommitFailed))
    );
    assert!(!world.has_session(&over).await);
    // The same file can be uploaded again.
    let next = world.interrupted(&gateway, PART).await;
    assert_ne!(next.id, upload.id);
}

async fn an_object_that_is_found_at_the_maximum_age_completes_the_upload(world: World) {
    let gateway = world.gateway().await;
    let upload = abandoned(&world, &gateway).await;
    commit_as_store(&world, &upload).await;
    world.clock.advance(settings().upload_max_age + 2 * MINUTE);
    assert_eq!(sweep(&gateway).await.finished_commits, 1);
    let complete = world.get(&upload.id).await;
    assert_eq!(complete.phase, Phase::Complete);
    assert!(is_whole(&world, &complete).await);
}

async fn a_deleted_commit_that_comes_late_leaves_nothing(world: World) {
    let gateway = world.gateway().await;
    let upload = abandoned(&world, &gateway).await;
    let caller = Caller::default();
    let early = gateway.delete_upload(&caller, &upload.id).await;
    assert_eq!(early.unwrap_err().reason(), Reason::WrongPhase);
    world.clock.advance(LEASE + MINUTE);
    let deleted = gateway.delete_upload(&caller, &upload.id).await.unwrap();
    assert_eq!(
        (deleted.phase, deleted.abort_reason),
        (Phase::Aborted, Some(AbortReason::Deleted))
    );
    // The store ends a request that the dead committer had sent.
    let object = world.object_of(&upload);
    let late = world.store().put_object(&object, bytes(100).into()).await;
    assert!(matches!(late.unwrap(), Put::Stored(_)));
    world.clock.advance(COMMIT_TIMEOUT + LEASE + 2 * MINUTE);
    sweep(&gateway).await;
    world.clock.advance(settings().upload_expiry);
    sweep(&gateway).await;
    let left = world.store().head(&upload.object_key).await.unwrap();
    assert_eq!(left, None);
}
