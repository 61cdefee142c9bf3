//! Claims of clients about parts that they put into the store themselves, in every state store.

use std::time::Duration;

use futures::future::try_join_all;
use upload_gateway_core::{
    state::{Creation, PartRecord, Predecessor, StateStore, Update},
    upload::{
        Claim, Claims, Md5, Owner, PART_SIZE, Part, Parts, Phase, Plan, StoreLimits, Upload,
        UploadId,
    },
};

use super::samples::*;

pub(crate) async fn a_claim_is_stored_and_changes_only_the_times(store: &dyn StateStore) {
    let mut upload = stored(store, 5).await;
    let mut later = times();
    later.now = later.now.plus(Duration::from_secs(5));
    later.expires_at = later.expires_at.plus(Duration::from_secs(99));
    let claims = [claim(5), bare_claim(2)];
    let answer = store
        .claim(&upload.id, &upload.owner, &claims, later)
        .await
        .unwrap();
    (upload.updated_at, upload.expires_at) = (later.now, later.expires_at);
    assert_eq!(answer, Some(upload.clone()));
    upload.claims = claims.into_iter().collect();
    assert_eq!(get(store, &upload.id).await, upload);
}

pub(crate) async fn concurrent_claims_are_all_stored(store: &dyn StateStore) {
    let upload = stored(store, 51).await;
    // As clients report: the MD5 of one part, and which others are in flight.
    let reports: Vec<_> = (1..=50)
        .map(|number| [bare_claim(number + 1), claim(number)])
        .collect();
    let calls = reports
        .iter()
        .map(|report| store.claim(&upload.id, &upload.owner, report, times()));
    try_join_all(calls).await.unwrap();
    let stored = get(store, &upload.id).await;
    let expected: Claims = (1..=50).map(claim).chain([bare_claim(51)]).collect();
    assert_eq!((stored.claims, stored.version), (expected, 1));
}

pub(crate) async fn a_claim_without_an_md5_keeps_the_one_before(store: &dyn StateStore) {
    let upload = stored(store, 3).await;
    let other = Claim {
        number: 1,
        md5: Some(Md5::of(b"other")),
        signed_for: None,
    };
    for (said, known) in [
        (bare_claim(1), None),
        (claim(1), claim(1).md5),
        (bare_claim(1), claim(1).md5),
        (other, other.md5),
    ] {
        store_claims(store, &upload, &[said]).await;
        let claims = get(store, &upload.id).await.claims;
        assert_eq!(claims.iter().count(), 1);
        assert_eq!(claims.md5(1), known, "after {said:?}");
    }
}

pub(crate) async fn the_last_claim_of_a_number_in_one_call_counts(store: &dyn StateStore) {
    let upload = stored(store, 3).await;
    let other = Claim {
        number: 1,
        md5: Some(Md5::of(b"other")),
        signed_for: None,
    };
    store_claims(store, &upload, &[other, claim(1), bare_claim(1)]).await;
    assert_eq!(get(store, &upload.id).await.claims.md5(1), claim(1).md5);
}

pub(crate) async fn a_claim_returns_the_parts_of_its_numbers(store: &dyn StateStore) {
    let upload = stored(store, 9).await;
    record(store, &upload.id, [1, 2, 3, 7, 8]).await;
    store_claims(store, &upload, &[claim(4)]).await;
    let answer = store_claims(store, &upload, &[1, 7, 9].map(claim)).await;
    assert_eq!(answer.parts, shown(&[1, 2, 3, 7, 8], &[1, 3, 7]));
    assert_eq!(answer.committed_size(), 3 * PART_SIZE);
    assert!(answer.claims.is_empty());
    let nothing_said = store_claims(store, &upload, &[]).await;
    assert_eq!(nothing_said.parts, Parts::summary(3, [part(3)]));
}

pub(crate) async fn a_claim_that_a_recorded_part_contradicts_is_not_stored(store: &dyn StateStore) {
    let upload = stored(store, 5).await;
    record(store, &upload.id, [1, 2, 3]).await;
    let unproven = Part {
        checksum: None,
        ..part(4)
    };
    store
        .record_parts(&upload.id, writer(1), 0, &[unproven], times())
        .await
        .unwrap();
    let other = |number| Claim {
        number,
        md5: Some(Md5::of(b"other")),
        signed_for: None,
    };
    let said = [other(1), claim(2), bare_claim(3), other(4), other(5)];
    let answer = store_claims(store, &upload, &said).await;
    assert_eq!(answer.parts.len(), 4);
    let noted: Claims = said.into_iter().skip(1).collect();
    assert_eq!(get(store, &upload.id).await.claims, noted);
}

pub(crate) async fn another_owner_claims_nothing(store: &dyn StateStore) {
    let upload = stored(store, 3).await;
    let stranger = Owner {
        tenant: upload.owner.tenant.clone(),
        subject: "stranger".into(),
    };
    for owner in [owner(), stranger, Owner::default()] {
        let answer = store.claim(&upload.id, &owner, &[claim(1)], times()).await;
        assert_eq!(answer.unwrap(), None);
    }
    assert_eq!(get(store, &upload.id).await, upload);
    let missing = UploadId::generate(None);
    let answer = store
        .claim(&missing, &upload.owner, &[claim(1)], times())
        .await;
    assert_eq!(answer.unwrap(), None);
    assert_eq!(store.get(&missing).await.unwrap(), None);
}

pub(crate) async fn owners_whose_joined_names_are_equal_are_distinguished(store: &dyn StateStore) {
    let named = |tenant: &str, subject: &str| Owner {
        tenant: tenant.into(),
        subject: subject.into(),
    };
    let upload = sized(upload(&named("a:b", "c")), 3);
    create(store, &upload).await;
    for owner in [named("a", "b:c"), named("a:b:", "c"), named("", "a:b:c")] {
        let answer = store.claim(&upload.id, &owner, &[claim(1)], times()).await;
        assert_eq!(answer.unwrap(), None, "{owner:?}");
    }
    store_claims(store, &upload, &[claim(1)]).await;
}

pub(crate) async fn a_claim_outside_the_plan_is_not_stored(store: &dyn StateStore) {
    let upload = stored(store, 3).await;
    for outside in [0, 4, u32::MAX] {
        let claims = [claim(1), bare_claim(2), claim(outside)];
        assert_eq!(
            store_claims(store, &upload, &claims).await,
            upload,
            "{outside}"
        );
        assert_eq!(get(store, &upload.id).await, upload, "{outside}");
    }
    // An empty file has one part.
    let mut empty = self::upload(&owner());
    empty.plan = upload.plan.clone();
    empty.file.file_size = Some(0);
    create(store, &empty).await;
    store_claims(store, &empty, &[claim(2)]).await;
    assert!(get(store, &empty.id).await.claims.is_empty());
    store_claims(store, &empty, &[claim(1)]).await;
    assert_eq!(get(store, &empty.id).await.claims.iter().count(), 1);
}

pub(crate) async fn an_upload_of_unknown_size_stores_no_claims(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    assert_eq!(store_claims(store, &upload, &[claim(1)]).await, upload);
    assert_eq!(get(store, &upload.id).await, upload);
}

pub(crate) async fn claims_are_stored_once_the_size_is_known(store: &dyn StateStore) {
    let limits = StoreLimits {
        max_parts: 10_000,
        max_part_size: 5 << 30,
        max_object_size: 5 << 40,
        equal_parts: true,
    };
    let mut upload = upload(&owner());
    upload.plan = Plan::unknown(PART_SIZE, &limits);
    create(store, &upload).await;
    store_claims(store, &upload, &[claim(1)]).await;
    upload.file.file_size = Some(2 * PART_SIZE);
    assert_eq!(
        store.update(&upload, upload.writer).await.unwrap(),
        Update::Updated(2)
    );
    store_claims(store, &upload, &[claim(2)]).await;
    let claims = get(store, &upload.id).await.claims;
    assert_eq!(claims, Claims::from_iter([claim(2)]));
}

pub(crate) async fn an_upload_that_is_not_open_stores_no_claims(store: &dyn StateStore) {
    for phase in [Phase::Committing, Phase::Complete, Phase::Aborted] {
        let mut upload = stored(store, 3).await;
        record(store, &upload.id, [1, 2]).await;
        upload.phase = phase;
        store.update(&upload, upload.writer).await.unwrap();
        let before = get(store, &upload.id).await;
        let answer = store_claims(store, &upload, &[claim(1)]).await;
        let expected = Upload {
            // An upload that has ended keeps no parts.
            parts: match phase {
                Phase::Committing => shown(&[1, 2], &[1, 2]),
                _ => Parts::default(),
            },
            ..before.clone()
        };
        assert_eq!(answer, expected);
        assert_eq!(get(store, &upload.id).await, before);
    }
}

pub(crate) async fn claims_survive_all_other_writes(store: &dyn StateStore) {
    let owner = owner();
    let mut upload = sized(findable(&owner, "a"), 9);
    create(store, &upload).await;
    let claims: Claims = [claim(1), bare_claim(4), claim(9)].into_iter().collect();
    store_claims(store, &upload, &claims.iter().collect::<Vec<_>>()).await;
    record(store, &upload.id, [1, 9]).await;
    assert_eq!(get(store, &upload.id).await.claims, claims);
    let taken = store
        .take_over(&upload.id, writer(2), Predecessor::Any, times())
        .await
        .unwrap();
    assert_eq!(taken.unwrap().claims, claims);
    let Update::Conflict(present) = store.update(&upload, upload.writer).await.unwrap() else {
        panic!("an older version was replaced");
    };
    assert_eq!(present.claims, claims);
    let Creation::Exists(found) = store
        .create(&findable(&owner, "a"), u64::MAX)
        .await
        .unwrap()
    else {
        panic!("a second upload of one fingerprint was created");
    };
    assert_eq!(found.claims, claims);
    upload.version = 2;
    upload.phase = Phase::Committing;
    assert_eq!(
        store.update(&upload, Some(writer(2))).await.unwrap(),
        Update::Updated(3)
    );
    assert_eq!(get(store, &upload.id).await.claims, claims);
}

pub(crate) async fn a_claim_does_not_hide_a_repeated_update(store: &dyn StateStore) {
    let upload = stored(store, 3).await;
    store_claims(store, &upload, &[claim(1)]).await;
    let mut changed = get(store, &upload.id).await;
    changed.session = Some("mine".into());
    for _ in 0..2 {
        let outcome = store.update(&changed, changed.writer).await.unwrap();
        assert_eq!(outcome, Update::Updated(2));
        store_claims(store, &upload, &[claim(2)]).await;
    }
    assert_eq!(get(store, &upload.id).await.version, 2);
}

pub(crate) async fn fifty_thousand_claims_in_one_call_are_stored(store: &dyn StateStore) {
    let mut upload = sized(upload(&owner()), 50_000);
    // Every third part is recorded, also the last one.
    let numbers = || 1..=50_000;
    create(store, &upload).await;
    upload.parts = numbers().skip(1).step_by(3).map(part).collect();
    let parts: Vec<_> = upload.parts.iter().cloned().collect();
    // In calls of limited size, as the gateway does.
    for some in parts.chunks(1_000) {
        let recorded = store.record_parts(&upload.id, writer(1), 0, some, times());
        assert_eq!(
            recorded.await.unwrap(),
            PartRecord::Recorded { committed: 0 }
        );
    }
    let claims: Vec<_> = numbers()
        .map(|number| {
            if number % 2 == 0 {
                claim(number)
            } else {
                bare_claim(number)
            }
        })
        .collect();
    let answer = store_claims(store, &upload, &claims).await;
    assert_eq!(answer.parts, upload.parts);
    upload.claims = claims.into_iter().collect();
    let stored = get(store, &upload.id).await;
    assert_eq!((stored.parts, stored.claims), (upload.parts, upload.claims));
}

/// A new upload of `parts` parts.
async fn stored(store: &dyn StateStore, parts: u32) -> Upload {
    let upload = sized(upload(&owner()), parts);
    create(store, &upload).await;
    upload
}

/// Claims parts as their owner.
async fn store_claims(store: &dyn StateStore, upload: &Upload, claims: &[Claim]) -> Upload {
    let answer = store
        .claim(&upload.id, &upload.owner, claims, times())
        .await;
    answer.unwrap().expect("the record exists")
}

/// An upload whose parts a client cuts.
async fn cut_by_client(store: &dyn StateStore) -> Upload {
    let mut upload = sized(upload(&owner()), 3);
    upload.is_cut_by_client = true;
    create(store, &upload).await;
    upload
}

fn signed(number: u32, bytes: &[u8]) -> Claim {
    Claim {
        number,
        md5: Some(Md5::of(bytes)),
        signed_for: Some(0),
    }
}

pub(crate) async fn another_md5_of_a_signed_part_begins_a_new_cut(store: &dyn StateStore) {
    let upload = cut_by_client(store).await;
    for (claims, cut) in [
        (vec![signed(1, b"a"), signed(40_000, b"b")], 0),
        (vec![signed(1, b"a")], 0),
        (vec![bare_claim(1), claim(1)], 0),
        (vec![signed(2, b"c"), signed(1, b"other")], 1),
        // This one was signed in the cut before.
        (vec![signed(40_000, b"d")], 1),
        (vec![signed(2, b"d"), signed(1, b"another")], 2),
    ] {
        store_claims(store, &upload, &claims).await;
        let found = get(store, &upload.id).await;
        assert_eq!(found.cut, cut, "after {claims:?}");
        for claim in claims.iter().filter(|claim| claim.signed_for.is_some()) {
            assert!(found.claims.is_signed(claim.number, cut));
            assert_eq!(found.claims.md5(claim.number), claim.md5);
        }
    }
    let found = get(store, &upload.id).await;
    assert!(!found.claims.is_signed(40_000, 2));
    assert_eq!(found.version, upload.version);
}

pub(crate) async fn a_report_replaces_a_signed_md5_only_if_the_plan_is_fixed(
    store: &dyn StateStore,
) {
    for is_fixed in [false, true] {
        let upload = match is_fixed {
            true => stored(store, 3).await,
            false => cut_by_client(store).await,
        };
        let same = Claim {
            signed_for: None,
            ..signed(3, b"a")
        };
        store_claims(store, &upload, &[signed(1, b"a"), signed(3, b"a")]).await;
        store_claims(store, &upload, &[claim(1), claim(2), same]).await;
        let claims = get(store, &upload.id).await.claims;
        let first = if is_fixed { claim(1) } else { signed(1, b"a") };
        assert_eq!((claims.md5(1), claims.md5(2)), (first.md5, claim(2).md5));
        assert_eq!(claims.is_signed(1, 0), !is_fixed);
        assert!(claims.is_signed(3, 0) && !claims.is_signed(2, 0));
    }
    let upload = stored(store, 3).await;
    store_claims(store, &upload, &[signed(1, b"a")]).await;
    // The size of the parts is fixed here.
    store_claims(store, &upload, &[signed(1, b"b")]).await;
    let found = get(store, &upload.id).await;
    assert_eq!((found.cut, found.claims.md5(1)), (0, signed(1, b"b").md5));
}

pub(crate) async fn an_update_keeps_a_cut_that_began_meanwhile(store: &dyn StateStore) {
    let mut upload = cut_by_client(store).await;
    store_claims(store, &upload, &[signed(1, b"a")]).await;
    store_claims(store, &upload, &[signed(1, b"b")]).await;
    upload.session = Some("session".into());
    let updated = store.update(&upload, upload.writer).await.unwrap();
    assert!(matches!(updated, Update::Updated(_)));
    assert_eq!(get(store, &upload.id).await.cut, 1);
    let mut recut = get(store, &upload.id).await;
    recut.cut = 5;
    store.update(&recut, recut.writer).await.unwrap();
    assert_eq!(store.summary(&upload.id).await.unwrap().unwrap().cut, 5);
}

pub(crate) async fn an_unproven_part_is_proven_when_it_is_signed_again(store: &dyn StateStore) {
    let mut upload = cut_by_client(store).await;
    upload.unproven = Some(2);
    store.update(&upload, upload.writer).await.unwrap();
    for (claim, unproven) in [
        (signed(1, b"a"), Some(2)),
        (claim(2), Some(2)),
        (signed(2, b"a"), None),
    ] {
        store_claims(store, &upload, &[claim]).await;
        assert_eq!(get(store, &upload.id).await.unproven, unproven);
    }
}
