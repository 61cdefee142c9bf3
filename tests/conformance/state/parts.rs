//! Parts that streams record, in every state store.

use futures::future::try_join_all;
use upload_gateway_core::{
    error::Reason,
    state::{PartRecord, Predecessor, StateStore, Update},
    upload::{Md5, PART_SIZE, Part, Phase, Upload},
};

use super::samples::*;

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
        checksum: None,
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

/// A large record is read in pages.
pub(crate) async fn a_record_that_ends_while_it_is_read_is_whole_or_ended(store: &dyn StateStore) {
    for calls_before in 0..4 {
        let mut upload = sized(upload(&owner()), 10_000);
        upload.parts = (1..=10_000).map(part).collect();
        create(store, &upload).await;
        let end = async {
            for _ in 0..calls_before {
                store.summary(&upload.id).await.unwrap();
            }
            let mut ended = upload.clone();
            ended.phase = Phase::Aborted;
            store.update(&ended, upload.writer).await.unwrap()
        };
        let reads = try_join_all((0..4).map(|_| store.get(&upload.id)));
        let (read, ended) = tokio::join!(reads, end);
        assert!(matches!(ended, Update::Updated(_)));
        for found in read.unwrap() {
            let found = found.unwrap();
            let parts = if found.phase == Phase::Aborted {
                0
            } else {
                10_000
            };
            assert_eq!(found.parts.len(), parts, "{}", found.phase);
        }
    }
}
