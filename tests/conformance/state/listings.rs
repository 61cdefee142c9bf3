//! Listings and counts, in every state store.

use upload_gateway_core::{
    state::{Creation, Cursor, ListQuery, Listing, Predecessor, StateStore, Update},
    upload::{Claims, Owner, PART_SIZE, Phase, Timestamp, Upload, UploadId},
};

use super::samples::*;

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
    let ids: Vec<_> = list_all(store, &mine, 10)
        .await
        .into_iter()
        .map(|upload| upload.id)
        .collect();
    assert_eq!(
        ids,
        expected.into_iter().map(|(_, id)| id).collect::<Vec<_>>()
    );
    assert!(list_all(store, &owner(), 10).await.is_empty());
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
        let listed = list_all(store, &owner, limit).await;
        let ids: Vec<_> = listed.into_iter().map(|upload| upload.id).collect();
        assert_eq!(ids, expected, "in pages of {limit}");
    }
}

pub(crate) async fn a_page_can_skip_entries(store: &dyn StateStore) {
    let (owner, created_at) = (owner(), now());
    let mut ids = Vec::new();
    for age in 0..7 {
        let mut upload = upload(&owner);
        upload.created_at = Timestamp(created_at.0 - age);
        create(store, &upload).await;
        ids.push((upload.created_at, upload.id));
    }
    for (after, skip, limit, expected, has_next) in [
        (None, 0, 3, &ids[..3], true),
        (None, 2, 3, &ids[2..5], true),
        (None, 4, 3, &ids[4..], false),
        (None, 9, 3, &[], false),
        (Some(1), 0, 5, &ids[2..], false),
        (Some(1), 3, 1, &ids[5..6], true),
    ] {
        let after = after.map(|last: usize| Cursor {
            created_at: ids[last].0,
            id: ids[last].1.clone(),
            name: None,
        });
        let query = ListQuery {
            listing: owner.clone().into(),
            after,
            skip,
            limit,
        };
        let page = store.list(&query).await.unwrap();
        let listed = page.uploads.iter().map(|upload| &upload.id);
        assert!(listed.eq(expected.iter().map(|(_, id)| id)), "{query:?}");
        let last = page.uploads.last().filter(|_| has_next).map(Cursor::of);
        assert_eq!(page.next, last, "{query:?}");
    }
}

pub(crate) async fn a_listing_summarises_parts(store: &dyn StateStore) {
    let owner = owner();
    let upload = upload(&owner);
    create(store, &upload).await;
    let listed = list_all(store, &owner, 10).await;
    assert_eq!(listed.first(), Some(&upload));
    record(store, &upload.id, [1, 2, 3, 7]).await;
    let listed = list_all(store, &owner, 10).await;
    let summary = listed.first().unwrap();
    assert_eq!(summary.committed_size(), 3 * PART_SIZE);
    assert_eq!((summary.parts.committed(), summary.parts.len()), (3, 1));
    let mut whole = get(store, &upload.id).await;
    whole.parts = summary.parts.clone();
    assert_eq!(*summary, whole);
}

pub(crate) async fn a_summary_has_the_counts_and_the_last_committed_part(store: &dyn StateStore) {
    let upload = sized(upload(&owner()), 9);
    create(store, &upload).await;
    assert_eq!(
        store.summary(&upload.id).await.unwrap(),
        Some(upload.clone())
    );
    record(store, &upload.id, [1, 2, 3, 7]).await;
    let claims = [claim(5)];
    let claimed = store.claim(&upload.id, &upload.owner, &claims, times());
    claimed.await.unwrap();
    let expected = Upload {
        parts: shown(&[1, 2, 3, 7], &[3]),
        claims: Claims::default(),
        ..get(store, &upload.id).await
    };
    assert_eq!(store.summary(&upload.id).await.unwrap(), Some(expected));
    let unknown = UploadId::generate(None);
    assert_eq!(store.summary(&unknown).await.unwrap(), None);
}

pub(crate) async fn committed_parts_are_listed_in_pages(store: &dyn StateStore) {
    let upload = sized(upload(&owner()), 3_000);
    create(store, &upload).await;
    let parts: Vec<_> = (1..=2_100).chain([2_102]).map(part).collect();
    let recorded = store.record_parts(&upload.id, writer(1), 0, &parts, times());
    recorded.await.unwrap();
    for (after, limit, first, count) in [
        (0, 3, 1, 3),
        (7, 1_000, 8, 1_000),
        (0, 2_000, 1, 2_000),
        (2_000, 500, 2_001, 100),
        (2_099, 1, 2_100, 1),
        (2_100, 9, 0, 0),
        (u32::MAX, u32::MAX, 0, 0),
    ] {
        let page = store.committed_parts(&upload.id, after, limit).await;
        let numbers: Vec<_> = page
            .unwrap()
            .unwrap()
            .iter()
            .map(|part| part.number)
            .collect();
        let expected: Vec<_> = (first..first + count).collect();
        assert_eq!(numbers, expected, "{limit} after {after}");
    }
    let unknown = UploadId::generate(None);
    assert_eq!(store.committed_parts(&unknown, 0, 9).await.unwrap(), None);
}

pub(crate) async fn a_count_is_of_the_owners_uploads(store: &dyn StateStore) {
    let (mine, other) = (owner(), owner());
    for (age, owner) in [(0, &mine), (1, &mine), (1, &mine), (0, &other)] {
        let mut upload = upload(owner);
        upload.created_at = Timestamp(upload.created_at.0 - age);
        create(store, &upload).await;
        create(store, &upload).await;
    }
    assert_eq!(store.count(&mine.clone().into()).await.unwrap(), 3);
    assert_eq!(store.count(&other.clone().into()).await.unwrap(), 1);
    assert_eq!(store.count(&owner().into()).await.unwrap(), 0);
}

pub(crate) async fn live_uploads_of_all_owners_are_counted(store: &dyn StateStore) {
    let before = store.count_live().await.unwrap();
    let mut uploads = Vec::new();
    for _ in 0..4 {
        let upload = upload(&owner());
        create(store, &upload).await;
        create(store, &upload).await;
        record(store, &upload.id, [1, 2]).await;
        uploads.push(upload);
    }
    let counted = async || store.count_live().await.unwrap() - before;
    assert_eq!(counted().await, 4);
    for (number, (phase, left)) in [
        (Phase::Committing, 4),
        (Phase::Aborted, 3),
        (Phase::Complete, 2),
    ]
    .into_iter()
    .enumerate()
    {
        let mut upload = get(store, &uploads[number].id).await;
        upload.phase = phase;
        store.update(&upload, upload.writer).await.unwrap();
        assert_eq!(counted().await, left, "{phase}");
    }
    let taken = store.take_over(&uploads[3].id, writer(2), Predecessor::Any, times());
    taken.await.unwrap();
    assert_eq!(counted().await, 2);
}

pub(crate) async fn an_identical_upload_is_found_while_it_is_live(store: &dyn StateStore) {
    let owner = owner();
    let mut known = findable(&owner, "a");
    let twin = findable(&owner, "a");
    let (other, bare) = (findable(&owner, "b"), upload(&owner));
    let found = async |upload| store.find_identical(upload).await.unwrap();
    assert_eq!(found(&twin).await, None);
    create(store, &known).await;
    record(store, &known.id, [1]).await;
    assert_eq!(found(&twin).await, Some(get(store, &known.id).await));
    assert_eq!(found(&other).await, None);
    assert_eq!(found(&bare).await, None);
    known = get(store, &known.id).await;
    known.phase = Phase::Complete;
    store.update(&known, known.writer).await.unwrap();
    assert_eq!(found(&twin).await, None);
}

pub(crate) async fn a_tenants_listing_has_the_uploads_of_all_its_owners(store: &dyn StateStore) {
    let (one, two) = (owner(), owner());
    let other = Owner {
        tenant: "another".into(),
        ..one.clone()
    };
    let mut expected = Vec::new();
    for (age, owner) in [(3, &one), (1, &two), (2, &one), (0, &other)] {
        let mut upload = upload(owner);
        upload.created_at = Timestamp(upload.created_at.0 - age * 1_000);
        create(store, &upload).await;
        if *owner != other {
            expected.push((age, upload.id));
        }
    }
    expected.sort();
    let tenant = Listing::Tenant(one.tenant.clone());
    for limit in [1, 2, 10] {
        let listed = list_all_of(store, &tenant, limit).await;
        let ids = listed.iter().map(|upload| &upload.id);
        assert!(ids.eq(expected.iter().map(|(_, id)| id)), "{limit}");
    }
    assert_eq!(store.count(&tenant).await.unwrap(), 3);
    let unknown = Listing::Tenant("unknown".into());
    assert_eq!(store.count(&unknown).await.unwrap(), 0);
    assert!(list_all_of(store, &unknown, 10).await.is_empty());
}

pub(crate) async fn an_owner_with_too_many_live_uploads_creates_no_other(store: &dyn StateStore) {
    let (owner, other) = (owner(), owner());
    let create = async |upload: &Upload| store.create(upload, 2).await.unwrap();
    let (first, second) = (findable(&owner, "a"), upload(&owner));
    assert_eq!(create(&first).await, Creation::Created);
    assert_eq!(create(&second).await, Creation::Created);
    let refused = findable(&owner, "b");
    assert_eq!(create(&refused).await, Creation::Full);
    assert_eq!(store.get(&refused.id).await.unwrap(), None);
    assert_eq!(store.find_identical(&refused).await.unwrap(), None);
    assert_eq!(store.count(&owner.clone().into()).await.unwrap(), 2);
    // What exists is found, a lost reply is repeated, and others have room.
    assert_eq!(create(&second).await, Creation::Created);
    let twin = findable(&owner, "a");
    assert!(matches!(create(&twin).await, Creation::Exists(found) if found.id == first.id));
    assert_eq!(create(&upload(&other)).await, Creation::Created);
    let unowned = Owner::default();
    for _ in 0..3 {
        assert_eq!(create(&upload(&unowned)).await, Creation::Created);
    }
    let mut ended = get(store, &second.id).await;
    ended.phase = Phase::Aborted;
    store.update(&ended, ended.writer).await.unwrap();
    assert_eq!(create(&refused).await, Creation::Created);
    assert_eq!(create(&upload(&owner)).await, Creation::Full);
}

pub(crate) async fn concurrent_creates_do_not_exceed_the_limit_of_an_owner(store: &dyn StateStore) {
    let owner = owner();
    let uploads: Vec<_> = (0..20).map(|_| upload(&owner)).collect();
    let created = uploads.iter().map(|upload| store.create(upload, 5));
    let created = futures::future::try_join_all(created).await.unwrap();
    let created = created
        .iter()
        .filter(|created| **created == Creation::Created);
    assert_eq!(created.count(), 5);
    assert_eq!(list_all(store, &owner, 100).await.len(), 5);
}

pub(crate) async fn an_upload_given_to_another_owner_leaves_the_first_one(store: &dyn StateStore) {
    let (unowned, owner) = (Owner::default(), owner());
    let before = store.count(&unowned.clone().into()).await.unwrap();
    let upload = findable(&unowned, &UploadId::generate(None).to_string());
    create(store, &upload).await;
    record(store, &upload.id, [1]).await;
    let known = get(store, &upload.id).await;
    let given = store.give(&known, &owner).await.unwrap();
    assert_eq!(given, Update::Updated(known.version + 1));
    // A repeated call after a lost reply.
    let given = store.give(&known, &owner).await.unwrap();
    assert_eq!(given, Update::Updated(known.version + 1));
    let expected = Upload {
        owner: owner.clone(),
        fingerprint: None,
        version: known.version + 1,
        ..known.clone()
    };
    assert_eq!(get(store, &upload.id).await, expected);
    assert_eq!(store.find_identical(&upload).await.unwrap(), None);
    assert_eq!(list_all(store, &owner, 10).await.len(), 1);
    let tenant = Listing::Tenant(owner.tenant.clone());
    assert_eq!(store.count(&tenant).await.unwrap(), 1);
    assert_eq!(store.count(&unowned.into()).await.unwrap(), before);
    assert_eq!(
        store.create(&self::upload(&owner), 1).await.unwrap(),
        Creation::Full
    );
    // An older version does not overwrite a newer one.
    let other = store.give(&known, &self::owner()).await.unwrap();
    assert_eq!(other, Update::Conflict(Box::new(expected)));
    let missing = store.give(&self::upload(&owner), &owner).await.unwrap();
    assert_eq!(missing, Update::Missing);
}

/// The uploads of all pages of an owner's listing.
async fn list_all(store: &dyn StateStore, owner: &Owner, limit: usize) -> Vec<Upload> {
    list_all_of(store, &owner.clone().into(), limit).await
}

/// The uploads of all pages of a listing.
async fn list_all_of(store: &dyn StateStore, listing: &Listing, limit: usize) -> Vec<Upload> {
    let mut uploads = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let query = ListQuery {
            listing: listing.clone(),
            after,
            skip: 0,
            limit,
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
