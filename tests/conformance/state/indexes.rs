//! The indexes of listings, in every state store.

use std::{sync::LazyLock, time::Duration};

use upload_gateway_core::{
    state::{Created, Creation, Cursor, Index, Listing, Selection, StateStore, Update},
    upload::{FileMetadata, Owner, Phase, Timestamp, Upload, UploadId},
};

use super::samples::*;

/// One moment for all uploads: while they are made, the clock moves on.
static NEWEST: LazyLock<Timestamp> = LazyLock::new(now);

/// An upload of `owner`, which was created `age` milliseconds before the newest ones.
fn made(owner: &Owner, file_name: &str, tags: &[&str], storage_id: &str, age: u64) -> Upload {
    let upload = upload(owner);
    Upload {
        file: FileMetadata {
            file_name: file_name.into(),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            ..upload.file
        },
        storage_id: storage_id.into(),
        created_at: NEWEST.minus(Duration::from_millis(age)),
        ..upload
    }
}

fn all(listing: impl Into<Listing>, index: Index) -> Selection {
    Selection {
        listing: listing.into(),
        index,
        created: Created::default(),
    }
}

/// The ids of all entries of a selection, which has one entry less on each page than `limit`, and their count.
async fn ids(store: &dyn StateStore, selection: &Selection, limit: usize) -> Vec<UploadId> {
    let mut ids = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let page = store.entries(selection, after.as_ref(), limit);
        let page = page.await.unwrap();
        assert!(page.len() <= limit, "{selection:?}");
        ids.extend(page.iter().map(|entry| UploadId::from_bytes(entry.id)));
        let is_by_name = matches!(selection.index, Index::Name(_));
        match page.last() {
            Some(last) => after = Some(last.cursor(is_by_name)),
            None => break,
        }
    }
    let count = store.count_entries(selection).await.unwrap();
    assert_eq!(count, ids.len() as u64, "{selection:?}");
    ids
}

pub(crate) async fn refused_writes_leave_the_entries_of_what_is_stored(store: &dyn StateStore) {
    let owner = owner();
    let listing = || Listing::from(owner.clone());
    let open = all(owner.clone(), Index::Phase(Phase::Open));
    let stored = findable(&owner, "a");
    create(store, &stored).await;
    // Another upload has its fingerprint; the owner has too many.
    let same = findable(&owner, "a");
    assert!(matches!(
        store.create(&same, 9).await.unwrap(),
        Creation::Exists(_)
    ));
    let full = store.create(&upload(&owner), 1).await.unwrap();
    assert_eq!(full, Creation::Full);
    // It has another version, or there is no record.
    let mut ended = Upload {
        phase: Phase::Complete,
        version: stored.version + 1,
        ..stored.clone()
    };
    let conflict = store.update(&ended, ended.writer).await.unwrap();
    assert!(matches!(conflict, Update::Conflict(_)), "{conflict:?}");
    ended.id = UploadId::generate(None);
    let missing = store.update(&ended, ended.writer).await.unwrap();
    assert_eq!(missing, Update::Missing);
    assert_eq!(store.count(&listing()).await.unwrap(), 1);
    for selection in [open, all(owner.clone(), Index::All)] {
        assert_eq!(
            ids(store, &selection, 9).await,
            std::slice::from_ref(&stored.id)
        );
    }
    let complete = all(owner.clone(), Index::Phase(Phase::Complete));
    assert_eq!(ids(store, &complete, 9).await, []);
    // The refused upload is not counted among the live ones of the owner.
    let second = store.create(&upload(&owner), 2).await.unwrap();
    assert_eq!(second, Creation::Created);
}

pub(crate) async fn each_index_has_its_uploads_in_its_order(store: &dyn StateStore) {
    // Braces and colons would change slots and keys.
    let (mine, other) = (
        Owner {
            subject: format!("{{a}}:{}", owner().subject),
            tenant: owner().subject,
        },
        owner(),
    );
    let uploads = [
        made(&mine, "Bericht \u{dc}ber.pdf", &["x"], "media", 0),
        made(&mine, "bericht u\u{308}ber", &["x", "y"], "media", 1),
        made(&mine, "Anlage.png", &["y"], "archive", 2),
        made(&mine, "berichte", &["u\u{308}"], "archive", 3),
        made(&mine, "100%.txt", &[], "media", 4),
    ];
    for upload in uploads.iter().rev() {
        create(store, upload).await;
    }
    create(store, &made(&other, "bericht", &["x"], "media", 0)).await;
    let tag = |text: &str| Index::Tag(text.into());
    let name = |text: &str| Index::Name(text.into());
    let storage = |text: &str| Index::Storage(text.into());
    let placed = |text: &str, phase| Index::StoragePhase(text.into(), phase);
    for (index, expected) in [
        (Index::All, &[0, 1, 2, 3, 4][..]),
        (tag("x"), &[0, 1]),
        (tag("y"), &[1, 2]),
        (tag("\u{fc}"), &[3]),
        (tag("X"), &[]),
        (tag(""), &[]),
        (storage("media"), &[0, 1, 4]),
        (storage("archive"), &[2, 3]),
        (storage("arch"), &[]),
        (Index::Phase(Phase::Open), &[0, 1, 2, 3, 4]),
        (Index::Phase(Phase::Aborted), &[]),
        (placed("media", Phase::Open), &[0, 1, 4]),
        (placed("archive", Phase::Open), &[2, 3]),
        (placed("media", Phase::Complete), &[]),
        (name("bericht"), &[1, 0, 3]),
        (name("bericht \u{fc}"), &[1, 0]),
        (name("bericht \u{fc}ber.pdf"), &[0]),
        (name("100%"), &[4]),
        (name("b%"), &[]),
        (name(""), &[4, 2, 1, 0, 3]),
    ] {
        let expected: Vec<_> = expected.iter().map(|at| uploads[*at].id.clone()).collect();
        let tenant = Listing::Tenant(mine.tenant.clone());
        for selection in [all(mine.clone(), index.clone()), all(tenant, index)] {
            for limit in [1, 2, 10] {
                let found = ids(store, &selection, limit).await;
                assert_eq!(found, expected, "{selection:?} in pages of {limit}");
            }
        }
    }
}

pub(crate) async fn equal_times_and_names_lose_and_repeat_nothing(store: &dyn StateStore) {
    let owner = owner();
    let created_at = now();
    let mut expected = Vec::new();
    for number in 0..17 {
        let created_at = Timestamp(created_at.0 - number / 8);
        let upload = Upload {
            created_at,
            ..made(&owner, "a", &["t"], "media", 0)
        };
        create(store, &upload).await;
        expected.push((u64::MAX - created_at.0, upload.id));
    }
    expected.sort();
    let expected: Vec<_> = expected.into_iter().map(|(_, id)| id).collect();
    for index in [Index::All, Index::Tag("t".into()), Index::Name("a".into())] {
        for limit in [1, 4, 100] {
            let found = ids(store, &all(owner.clone(), index.clone()), limit).await;
            assert_eq!(found, expected, "{index:?} in pages of {limit}");
        }
    }
}

pub(crate) async fn a_selection_has_a_range_of_times(store: &dyn StateStore) {
    let owner = owner();
    let uploads: Vec<_> = (0..4)
        .map(|age| made(&owner, "a", &["t"], "m", age))
        .collect();
    let mut uploads = uploads;
    let newest = uploads[0].created_at;
    for (age, upload) in (0..).zip(&mut uploads) {
        upload.created_at = Timestamp(newest.0 - age);
        create(store, upload).await;
    }
    let at = |age: u64| Some(Timestamp(newest.0 - age));
    for (from, before, expected) in [
        (None, None, &uploads[..]),
        (at(2), None, &uploads[..3]),
        (None, at(1), &uploads[2..]),
        (at(2), at(0), &uploads[1..3]),
        (at(1), at(1), &[]),
        (at(0), at(3), &[]),
        (Some(Timestamp(0)), Some(Timestamp::never()), &uploads),
        (Some(Timestamp::never()), None, &[]),
        (None, Some(Timestamp(0)), &[]),
    ] {
        for index in [Index::All, Index::Tag("t".into())] {
            let selection = Selection {
                created: Created { from, before },
                ..all(owner.clone(), index)
            };
            let found = ids(store, &selection, 2).await;
            let expected = expected.iter().map(|upload| &upload.id);
            assert!(found.iter().eq(expected), "{selection:?}");
        }
    }
}

pub(crate) async fn uploads_of_several_phases_are_in_one_order(store: &dyn StateStore) {
    let (owner, newest) = (owner(), now());
    let mut uploads = Vec::new();
    for (age, phase) in (0..).zip([Index::PHASES, Index::PHASES].concat()) {
        let mut upload = Upload {
            created_at: Timestamp(newest.0 - age),
            ..made(&owner, "a", &[], "media", 0)
        };
        create(store, &upload).await;
        upload.phase = phase;
        store.update(&upload, upload.writer).await.unwrap();
        uploads.push(upload);
    }
    let (newest, oldest) = (&uploads[1], &uploads[6]);
    for index in [Index::All, Index::Storage("media".into())] {
        let selection = all(owner.clone(), index);
        let part = Selection {
            created: Created {
                from: Some(oldest.created_at),
                before: Some(Timestamp(newest.created_at.0 + 1)),
            },
            ..selection.clone()
        };
        for (selection, expected) in [(selection, &uploads[..]), (part, &uploads[1..=6])] {
            for limit in [1, 3, 100] {
                let found = ids(store, &selection, limit).await;
                let expected = expected.iter().map(|upload| &upload.id);
                assert!(
                    found.iter().eq(expected),
                    "{selection:?}, {limit}: {found:?}"
                );
            }
        }
    }
}

pub(crate) async fn a_position_of_another_query_finds_nothing_or_something(store: &dyn StateStore) {
    let owner = owner();
    create(store, &made(&owner, "m", &[], "media", 0)).await;
    for (created_at, name) in [(0, None), (u64::MAX, None), (7, Some("zzz")), (7, Some(""))] {
        let after = Cursor {
            created_at: Timestamp(created_at),
            id: UploadId::generate(None),
            name: name.map(str::to_owned),
        };
        for index in [Index::All, Index::Name("m".into()), Index::Name("z".into())] {
            let selection = all(owner.clone(), index);
            store.entries(&selection, Some(&after), 5).await.unwrap();
        }
    }
}

pub(crate) async fn entries_follow_their_record(store: &dyn StateStore) {
    let (first, second) = (owner(), owner());
    let mut upload = made(&first, "a", &["t"], "media", 0);
    create(store, &upload).await;
    let phases = [
        Phase::Committing,
        Phase::Open,
        Phase::Committing,
        Phase::Complete,
    ];
    for phase in phases {
        upload = get(store, &upload.id).await;
        upload.phase = phase;
        store.update(&upload, upload.writer).await.unwrap();
        for other in Index::PHASES {
            for index in [
                Index::Phase(other),
                Index::StoragePhase("media".into(), other),
            ] {
                let selection = all(first.clone(), index);
                let has = !ids(store, &selection, 9).await.is_empty();
                assert_eq!(has, other == phase, "{selection:?} in phase {phase}");
            }
        }
        for index in [
            Index::All,
            Index::Tag("t".into()),
            Index::Storage("media".into()),
            Index::Name("a".into()),
        ] {
            let selection = all(first.clone(), index);
            let entries = store.entries(&selection, None, 9).await.unwrap();
            let phases: Vec<_> = entries.iter().map(|entry| entry.phase).collect();
            assert_eq!(phases, [phase], "{selection:?}");
        }
    }
    upload = get(store, &upload.id).await;
    store.give(&upload, &second).await.unwrap();
    assert_eq!(entries_of(store, &first).await, 0);
    assert_eq!(entries_of(store, &second).await, 6);
    upload = get(store, &upload.id).await;
    upload.phase = Phase::Deleting;
    store.update(&upload, upload.writer).await.unwrap();
    assert_eq!(entries_of(store, &second).await, 0);
}

/// How many entries all indexes of the owner have of an upload `a` with the tag `t`.
async fn entries_of(store: &dyn StateStore, owner: &Owner) -> usize {
    let mut count = 0;
    for index in [
        Index::All,
        Index::Tag("t".into()),
        Index::Storage("media".into()),
        Index::Name(String::new()),
        Index::Phase(Phase::Complete),
        Index::StoragePhase("media".into(), Phase::Complete),
    ] {
        count += ids(store, &all(owner.clone(), index), 9).await.len();
    }
    count
}

pub(crate) async fn an_entry_has_what_filters_need(store: &dyn StateStore) {
    let owner = owner();
    let upload = made(&owner, "Anlage \u{dc}.PNG", &["y", "u\u{308}"], "media", 0);
    create(store, &upload).await;
    for (index, tags) in [
        (Index::All, &["y", "\u{fc}"][..]),
        (Index::Tag("y".into()), &["y", "\u{fc}"]),
        (Index::Storage("media".into()), &[]),
        (Index::Phase(Phase::Open), &["y", "\u{fc}"]),
        (Index::StoragePhase("media".into(), Phase::Open), &[]),
        (Index::Name("anlage".into()), &[]),
    ] {
        let entries = store.entries(&all(owner.clone(), index), None, 9).await;
        let entries = entries.unwrap();
        let entry = entries.first().unwrap();
        assert_eq!(entry.name(), "anlage \u{fc}.png");
        assert_eq!(entry.storage_id(), "media");
        assert_eq!(entry.file_mime(), "video/mp4");
        assert_eq!(entry.created_at, upload.created_at);
        assert_eq!(UploadId::from_bytes(entry.id), upload.id);
        assert!(entry.tags().eq(tags.iter().copied()));
    }
}

pub(crate) async fn summaries_come_in_the_order_of_the_ids(store: &dyn StateStore) {
    let owner = owner();
    let uploads: Vec<_> = (0..5).map(|_| upload(&owner)).collect();
    for upload in &uploads {
        create(store, upload).await;
    }
    let missing = UploadId::generate(None);
    let ids = [&uploads[3].id, &missing, &uploads[0].id].map(Clone::clone);
    let found = store.summaries(&ids).await.unwrap();
    assert_eq!(found, [uploads[3].clone(), uploads[0].clone()]);
    assert_eq!(store.summaries(&[]).await.unwrap(), []);
}
