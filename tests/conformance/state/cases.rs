//! Records and their writes, in every state store.

use std::time::Duration;

use futures::future::{join_all, try_join_all};
use upload_gateway_core::{
    error::Reason,
    state::{Creation, PartRecord, Predecessor, StateStore, Update},
    upload::{Lease, Md5, Object, PART_SIZE, Part, Phase, Secret, Upload, UploadId},
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
    store.update(&upload, upload.writer).await.unwrap();
    let again = store.create(&findable(&owner, "a")).await.unwrap();
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

pub(crate) async fn concurrent_creates_make_one_upload(store: &dyn StateStore) {
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
            .record_parts(&upload.id, writer(1), 0, &[part(1)], times())
            .await;
        assert_eq!(outcome.unwrap(), PartRecord::Recorded { committed: 1 });
    }
    let resumed = store
        .take_over(&upload.id, writer(2), Predecessor::Any, times())
        .await
        .unwrap();
    assert_eq!(resumed.unwrap().committed_size(), PART_SIZE);
}

pub(crate) async fn another_writer_records_nothing(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    let outcome = store
        .record_parts(&upload.id, writer(2), 0, &[part(1)], times())
        .await;
    assert_eq!(outcome.unwrap(), PartRecord::TakenOver);
    let unwritten = Upload {
        writer: None,
        ..self::upload(&owner())
    };
    create(store, &unwritten).await;
    let outcome = store
        .record_parts(&unwritten.id, writer(1), 0, &[part(1)], times())
        .await;
    assert_eq!(outcome.unwrap(), PartRecord::TakenOver);
    assert!(get(store, &upload.id).await.parts.is_empty());
}

pub(crate) async fn only_the_contiguous_prefix_is_committed(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    for (number, expected) in [(3, 0), (1, 1), (5, 1), (2, 3), (4, 5)] {
        let outcome = store
            .record_parts(&upload.id, writer(1), 0, &[part(number)], times())
            .await;
        let committed = PartRecord::Recorded {
            committed: expected,
        };
        assert_eq!(outcome.unwrap(), committed, "after part {number}");
        assert_eq!(get(store, &upload.id).await.parts.committed(), expected);
    }
}

pub(crate) async fn a_part_replaces_another_one_of_its_number(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    record(store, &upload.id, [1, 3]).await;
    for number in [1, 3] {
        let other = Part {
            receipt: "other".into(),
            ..part(number)
        };
        let outcome = store
            .record_parts(
                &upload.id,
                writer(1),
                0,
                std::slice::from_ref(&other),
                times(),
            )
            .await;
        assert_eq!(outcome.unwrap(), PartRecord::Recorded { committed: 1 });
        let parts = get(store, &upload.id).await.parts;
        assert_eq!((parts.get(number), parts.len()), (Some(&other), 2));
    }
}

/// ETags as stores write them: MD5s, composites, opaque ones, and with all that HTTP allows.
pub(crate) async fn a_receipt_of_any_shape_reads_back_equal(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    let md5 = Md5::of(b"").to_hex();
    let receipts = [
        "x".into(),
        md5.clone(),
        md5.to_uppercase(),
        format!("{md5}-7"),
        format!("\"{md5}\""),
        "AAAABAAB".into(),
        "\"größer-0x8DC\"-é".repeat(4)[..70].to_owned(),
        "\"-é9".repeat(205)[..1_024].to_owned(),
    ];
    let named = |receipt: &String, number| Part {
        receipt: receipt.clone(),
        ..part(number)
    };
    let parts: Vec<_> = receipts
        .iter()
        .zip(1..)
        .map(|(receipt, number)| named(receipt, number))
        .collect();
    for part in &parts {
        let recorded = store.record_parts(
            &upload.id,
            writer(1),
            0,
            std::slice::from_ref(part),
            times(),
        );
        let committed = part.number;
        assert_eq!(recorded.await.unwrap(), PartRecord::Recorded { committed });
    }
    let stored = get(store, &upload.id).await;
    assert_eq!(stored.parts, parts.into_iter().collect());
    // Each part once more, with the receipt of another part.
    for (number, receipt) in (1..).zip(receipts.iter().rev()) {
        let other = [named(receipt, number)];
        let recorded = store.record_parts(&upload.id, writer(1), 0, &other, times());
        recorded.await.unwrap();
        let stored = get(store, &upload.id).await;
        assert_eq!(stored.parts.get(number).unwrap().receipt, *receipt);
    }
}

pub(crate) async fn a_receipt_longer_than_1024_bytes_is_an_error_of_the_store(
    store: &dyn StateStore,
) {
    let upload = upload(&owner());
    create(store, &upload).await;
    let long = [Part {
        receipt: "x".repeat(1_025),
        ..part(1)
    }];
    let error = store.record_parts(&upload.id, writer(1), 0, &long, times());
    assert_eq!(error.await.unwrap_err().reason(), Reason::StoreUnavailable);
    assert!(get(store, &upload.id).await.parts.is_empty());
}

pub(crate) async fn only_digest_states_that_a_resume_can_need_are_kept(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    let bare = Part {
        md5: None,
        ..part(7)
    };
    for (recorded, kept) in [
        (part(1), &[1][..]),
        (part(2), &[2]),
        (part(5), &[2, 5]),
        (part(4), &[2, 4, 5]),
        (part(3), &[5]),
        (part(6), &[6]),
        // Without its own MD5, bytes that are sent again are compared by the digests around the part.
        (bare, &[6, 7]),
        (part(8), &[6, 7, 8]),
    ] {
        let recorded = [recorded];
        let outcome = store.record_parts(&upload.id, writer(1), 0, &recorded, times());
        outcome.await.unwrap();
        let parts = get(store, &upload.id).await.parts;
        let found: Vec<_> = parts
            .iter()
            .filter(|part| part.digest.is_some())
            .map(|part| part.number)
            .collect();
        assert_eq!(found, kept);
    }
}

pub(crate) async fn another_part_in_the_committed_prefix_is_counted(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    record(store, &upload.id, [1, 2, 4]).await;
    let other = |number, receipt: &str| Part {
        receipt: receipt.into(),
        ..part(number)
    };
    for (recorded, count) in [
        (part(2), 0),
        (other(4, "b"), 0),
        (other(2, "b"), 1),
        (other(2, "b"), 1),
        (other(2, "c"), 2),
    ] {
        let recorded = [recorded];
        let outcome = store.record_parts(&upload.id, writer(1), 0, &recorded, times());
        outcome.await.unwrap();
        assert_eq!(get(store, &upload.id).await.parts.rewritten(), count);
    }
}

pub(crate) async fn several_parts_are_recorded_at_once(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    record(store, &upload.id, [2]).await;
    let outcome = store
        .record_parts(&upload.id, writer(1), 0, &[3, 6, 1].map(part), times())
        .await;
    assert_eq!(outcome.unwrap(), PartRecord::Recorded { committed: 3 });
    let stored = get(store, &upload.id).await;
    assert_eq!(stored.parts, [1, 2, 3, 6].map(part).into_iter().collect());
    assert_eq!(stored.version, 1);
}

pub(crate) async fn several_parts_of_another_writer_are_not_recorded(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    record(store, &upload.id, [1]).await;
    let before = get(store, &upload.id).await;
    let outcome = store
        .record_parts(&upload.id, writer(2), 0, &[1, 2, 3].map(part), times())
        .await;
    assert_eq!(outcome.unwrap(), PartRecord::TakenOver);
    assert_eq!(get(store, &upload.id).await, before);
}

pub(crate) async fn ten_thousand_parts_are_recorded_at_once(store: &dyn StateStore) {
    let upload = sized(upload(&owner()), 10_000);
    create(store, &upload).await;
    let parts: Vec<_> = (1..=10_000).map(part).collect();
    let outcome = store
        .record_parts(&upload.id, writer(1), 0, &parts, times())
        .await;
    assert_eq!(outcome.unwrap(), PartRecord::Recorded { committed: 10_000 });
    assert_eq!(
        get(store, &upload.id).await.parts,
        parts.into_iter().collect()
    );
}

pub(crate) async fn parts_are_recorded_only_in_phase_open(store: &dyn StateStore) {
    for phase in [Phase::Committing, Phase::Complete, Phase::Aborted] {
        let mut upload = upload(&owner());
        create(store, &upload).await;
        upload.phase = phase;
        store.update(&upload, upload.writer).await.unwrap();
        let before = get(store, &upload.id).await;
        let outcome = store
            .record_parts(&upload.id, writer(1), 0, &[part(1)], times())
            .await;
        assert_eq!(outcome.unwrap(), PartRecord::NotOpen(phase));
        let late = store
            .record_parts(&upload.id, writer(2), 0, &[part(1)], times())
            .await;
        assert_eq!(late.unwrap(), PartRecord::TakenOver);
        assert_eq!(get(store, &upload.id).await, before);
    }
}

pub(crate) async fn a_record_older_than_the_writer_knows_accepts_no_parts(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    for (version, expected) in [
        (upload.version + 1, PartRecord::Missing),
        (upload.version, PartRecord::Recorded { committed: 1 }),
    ] {
        let outcome = store
            .record_parts(&upload.id, writer(1), version, &[part(1)], times())
            .await;
        assert_eq!(outcome.unwrap(), expected);
    }
}

pub(crate) async fn parts_of_a_missing_record_are_missing(store: &dyn StateStore) {
    let missing = upload(&owner());
    let outcome = store
        .record_parts(&missing.id, writer(1), 0, &[part(1)], times())
        .await;
    assert_eq!(outcome.unwrap(), PartRecord::Missing);
    assert_eq!(
        store.update(&missing, missing.writer).await.unwrap(),
        Update::Missing
    );
    assert_eq!(store.get(&missing.id).await.unwrap(), None);
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
    assert_eq!(
        store.update(&upload, Some(writer(1))).await.unwrap(),
        Update::Updated(2)
    );
    upload.version = 2;
    upload.parts = parts;
    assert_eq!(get(store, &upload.id).await, upload);
}

pub(crate) async fn an_aborted_upload_keeps_no_parts_and_claims(store: &dyn StateStore) {
    let mut upload = sized(findable(&owner(), "a"), 5);
    create(store, &upload).await;
    let long = [Part {
        receipt: "\"long\"".into(),
        ..part(2)
    }];
    let recorded = store.record_parts(&upload.id, writer(1), 0, &long, times());
    recorded.await.unwrap();
    record(store, &upload.id, [1, 4]).await;
    let claims = [claim(3)];
    let claimed = store.claim(&upload.id, &upload.owner, &claims, times());
    claimed.await.unwrap();
    upload.phase = Phase::Aborted;
    // Also if the answer to the first call was lost.
    for _ in 0..2 {
        let ended = store.update(&upload, upload.writer).await.unwrap();
        assert_eq!(ended, Update::Updated(2));
    }
    upload.version = 2;
    assert_eq!(get(store, &upload.id).await, upload);
    assert_eq!(store.summary(&upload.id).await.unwrap(), Some(upload));
}

pub(crate) async fn fifty_concurrent_parts_are_all_recorded(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    let numbers: Vec<u32> = (1..=50).rev().collect();
    let parts: Vec<_> = numbers.into_iter().map(part).collect();
    let calls = parts.iter().map(|part| {
        store.record_parts(
            &upload.id,
            writer(1),
            0,
            std::slice::from_ref(part),
            times(),
        )
    });
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

pub(crate) async fn ten_thousand_parts_read_back(store: &dyn StateStore) {
    let mut upload = sized(upload(&owner()), 10_000);
    upload.parts = (1..=10_000).map(part).collect();
    create(store, &upload).await;
    assert_eq!(get(store, &upload.id).await, upload);
    let taken = store
        .take_over(&upload.id, writer(2), Predecessor::Any, times())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(taken.parts.committed(), 10_000);
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
