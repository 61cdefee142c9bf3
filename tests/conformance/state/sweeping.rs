//! What the sweeper needs, in every state store.

use std::time::Duration;

use tokio::time::Instant;
use upload_gateway_core::{
    state::{Due, Note, PartRecord, Predecessor, StateStore, Times, Update},
    upload::{Cleanup, Lease, Phase, Timestamp, Upload, UploadId},
};

use super::{common, samples::*};

const SECOND: Duration = Duration::from_secs(1);

/// An upload that expires at `start` plus `after`.
fn expiring(start: Timestamp, after: Duration) -> Upload {
    Upload {
        expires_at: start.plus(after),
        ..upload(&owner())
    }
}

/// All that is due, in pages.
pub(crate) async fn due(store: &dyn StateStore, before: Timestamp, limit: usize) -> Vec<UploadId> {
    let mut uploads = Vec::new();
    let mut after: Option<Due> = None;
    loop {
        let page = store.due(before, after.as_ref(), limit).await.unwrap();
        assert!(page.uploads.len() <= limit);
        uploads.extend(page.uploads);
        assert!(
            page.next.is_none() || page.next > after,
            "the listing does not advance"
        );
        after = page.next;
        if after.is_none() {
            return uploads;
        }
    }
}

pub(crate) async fn due_uploads_are_listed_completely_and_earliest_first(store: &dyn StateStore) {
    let start = now();
    let mut expected = Vec::new();
    for number in 0..17_u32 {
        // Several at the same time, so that pages end between equal times.
        let upload = expiring(start, SECOND * (17 - number).div_ceil(6));
        create(store, &upload).await;
        expected.push((upload.expires_at, upload.id));
    }
    expected.sort();
    let expected: Vec<_> = expected.into_iter().map(|(_, id)| id).collect();
    for limit in [1, 4, 17, 100] {
        let all = due(store, start.plus(SECOND * 3), limit).await;
        assert_eq!(all, expected, "in pages of {limit}");
    }
    assert_eq!(due(store, start.plus(SECOND), 5).await.len(), 6);
    assert!(due(store, start, 5).await.is_empty());
}

pub(crate) async fn prolonging_an_upload_postpones_its_due_time(store: &dyn StateStore) {
    let start = now();
    let uploads: Vec<_> = (0..4).map(|_| sized(expiring(start, SECOND), 2)).collect();
    for upload in &uploads {
        create(store, upload).await;
    }
    let later = Times {
        now: start,
        expires_at: start.plus(SECOND * 9),
    };
    let [left, parted, claimed, taken] = &uploads[..] else {
        panic!("four uploads")
    };
    store
        .record_parts(&parted.id, writer(1), 0, &[part(1)], later)
        .await
        .unwrap();
    store
        .claim(&claimed.id, &claimed.owner, &[claim(1)], later)
        .await
        .unwrap();
    store
        .take_over(&taken.id, writer(2), Predecessor::Any, later)
        .await
        .unwrap();
    let at = |seconds| start.plus(SECOND * seconds);
    // Twice: the first listing repairs the index.
    for _ in 0..2 {
        assert_eq!(due(store, at(8), 2).await, std::slice::from_ref(&left.id));
    }
    assert_eq!(due(store, at(9), 2).await.len(), 4);
}

pub(crate) async fn recording_no_parts_is_a_heartbeat(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    record(store, &upload.id, [1]).await;
    let mut later = times();
    later.expires_at = later.expires_at.plus(SECOND);
    let recorded = store
        .record_parts(&upload.id, writer(1), 0, &[], later)
        .await;
    assert_eq!(recorded.unwrap(), PartRecord::Recorded { committed: 1 });
    let known = get(store, &upload.id).await;
    assert_eq!(
        (known.expires_at, known.updated_at),
        (later.expires_at, later.now)
    );
    let stranger = store
        .record_parts(&upload.id, writer(2), 0, &[], later)
        .await;
    assert_eq!(stranger.unwrap(), PartRecord::TakenOver);
}

pub(crate) async fn age_makes_an_upload_due_although_it_changes(store: &dyn StateStore) {
    let start = now();
    let upload = Upload {
        ends_at: start.plus(SECOND * 2),
        ..upload(&owner())
    };
    create(store, &upload).await;
    record(store, &upload.id, [1]).await;
    assert!(due(store, start.plus(SECOND), 9).await.is_empty());
    assert_eq!(due(store, upload.ends_at, 9).await, [upload.id]);
}

pub(crate) async fn a_commit_is_due_when_its_lease_ends(store: &dyn StateStore) {
    let start = now();
    let mut upload = upload(&owner());
    create(store, &upload).await;
    upload.phase = Phase::Committing;
    upload.lease = Some(Lease {
        holder: writer(1),
        until: start.plus(SECOND),
    });
    store.update(&upload, upload.writer).await.unwrap();
    assert!(due(store, start, 9).await.is_empty());
    let ended = due(store, start.plus(SECOND), 9).await;
    assert_eq!(ended, std::slice::from_ref(&upload.id));
    upload.version += 1;
    upload.phase = Phase::Open;
    store.update(&upload, upload.writer).await.unwrap();
    assert!(due(store, start.plus(SECOND), 9).await.is_empty());
    assert_eq!(due(store, upload.expires_at, 9).await, [upload.id]);
}

pub(crate) async fn an_upload_that_has_ended_is_never_due(store: &dyn StateStore) {
    for phase in [Phase::Complete, Phase::Aborted] {
        let mut upload = upload(&owner());
        create(store, &upload).await;
        (upload.phase, upload.cleanup) = (phase, Cleanup::Done);
        store.update(&upload, upload.writer).await.unwrap();
    }
    assert!(due(store, Timestamp::never(), 9).await.is_empty());
}

pub(crate) async fn an_aborted_upload_is_due_once_more(store: &dyn StateStore) {
    let mut upload = upload(&owner());
    create(store, &upload).await;
    upload.phase = Phase::Aborted;
    upload.expires_at = upload.expires_at.plus(SECOND);
    store.update(&upload, upload.writer).await.unwrap();
    assert!(
        due(store, upload.expires_at.minus(SECOND), 9)
            .await
            .is_empty()
    );
    assert_eq!(due(store, upload.expires_at, 9).await, [upload.id.clone()]);
    (upload.version, upload.cleanup) = (upload.version + 1, Cleanup::Done);
    store.update(&upload, upload.writer).await.unwrap();
    assert!(due(store, Timestamp::never(), 9).await.is_empty());
}

pub(crate) async fn an_upload_that_was_resumed_meanwhile_is_not_updated(store: &dyn StateStore) {
    let later = Times {
        now: now().plus(SECOND),
        expires_at: now().plus(SECOND * 9),
    };
    for is_claim in [false, true] {
        let seen = sized(upload(&owner()), 2);
        create(store, &seen).await;
        if is_claim {
            let claims = [claim(1)];
            store
                .claim(&seen.id, &seen.owner, &claims, later)
                .await
                .unwrap();
        } else {
            let parts = [part(1)];
            store
                .record_parts(&seen.id, writer(1), 0, &parts, later)
                .await
                .unwrap();
        }
        let known = get(store, &seen.id).await;
        let aborted = Upload {
            phase: Phase::Aborted,
            ..seen.clone()
        };
        let refused = store.update_untouched(&aborted, seen.updated_at).await;
        assert_eq!(refused.unwrap(), Update::Conflict(Box::new(known)));
        assert_eq!(get(store, &seen.id).await.phase, Phase::Open);
    }
}

pub(crate) async fn an_untouched_upload_is_updated_also_after_a_lost_reply(store: &dyn StateStore) {
    let seen = findable(&owner(), "a");
    create(store, &seen).await;
    let aborted = Upload {
        phase: Phase::Aborted,
        updated_at: seen.updated_at.plus(SECOND),
        ..seen.clone()
    };
    for _ in 0..2 {
        let updated = store.update_untouched(&aborted, seen.updated_at).await;
        assert_eq!(updated.unwrap(), Update::Updated(2));
    }
    let other = upload(&owner());
    let missing = store.update_untouched(&other, other.updated_at).await;
    assert_eq!(missing.unwrap(), Update::Missing);
    // Its fingerprint is free.
    create(store, &findable(&seen.owner, "a")).await;
}

pub(crate) async fn notes_are_replaced_only_by_those_who_have_seen_them(store: &dyn StateStore) {
    let (note, other) = (Note::Stops, Note::Integrity("media".into()));
    assert_eq!(store.note(&note).await.unwrap(), None);
    let replace = async |seen, text| store.replace_note(&note, seen, text).await.unwrap();
    assert!(!replace(Some("other"), "first").await);
    assert!(replace(None, "first").await);
    assert!(replace(None, "first").await, "after a lost reply");
    assert!(!replace(None, "second").await);
    assert!(!replace(Some("other"), "second").await);
    assert_eq!(store.note(&note).await.unwrap().as_deref(), Some("first"));
    assert!(replace(Some("first"), "second").await);
    assert_eq!(store.note(&note).await.unwrap().as_deref(), Some("second"));
    assert_eq!(store.note(&other).await.unwrap(), None);
}

pub(crate) async fn a_lease_has_one_holder(store: &dyn StateStore) {
    const LONG: Duration = Duration::from_secs(60);
    let take = async |name, holder| store.lease(name, holder, LONG).await.unwrap();
    assert!(take("one", "a").await);
    assert!(take("one", "a").await, "its holder prolongs it");
    assert!(!take("one", "b").await);
    assert!(take("other", "b").await);
    store.release("one", "b").await.unwrap();
    assert!(!take("one", "b").await, "only its holder releases it");
    store.release("one", "a").await.unwrap();
    assert!(take("one", "b").await);
}

pub(crate) async fn a_lease_expires(store: &dyn StateStore) {
    let short = Duration::from_millis(50);
    let begun = Instant::now();
    assert!(store.lease("one", "a", short).await.unwrap());
    // The store's own clock decides: the test can only wait.
    common::until("the lease has expired", async || {
        store.lease("one", "b", short * 100).await.unwrap()
    })
    .await;
    assert!(begun.elapsed() >= short, "{:?}", begun.elapsed());
    assert!(!store.lease("one", "a", short).await.unwrap());
}
