//! How the Redis adapter repairs the indexes of listings.

use std::time::Duration;

use upload_gateway::state::redis::Redis;
use upload_gateway_core::{
    state::{Created, Index, Listing, ListingStore, RecordStore, ScheduleStore, Selection},
    upload::{Owner, Phase, Upload, UploadId},
};

use super::{fresh_redis, redis_only::ask, samples::*};

/// How many entries all indexes of a listing have, of open uploads in one storage with the tag `a`.
async fn counts(store: &Redis, listing: impl Into<Listing>) -> Vec<u64> {
    let listing = listing.into();
    let mut counts = Vec::new();
    for index in [
        Index::All,
        Index::Tag("a".into()),
        Index::Storage("media".into()),
        Index::Name(String::new()),
        Index::Phase(Phase::Open),
        Index::StoragePhase("media".into(), Phase::Complete),
    ] {
        let selection = Selection {
            listing: listing.clone(),
            index,
            created: Created::default(),
        };
        counts.push(store.count_entries(&selection).await.unwrap());
    }
    counts
}

async fn remove(url: &str, pattern: &str) {
    let keys: Vec<String> = ask(url, redis::cmd("KEYS").arg(pattern)).await;
    let removed: usize = ask(url, redis::cmd("DEL").arg(&keys)).await;
    assert_eq!(removed, keys.len());
}

/// Removes all entries but those of the upload `kept` from all indexes.
async fn forget_others(url: &str, kept: &UploadId) {
    let kept = kept.to_bytes();
    let keys: Vec<String> = ask(url, redis::cmd("KEYS").arg("*:index:*")).await;
    for key in keys {
        let mut range = redis::cmd("ZRANGE");
        let members: Vec<Vec<u8>> = ask(url, range.arg((&key, 0, -1))).await;
        for member in members {
            if !member.windows(kept.len()).any(|part| part == kept) {
                let mut remove = redis::cmd("ZREM");
                let _: u64 = ask(url, remove.arg((&key, member))).await;
            }
        }
    }
}

#[tokio::test]
async fn uploads_of_an_earlier_release_are_added_to_the_indexes_by_a_sweep() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let owner = owner();
    for phase in [Phase::Open, Phase::Complete, Phase::Open] {
        let mut upload = upload(&owner);
        create(&store, &upload).await;
        upload.phase = phase;
        store.update(&upload, upload.writer).await.unwrap();
    }
    remove(&backend.url, "*:index:*").await;
    assert_eq!(counts(&store, owner.clone()).await, [0; 6]);
    store.due(now(), None, 10).await.unwrap();
    let tenant = Listing::Tenant(owner.tenant.clone());
    assert_eq!(counts(&store, owner.clone()).await, INDEXED);
    assert_eq!(counts(&store, tenant).await, INDEXED);
}

/// The counts of two open uploads and a COMPLETE one.
const INDEXED: [u64; 6] = [3, 3, 3, 3, 2, 1];

#[tokio::test]
async fn replicas_of_an_earlier_release_may_run_for_hours_beside_later_ones() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let owner = owner();
    for _ in 0..3 {
        create(&store, &upload(&owner)).await;
    }
    const ALL: [u64; 6] = [3, 3, 3, 3, 3, 0];
    let begun = now();
    let sweep = async |minutes: u64| {
        let at = begun.plus(Duration::from_secs(minutes * 60));
        store.due(at, None, 10).await.unwrap();
        counts(&store, owner.clone()).await
    };
    let forget = || remove(&backend.url, "*:index:*");
    assert_eq!(sweep(0).await, ALL);
    // What an earlier release writes has no entries.
    forget().await;
    assert_eq!(sweep(59).await, [0; 6], "once an hour");
    assert_eq!(sweep(60).await, ALL);
    // That pass has found something, so it is not the last one.
    forget().await;
    assert_eq!(sweep(119).await, [0; 6]);
    assert_eq!(sweep(120).await, ALL);
    assert_eq!(sweep(180).await, ALL);
    // The last pass has found nothing.
    forget().await;
    assert_eq!(sweep(240).await, [0; 6]);
    assert_eq!(sweep(2_400).await, [0; 6]);
}

#[tokio::test]
async fn entries_that_are_just_being_written_do_not_keep_the_passes_going() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let owner = owner();
    let begun = now();
    store.due(begun, None, 10).await.unwrap();
    let at = begun.plus(Duration::from_secs(3_600));
    let recent = Upload {
        updated_at: at,
        ..upload(&owner)
    };
    create(&store, &recent).await;
    remove(&backend.url, "*:index:*").await;
    store.due(at, None, 10).await.unwrap();
    assert_eq!(counts(&store, owner.clone()).await[0], 1);
    remove(&backend.url, "*:index:*").await;
    let at = begun.plus(Duration::from_secs(7_200));
    store.due(at, None, 10).await.unwrap();
    assert_eq!(counts(&store, owner).await[0], 0);
}

#[tokio::test]
async fn a_sweep_corrects_the_entries_of_what_it_checks() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let owner = owner();
    let mut complete = upload(&owner);
    create(&store, &complete).await;
    complete.phase = Phase::Complete;
    store.update(&complete, complete.writer).await.unwrap();
    let vanished = upload(&owner);
    create(&store, &vanished).await;
    store.due(now(), None, 10).await.unwrap();
    remove(&backend.url, &format!("*upload:*{}", vanished.id)).await;
    // Of a replica that ended before it wrote them.
    forget_others(&backend.url, &vanished.id).await;
    assert_eq!(counts(&store, owner.clone()).await, [1, 1, 1, 1, 1, 0]);
    let later = vanished.expires_at.plus(Duration::from_secs(8 * 86_400));
    store.due(later, None, 10).await.unwrap();
    assert_eq!(counts(&store, owner).await, [1, 1, 1, 1, 0, 1]);
}

#[tokio::test]
async fn all_indexes_of_a_listing_are_in_one_slot() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let owner = Owner {
        tenant: "{t}".into(),
        subject: "100%{}".into(),
    };
    create(&store, &upload(&owner)).await;
    let keys: Vec<String> = ask(&backend.url, redis::cmd("KEYS").arg("*:index:*")).await;
    for key in &keys {
        let listings = ["{owner:3:%7Bt%7D:100%25%7B%7D}", "{tenant:%7Bt%7D}"];
        assert!(listings.iter().any(|name| key.contains(name)), "{key}");
    }
    assert_eq!(keys.len(), 2 * 5);
}
