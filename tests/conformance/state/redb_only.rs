//! Contracts of the redb adapter: records survive the process, one process has the file open, expired records are
//! removed.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use redb::{Database, TableDefinition};
use tempfile::TempDir;
use upload_gateway::state::redb::{OpenError, Redb};
use upload_gateway_core::{
    state::{
        Created, Index, ListingStore, PartStore, RECORD_GRACE_SECONDS, RecordStore, ScheduleStore,
        Selection,
    },
    upload::{Owner, Phase, Timestamp, Upload, UploadId},
};

use super::{fresh_redb, samples::*};

#[tokio::test]
async fn everything_survives_a_reopening() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.redb");
    let upload = sized(findable(&owner(), "a"), 5);
    let store = Redb::open(&path).await.unwrap();
    create(&store, &upload).await;
    record(&store, &upload.id, [1, 2, 5]).await;
    let claims = [claim(3), bare_claim(4)];
    store
        .claim(&upload.id, &upload.owner, &claims, times())
        .await
        .unwrap();
    let before = get(&store, &upload.id).await;
    drop(store);
    let store = Redb::open(&path).await.unwrap();
    assert_eq!(get(&store, &upload.id).await, before);
}

#[tokio::test]
async fn a_file_that_another_process_has_open_is_refused_and_named() {
    let Some((_store, directory)) = fresh_redb().await else {
        return;
    };
    let path = directory.path().join("new/state.redb");
    let refused = Redb::open(&path).await.unwrap_err();
    assert!(matches!(&refused, OpenError::Locked { path: known } if *known == path));
    assert_eq!(
        refused.to_string(),
        format!("another gateway has {} open", path.display())
    );
}

#[tokio::test]
async fn a_file_that_is_not_a_state_file_is_refused_and_kept() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.redb");
    std::fs::write(&path, "a letter to my aunt").unwrap();
    assert!(matches!(
        Redb::open(&path).await.unwrap_err(),
        OpenError::Unusable { .. }
    ));
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "a letter to my aunt"
    );
    let below = path.join("state.redb");
    assert!(matches!(
        Redb::open(&below).await.unwrap_err(),
        OpenError::Directory { .. }
    ));
}

#[tokio::test]
async fn records_are_removed_seven_days_after_they_expired() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.redb");
    let store = Redb::open(&path).await.unwrap();
    let grace = Duration::from_secs(RECORD_GRACE_SECONDS);
    let ago = |age: Duration| Timestamp(now().0 - u64::try_from(age.as_millis()).unwrap());
    let expired = |age| Upload {
        expires_at: ago(age),
        updated_at: ago(age),
        claims: [claim(1)].into_iter().collect(),
        ..findable(&owner(), "a")
    };
    let over = expired(grace + Duration::from_secs(60));
    let still_there = expired(grace - Duration::from_secs(60));
    let prolonged = expired(grace + Duration::from_secs(120));
    for upload in [&over, &still_there, &prolonged] {
        create(&store, upload).await;
        record_at(&store, upload).await;
    }
    record(&store, &prolonged.id, [2]).await;
    drop(store);
    let store = Redb::open(&path).await.unwrap();
    assert_eq!(store.get(&over.id).await.unwrap(), None);
    assert_eq!(get(&store, &still_there.id).await.parts.len(), 1);
    assert_eq!(get(&store, &prolonged.id).await.parts.len(), 2);
    create(
        &store,
        &Upload {
            id: over.id.clone(),
            ..findable(&over.owner, "a")
        },
    )
    .await;
    let created = get(&store, &over.id).await;
    assert!(created.parts.is_empty() && created.claims.is_empty());
}

#[tokio::test]
async fn creating_removes_what_expired_meanwhile() {
    let Some((store, _directory)) = fresh_redb().await else {
        return;
    };
    let old: Vec<_> = (0..6).map(|_| upload(&owner())).collect();
    for upload in &old {
        create(&store, upload).await;
    }
    let later = old[5]
        .expires_at
        .plus(Duration::from_secs(RECORD_GRACE_SECONDS));
    for _ in 0..2 {
        let new = Upload {
            updated_at: later,
            expires_at: later,
            ..upload(&owner())
        };
        create(&store, &new).await;
    }
    for upload in &old {
        assert_eq!(store.get(&upload.id).await.unwrap(), None);
    }
}

#[tokio::test]
async fn the_sweeper_removes_what_expired_meanwhile() {
    let Some((store, _directory)) = fresh_redb().await else {
        return;
    };
    let long_ago = Timestamp(now().0 - 2 * RECORD_GRACE_SECONDS * 1_000);
    let mut old = Upload {
        updated_at: long_ago,
        expires_at: long_ago,
        ..upload(&owner())
    };
    create(&store, &old).await;
    old.phase = Phase::Aborted;
    store.update(&old, old.writer).await.unwrap();
    assert_eq!(store.count(&old.owner.clone().into()).await.unwrap(), 1);
    let due = store.due(now(), None, 10).await.unwrap();
    assert!(due.uploads.is_empty());
    assert_eq!(store.get(&old.id).await.unwrap(), None);
    assert_eq!(store.count(&old.owner.clone().into()).await.unwrap(), 0);
}

/// Records part 1 without prolonging the upload.
async fn record_at(store: &Redb, upload: &Upload) {
    let times = upload_gateway_core::state::Times {
        now: upload.updated_at,
        expires_at: upload.expires_at,
    };
    store
        .record_parts(&upload.id, writer(1), 0, &[part(1)], times)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_file_of_an_earlier_release_gets_indexes_when_it_is_opened() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.redb");
    let store = Redb::open(&path).await.unwrap();
    let owner = owner();
    for name in ["a", "b"] {
        create(&store, &findable(&owner, name)).await;
    }
    drop(store);
    {
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let entries: TableDefinition<'_, (&str, &str, &[u8]), &[u8]> =
            TableDefinition::new("entries");
        let counts: TableDefinition<'_, (&str, &str), u64> = TableDefinition::new("entry_counts");
        assert!(transaction.delete_table(entries).unwrap());
        assert!(transaction.delete_table(counts).unwrap());
        let facts: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");
        let mut facts = transaction.open_table(facts).unwrap();
        assert!(facts.remove("indexed:2").unwrap().is_some());
        drop(facts);
        transaction.commit().unwrap();
    }
    let store = Redb::open(&path).await.unwrap();
    let selection = Selection {
        listing: owner.into(),
        index: Index::Tag("b".into()),
        created: Created::default(),
    };
    assert_eq!(store.count_entries(&selection).await.unwrap(), 2);
    assert_eq!(store.count(&selection.listing).await.unwrap(), 2);
    let entries = store.entries(&selection, None, 9).await.unwrap();
    assert_eq!(entries.len(), 2);
}

#[tokio::test]
async fn a_count_of_many_entries_lets_other_calls_have_their_turn() {
    let Some((store, _directory)) = fresh_redb().await else {
        return;
    };
    let owner = Owner::default();
    let untagged = |_| {
        let mut upload = upload(&owner);
        upload.file.tags = Vec::new();
        upload
    };
    let uploads: Vec<_> = (0..10_050).map(untagged).collect();
    let created = uploads.iter().map(|one| store.create(one, u64::MAX));
    let created = stream::iter(created).buffer_unordered(512);
    let created: Vec<_> = created.try_collect().await.unwrap();
    let by_name = Selection {
        listing: owner.clone().into(),
        index: Index::Name(String::new()),
        created: Created::default(),
    };
    let since_ever = Selection {
        index: Index::All,
        created: Created {
            from: Some(Timestamp(0)),
            before: None,
        },
        ..by_name.clone()
    };
    let missing = [UploadId::generate(None)];
    for selection in [by_name, since_ever] {
        let mut counting = store.count_entries(&selection);
        // The count has the first turn, and the next call the one after its first step.
        assert!(futures::poll!(&mut counting).is_pending());
        tokio::select! {
            biased;
            found = store.summaries(&missing) => assert_eq!(found.unwrap(), []),
            _ = &mut counting => panic!("{selection:?} was counted in one turn"),
        }
        assert_eq!(counting.await.unwrap(), created.len() as u64);
    }
}
