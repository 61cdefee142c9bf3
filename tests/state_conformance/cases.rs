//! What every state store must do.

use std::time::Duration;

use futures::future::{join_all, try_join_all};
use upload_gateway::{
    state::{Creation, Cursor, ListQuery, PartRecord, StateStore, Update},
    upload::{Lease, Object, Owner, PART_SIZE, Phase, Secret, Timestamp, Upload, UploadId},
};

use super::samples::*;

pub(crate) async fn a_created_record_reads_back_equal(store: &dyn StateStore) {
    let mut upload = findable(&owner(), "a");
    upload.parts = [1, 2, 4].map(part).into_iter().collect();
    create(store, &upload).await;
    assert_eq!(get(store, &upload.id).await, upload);
}

pub(crate) async fn an_unknown_id_reads_as_nothing(store: &dyn StateStore) {
    let id = UploadId::generate(None);
    assert_eq!(store.get(&id).await.unwrap(), None);
    assert_eq!(
        store.take_over(&id, writer(1), times()).await.unwrap(),
        None
    );
}

pub(crate) async fn the_same_fingerprint_finds_the_live_upload(store: &dyn StateStore) {
    let owner = owner();
    let first = findable(&owner, "a");
    create(store, &first).await;
    record(store, &first.id, [1, 2]).await;
    let second = findable(&owner, "a");
    let Creation::Exists(found) = store.create(&second).await.unwrap() else {
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
    store.update(&upload).await.unwrap();
    let again = store.create(&findable(&owner, "a")).await.unwrap();
    assert!(matches!(again, Creation::Exists(found) if found.id == upload.id));
}

pub(crate) async fn an_upload_that_is_over_releases_its_fingerprint(store: &dyn StateStore) {
    for phase in [Phase::Complete, Phase::Aborted] {
        let owner = owner();
        let mut first = findable(&owner, "a");
        create(store, &first).await;
        first.phase = phase;
        store.update(&first).await.unwrap();
        let second = findable(&owner, "a");
        create(store, &second).await;
        // The first one, touched again, leaves the second one's fingerprint alone.
        first.version += 1;
        store.update(&first).await.unwrap();
        let third = store.create(&findable(&owner, "a")).await.unwrap();
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

pub(crate) async fn creates_side_by_side_make_one_upload(store: &dyn StateStore) {
    let owner = owner();
    let uploads: Vec<_> = (0..20).map(|_| findable(&owner, "a")).collect();
    let outcomes = join_all(uploads.iter().map(|upload| store.create(upload))).await;
    let created = |outcome: &Creation| *outcome == Creation::Created;
    let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        outcomes.iter().filter(|outcome| created(outcome)).count(),
        1
    );
}

pub(crate) async fn resume_after_a_lost_reply(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    for _ in 0..2 {
        let outcome = store
            .record_parts(&upload.id, writer(1), &[part(1)], times())
            .await;
        assert_eq!(outcome.unwrap(), PartRecord::Recorded { committed: 1 });
    }
    let resumed = store
        .take_over(&upload.id, writer(2), times())
        .await
        .unwrap();
    assert_eq!(resumed.unwrap().committed_size(), PART_SIZE);
}

pub(crate) async fn a_stranger_records_nothing(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    let outcome = store
        .record_parts(&upload.id, writer(2), &[part(1)], times())
        .await;
    assert_eq!(outcome.unwrap(), PartRecord::TakenOver);
    let nobody = Upload {
        writer: None,
        ..self::upload(&owner())
    };
    create(store, &nobody).await;
    let outcome = store
        .record_parts(&nobody.id, writer(1), &[part(1)], times())
        .await;
    assert_eq!(outcome.unwrap(), PartRecord::TakenOver);
    assert!(get(store, &upload.id).await.parts.is_empty());
}

pub(crate) async fn only_the_contiguous_prefix_is_committed(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    for (number, expected) in [(3, 0), (1, 1), (5, 1), (2, 3), (4, 5)] {
        let outcome = store
            .record_parts(&upload.id, writer(1), &[part(number)], times())
            .await;
        let committed = PartRecord::Recorded {
            committed: expected,
        };
        assert_eq!(outcome.unwrap(), committed, "after part {number}");
        assert_eq!(get(store, &upload.id).await.parts.committed(), expected);
    }
}

pub(crate) async fn a_recorded_part_is_never_replaced(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    record(store, &upload.id, [1, 3]).await;
    for number in [1, 3] {
        let mut other = part(number);
        other.receipt = "other".into();
        store
            .record_parts(&upload.id, writer(1), &[other], times())
            .await
            .unwrap();
        assert_eq!(
            get(store, &upload.id).await.parts.get(number),
            Some(&part(number))
        );
    }
}

pub(crate) async fn parts_come_too_late_after_open(store: &dyn StateStore) {
    for phase in [Phase::Committing, Phase::Complete, Phase::Aborted] {
        let mut upload = upload(&owner());
        create(store, &upload).await;
        upload.phase = phase;
        store.update(&upload).await.unwrap();
        let before = get(store, &upload.id).await;
        let outcome = store
            .record_parts(&upload.id, writer(1), &[part(1)], times())
            .await;
        assert_eq!(outcome.unwrap(), PartRecord::NotOpen(phase));
        let late = store
            .record_parts(&upload.id, writer(2), &[part(1)], times())
            .await;
        assert_eq!(late.unwrap(), PartRecord::TakenOver);
        assert_eq!(get(store, &upload.id).await, before);
    }
}

pub(crate) async fn parts_of_a_missing_record_are_missing(store: &dyn StateStore) {
    let missing = upload(&owner());
    let outcome = store
        .record_parts(&missing.id, writer(1), &[part(1)], times())
        .await;
    assert_eq!(outcome.unwrap(), PartRecord::Missing);
    assert_eq!(store.update(&missing).await.unwrap(), Update::Missing);
    assert_eq!(store.get(&missing.id).await.unwrap(), None);
}

pub(crate) async fn a_take_over_drops_parts_behind_a_gap_and_fences_the_older_writer(
    store: &dyn StateStore,
) {
    let upload = upload(&owner());
    create(store, &upload).await;
    record(store, &upload.id, [1, 2, 4, 10]).await;
    let taken = store
        .take_over(&upload.id, writer(2), times())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(taken, get(store, &upload.id).await);
    assert_eq!((taken.parts.committed(), taken.parts.len()), (2, 2));
    assert_eq!((taken.writer, taken.version), (Some(writer(2)), 2));
    let late = store
        .record_parts(&upload.id, writer(1), &[part(3)], times())
        .await;
    assert_eq!(late.unwrap(), PartRecord::TakenOver);
    let next = store
        .record_parts(&upload.id, writer(2), &[part(3)], times())
        .await;
    assert_eq!(next.unwrap(), PartRecord::Recorded { committed: 3 });
    let stale = store.update(&upload).await.unwrap();
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
        store.update(&upload).await.unwrap();
        let before = get(store, &upload.id).await;
        let taken = store
            .take_over(&upload.id, writer(2), times())
            .await
            .unwrap();
        assert_eq!(taken, Some(before.clone()));
        assert_eq!(get(store, &upload.id).await, before);
    }
}

pub(crate) async fn an_update_of_an_older_version_gets_the_present_record(store: &dyn StateStore) {
    let mut upload = upload(&owner());
    create(store, &upload).await;
    record(store, &upload.id, [1]).await;
    upload.session = Some("mine".into());
    assert_eq!(store.update(&upload).await.unwrap(), Update::Updated(2));
    upload.session = Some("too late".into());
    let outcome = store.update(&upload).await.unwrap();
    let present = get(store, &upload.id).await;
    assert_eq!(present.session.as_deref(), Some("mine"));
    assert_eq!((present.version, present.parts.len()), (2, 1));
    assert_eq!(outcome, Update::Conflict(Box::new(present)));
}

pub(crate) async fn update_repeated_after_a_lost_reply_is_updated(store: &dyn StateStore) {
    let mut upload = upload(&owner());
    create(store, &upload).await;
    upload.session = Some("mine".into());
    assert_eq!(store.update(&upload).await.unwrap(), Update::Updated(2));
    // A part that came in between changes the times, and nothing else.
    record(store, &upload.id, [1]).await;
    let before = get(store, &upload.id).await;
    assert_eq!(store.update(&upload).await.unwrap(), Update::Updated(2));
    assert_eq!(get(store, &upload.id).await, before);
}

pub(crate) async fn a_take_over_is_no_echo_of_an_update(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    store
        .take_over(&upload.id, writer(1), times())
        .await
        .unwrap();
    let outcome = store.update(&upload).await.unwrap();
    assert!(matches!(outcome, Update::Conflict(present) if present.version == 2));
}

pub(crate) async fn an_update_replaces_all_but_the_parts(store: &dyn StateStore) {
    let mut upload = upload(&owner());
    create(store, &upload).await;
    record(store, &upload.id, [1, 2, 9]).await;
    let parts = get(store, &upload.id).await.parts;
    upload.phase = Phase::Complete;
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
    });
    upload.updated_at = times().now;
    upload.expires_at = times().expires_at;
    assert_eq!(store.update(&upload).await.unwrap(), Update::Updated(2));
    upload.version = 2;
    upload.parts = parts;
    assert_eq!(get(store, &upload.id).await, upload);
}

pub(crate) async fn fifty_parts_side_by_side_are_all_recorded(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    let numbers: Vec<u32> = (1..=50).rev().collect();
    let parts: Vec<_> = numbers.into_iter().map(part).collect();
    let calls = parts
        .iter()
        .map(|part| store.record_parts(&upload.id, writer(1), std::slice::from_ref(part), times()));
    try_join_all(calls).await.unwrap();
    let stored = get(store, &upload.id).await;
    assert_eq!((stored.parts.committed(), stored.parts.len()), (50, 50));
    assert_eq!(stored.version, 1);
}

pub(crate) async fn writes_set_the_times(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    let mut later = times();
    later.now = later.now.plus(Duration::from_secs(5));
    later.expires_at = later.expires_at.plus(Duration::from_secs(99));
    store
        .record_parts(&upload.id, writer(1), &[part(1)], later)
        .await
        .unwrap();
    let recorded = get(store, &upload.id).await;
    assert_eq!(
        (recorded.updated_at, recorded.expires_at),
        (later.now, later.expires_at)
    );
    later.expires_at = later.expires_at.plus(Duration::from_secs(1));
    store.take_over(&upload.id, writer(2), later).await.unwrap();
    let taken = get(store, &upload.id).await;
    assert_eq!(
        (taken.updated_at, taken.expires_at),
        (later.now, later.expires_at)
    );
    assert_eq!(taken.created_at, upload.created_at);
}

pub(crate) async fn ten_thousand_parts_read_back(store: &dyn StateStore) {
    let mut upload = upload(&owner());
    upload.parts = (1..=10_000).map(part).collect();
    create(store, &upload).await;
    assert_eq!(get(store, &upload.id).await, upload);
    let taken = store
        .take_over(&upload.id, writer(2), times())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(taken.parts.committed(), 10_000);
}

pub(crate) async fn a_listing_shows_the_newest_first_and_only_the_owners(store: &dyn StateStore) {
    let (mine, other) = (owner(), owner());
    let stranger = Owner {
        tenant: String::new(),
        subject: mine.subject.clone(),
    };
    let mut expected = Vec::new();
    for age in [3, 1, 2] {
        let mut upload = upload(&mine);
        upload.created_at = Timestamp(upload.created_at.0 - age * 1_000);
        create(store, &upload).await;
        expected.push((age, upload.id));
    }
    create(store, &upload(&other)).await;
    create(store, &upload(&stranger)).await;
    expected.sort();
    let ids: Vec<_> = list_all(store, &mine, None, 10)
        .await
        .into_iter()
        .map(|upload| upload.id)
        .collect();
    assert_eq!(
        ids,
        expected.into_iter().map(|(_, id)| id).collect::<Vec<_>>()
    );
    assert!(list_all(store, &owner(), None, 10).await.is_empty());
}

pub(crate) async fn pages_lose_and_repeat_nothing_across_equal_times(store: &dyn StateStore) {
    let owner = owner();
    let created_at = now();
    let mut expected = Vec::new();
    for number in 0..23 {
        let created_at = Timestamp(created_at.0 - number / 8);
        let upload = Upload {
            created_at,
            ..upload(&owner)
        };
        create(store, &upload).await;
        expected.push((u64::MAX - created_at.0, upload.id));
    }
    expected.sort();
    let expected: Vec<_> = expected.into_iter().map(|(_, id)| id).collect();
    for limit in [1, 4, 23, 100] {
        let listed = list_all(store, &owner, None, limit).await;
        let ids: Vec<_> = listed.into_iter().map(|upload| upload.id).collect();
        assert_eq!(ids, expected, "in pages of {limit}");
    }
}

pub(crate) async fn a_listing_can_ask_for_one_phase(store: &dyn StateStore) {
    let owner = owner();
    let mut aborted = Vec::new();
    for number in 0..12 {
        let mut upload = upload(&owner);
        create(store, &upload).await;
        if number % 3 == 0 {
            upload.phase = Phase::Aborted;
            store.update(&upload).await.unwrap();
            aborted.push(upload.id);
        }
    }
    for limit in [1, 3, 50] {
        let listed = list_all(store, &owner, Some(Phase::Aborted), limit).await;
        let mut ids: Vec<_> = listed.into_iter().map(|upload| upload.id).collect();
        ids.sort();
        aborted.sort();
        assert_eq!(ids, aborted, "in pages of {limit}");
    }
    assert_eq!(list_all(store, &owner, Some(Phase::Open), 5).await.len(), 8);
}

pub(crate) async fn a_listing_sums_parts_up(store: &dyn StateStore) {
    let owner = owner();
    let upload = upload(&owner);
    create(store, &upload).await;
    let listed = list_all(store, &owner, None, 10).await;
    assert_eq!(listed.first(), Some(&upload));
    record(store, &upload.id, [1, 2, 3, 7]).await;
    let listed = list_all(store, &owner, None, 10).await;
    let summary = listed.first().unwrap();
    assert_eq!(summary.committed_size(), 3 * PART_SIZE);
    assert_eq!((summary.parts.committed(), summary.parts.len()), (3, 1));
    let mut whole = get(store, &upload.id).await;
    whole.parts = summary.parts.clone();
    assert_eq!(*summary, whole);
}

pub(crate) async fn the_first_secret_offered_stays(store: &dyn StateStore) {
    let first = Secret::new([0xff; 32]);
    assert!(store.secret(&first).await.unwrap() == first);
    for byte in [0, 1, 2] {
        assert!(store.secret(&Secret::new([byte; 32])).await.unwrap() == first);
    }
}

pub(crate) async fn a_store_that_works_passes_the_check(store: &dyn StateStore) {
    store.check().await.unwrap();
    store.check().await.unwrap();
}

/// All pages of an owner's listing, put together.
async fn list_all(
    store: &dyn StateStore,
    owner: &Owner,
    phase: Option<Phase>,
    limit: usize,
) -> Vec<Upload> {
    let mut uploads = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let query = ListQuery {
            owner: owner.clone(),
            phase,
            limit,
            after,
        };
        let page = store.list(&query).await.unwrap();
        assert!(page.uploads.len() <= limit);
        uploads.extend(page.uploads);
        after = page.next;
        if after.is_none() {
            return uploads;
        }
    }
}
