//! Records and their writes, in every state store.

use std::time::Duration;

use futures::future::join_all;
use upload_gateway_core::{
    state::{Creation, PartRecord, Predecessor, StateStore, Update},
    upload::{Lease, Object, Phase, Secret, UploadId},
};

use super::samples::*;

pub(crate) async fn a_created_record_reads_back_equal(store: &dyn StateStore) {
    let mut upload = findable(&owner(), "a");
    upload.parts = [1, 2, 4].map(part).into_iter().collect();
    upload.claims = [claim(3), bare_claim(7)].into_iter().collect();
    create(store, &upload).await;
    assert_eq!(get(store, &upload.id).await, upload);
}

pub(crate) async fn an_unknown_id_is_not_found(store: &dyn StateStore) {
    let id = UploadId::generate(None);
    assert_eq!(store.get(&id).await.unwrap(), None);
    assert_eq!(
        store
            .take_over(&id, writer(1), Predecessor::Any, times())
            .await
            .unwrap(),
        None
    );
}

pub(crate) async fn the_same_fingerprint_finds_the_live_upload(store: &dyn StateStore) {
    let owner = owner();
    let first = findable(&owner, "a");
    create(store, &first).await;
    record(store, &first.id, [1, 2]).await;
    let second = findable(&owner, "a");
    let Creation::Exists(found) = store.create(&second, u64::MAX).await.unwrap() else {
        panic!("a second upload of one fingerprint was created");
    };
    assert_eq!(*found, get(store, &first.id).await);
    assert_eq!(found.parts.committed(), 2);
    assert_eq!(store.get(&second.id).await.unwrap(), None);
    create(store, &findable(&owner, "b")).await;
}

pub(crate) async fn a_committing_upload_keeps_its_fingerprint(store: &dyn StateStore) {
    let owner = owner();
    let mut upload = findable(&owner, "a");
    create(store, &upload).await;
    upload.phase = Phase::Committing;
    store.update(&upload, upload.writer).await.unwrap();
    let again = store
        .create(&findable(&owner, "a"), u64::MAX)
        .await
        .unwrap();
    assert!(matches!(again, Creation::Exists(found) if found.id == upload.id));
}

pub(crate) async fn an_upload_that_has_ended_releases_its_fingerprint(store: &dyn StateStore) {
    for phase in [Phase::Complete, Phase::Aborted] {
        let owner = owner();
        let mut first = findable(&owner, "a");
        create(store, &first).await;
        first.phase = phase;
        store.update(&first, first.writer).await.unwrap();
        let second = findable(&owner, "a");
        create(store, &second).await;
        // Another write of the first upload does not change the fingerprint of the second one.
        first.version += 1;
        store.update(&first, first.writer).await.unwrap();
        let third = store
            .create(&findable(&owner, "a"), u64::MAX)
            .await
            .unwrap();
        assert!(matches!(third, Creation::Exists(found) if found.id == second.id));
    }
}

pub(crate) async fn create_repeated_after_a_lost_reply_is_created(store: &dyn StateStore) {
    let upload = findable(&owner(), "a");
    create(store, &upload).await;
    record(store, &upload.id, [1]).await;
    create(store, &upload).await;
    assert_eq!(get(store, &upload.id).await.parts.committed(), 1);
}

pub(crate) async fn concurrent_creates_make_one_upload(store: &dyn StateStore) {
    let owner = owner();
    let uploads: Vec<_> = (0..20).map(|_| findable(&owner, "a")).collect();
    let outcomes = join_all(uploads.iter().map(|upload| store.create(upload, u64::MAX))).await;
    let created = |outcome: &Creation| *outcome == Creation::Created;
    let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        outcomes.iter().filter(|outcome| created(outcome)).count(),
        1
    );
}

pub(crate) async fn a_take_over_drops_parts_after_a_gap_and_fences_the_older_writer(
    store: &dyn StateStore,
) {
    let upload = upload(&owner());
    create(store, &upload).await;
    record(store, &upload.id, [1, 2, 4, 10]).await;
    let taken = store
        .take_over(&upload.id, writer(2), Predecessor::Any, times())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(taken, get(store, &upload.id).await);
    assert_eq!((taken.parts.committed(), taken.parts.len()), (2, 2));
    assert_eq!((taken.writer, taken.version), (Some(writer(2)), 2));
    let late = store
        .record_parts(&upload.id, writer(1), 0, &[part(3)], times())
        .await;
    assert_eq!(late.unwrap(), PartRecord::TakenOver);
    let next = store
        .record_parts(&upload.id, writer(2), 0, &[part(3)], times())
        .await;
    assert_eq!(next.unwrap(), PartRecord::Recorded { committed: 3 });
    let stale = store.update(&upload, upload.writer).await.unwrap();
    assert_eq!(
        stale,
        Update::Conflict(Box::new(get(store, &upload.id).await))
    );
}

pub(crate) async fn a_take_over_of_a_closed_upload_changes_nothing(store: &dyn StateStore) {
    for phase in [Phase::Committing, Phase::Complete, Phase::Aborted] {
        let mut upload = upload(&owner());
        create(store, &upload).await;
        record(store, &upload.id, [1, 3]).await;
        upload.phase = phase;
        store.update(&upload, upload.writer).await.unwrap();
        let before = get(store, &upload.id).await;
        let taken = store
            .take_over(&upload.id, writer(2), Predecessor::Any, times())
            .await
            .unwrap();
        assert_eq!(taken, Some(before.clone()));
        assert_eq!(get(store, &upload.id).await, before);
    }
}

pub(crate) async fn an_update_of_an_older_version_returns_the_current_record(
    store: &dyn StateStore,
) {
    let mut upload = upload(&owner());
    create(store, &upload).await;
    record(store, &upload.id, [1]).await;
    upload.session = Some("mine".into());
    assert_eq!(
        store.update(&upload, upload.writer).await.unwrap(),
        Update::Updated(2)
    );
    upload.session = Some("too late".into());
    let outcome = store.update(&upload, upload.writer).await.unwrap();
    let present = get(store, &upload.id).await;
    assert_eq!(present.session.as_deref(), Some("mine"));
    assert_eq!((present.version, present.parts.len()), (2, 1));
    assert_eq!(outcome, Update::Conflict(Box::new(present)));
}

pub(crate) async fn update_repeated_after_a_lost_reply_is_updated(store: &dyn StateStore) {
    let mut upload = upload(&owner());
    create(store, &upload).await;
    upload.session = Some("mine".into());
    assert_eq!(
        store.update(&upload, upload.writer).await.unwrap(),
        Update::Updated(2)
    );
    // A part that was recorded in between changes only the times.
    record(store, &upload.id, [1]).await;
    let before = get(store, &upload.id).await;
    assert_eq!(
        store.update(&upload, upload.writer).await.unwrap(),
        Update::Updated(2)
    );
    assert_eq!(get(store, &upload.id).await, before);
}

/// A state store that was rolled back issues the same version twice. A writer that knows the version from before the
/// rollback is fenced nevertheless.
pub(crate) async fn an_update_by_another_writer_is_a_conflict(store: &dyn StateStore) {
    let mut upload = upload(&owner());
    create(store, &upload).await;
    upload.writer = None;
    for (expected, is_updated) in [(Some(writer(2)), false), (Some(writer(1)), true)] {
        let outcome = store.update(&upload, expected).await.unwrap();
        assert_eq!(matches!(outcome, Update::Updated(_)), is_updated);
    }
}

pub(crate) async fn a_take_over_is_not_taken_for_a_repeated_update(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    store
        .take_over(&upload.id, writer(1), Predecessor::Any, times())
        .await
        .unwrap();
    let outcome = store.update(&upload, upload.writer).await.unwrap();
    assert!(matches!(outcome, Update::Conflict(present) if present.version == 2));
}

pub(crate) async fn an_update_replaces_all_but_the_parts_and_claims(store: &dyn StateStore) {
    let mut upload = upload(&owner());
    create(store, &upload).await;
    record(store, &upload.id, [1, 2, 9]).await;
    let parts = get(store, &upload.id).await.parts;
    upload.phase = Phase::Committing;
    upload.writer = None;
    upload.file.file_size = Some(7);
    upload.lease = Some(Lease {
        holder: writer(3),
        until: now(),
    });
    upload.object = Some(Object {
        bucket: "bucket".into(),
        key: upload.object_key.clone(),
        etag: "etag-2".into(),
        size: 7,
        md5: None,
        crc64nvme: None,
    });
    upload.updated_at = times().now;
    upload.expires_at = times().expires_at;
    assert_eq!(
        store.update(&upload, Some(writer(1))).await.unwrap(),
        Update::Updated(2)
    );
    upload.version = 2;
    upload.parts = parts;
    assert_eq!(get(store, &upload.id).await, upload);
}

pub(crate) async fn writes_set_the_times(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    let mut later = times();
    later.now = later.now.plus(Duration::from_secs(5));
    later.expires_at = later.expires_at.plus(Duration::from_secs(99));
    store
        .record_parts(&upload.id, writer(1), 0, &[part(1)], later)
        .await
        .unwrap();
    let recorded = get(store, &upload.id).await;
    assert_eq!(
        (recorded.updated_at, recorded.expires_at),
        (later.now, later.expires_at)
    );
    later.expires_at = later.expires_at.plus(Duration::from_secs(1));
    store
        .take_over(&upload.id, writer(2), Predecessor::Any, later)
        .await
        .unwrap();
    let taken = get(store, &upload.id).await;
    assert_eq!(
        (taken.updated_at, taken.expires_at),
        (later.now, later.expires_at)
    );
    assert_eq!(taken.created_at, upload.created_at);
}

pub(crate) async fn the_first_secret_offered_stays(store: &dyn StateStore) {
    let first = Secret::new([0xff; 32]);
    assert!(store.secret(&first).await.unwrap() == first);
    for byte in [0, 1, 2] {
        assert!(store.secret(&Secret::new([byte; 32])).await.unwrap() == first);
    }
}

pub(crate) async fn a_working_store_passes_the_check(store: &dyn StateStore) {
    store.check().await.unwrap();
    store.check().await.unwrap();
}
