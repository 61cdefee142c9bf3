//! The state store loses everything while no gateway runs, with a thousand files in each store.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tempfile::TempDir;
use upload_gateway::state::redb::Redb;
use upload_gateway_core::{
    blobs::NewObject,
    error::Kind,
    gateway::{Action, Caller, Gateway, Restore, RestoreReport, Search, Settings, Start},
    state::StateStore,
    upload::{FileMetadata, Md5, Owner, Permissions, Upload, UploadId},
};

use super::{
    common::{Log, bytes},
    object_records::{keyed, seen, upload_as},
    world::{HOUR, World, file, for_each_store, sweep},
};

for_each_store!(
    a_thousand_files_survive,
    a_file_is_kept_although_the_state_store_lost_that_it_is,
);

/// How many files there are, and how many of them the first key has sealed.
const FILES: usize = 1000;
const BY_FIRST_KEY: usize = 500;

/// How many callers send at a time.
const AT_A_TIME: usize = 16;

/// How many objects others have put.
const FOREIGN: usize = 10;

/// A file, and who may do everything with it.
struct Known {
    caller: Caller,
    upload: Upload,
    data: Vec<u8>,
}

/// A state store that has lost everything.
struct Flushed {
    state: Arc<dyn StateStore>,
    _directory: TempDir,
}

// === impl Flushed ===

impl Flushed {
    async fn new(world: &World) -> Self {
        let directory = TempDir::new().unwrap();
        let state: Arc<dyn StateStore> = match &world.config.redis_url {
            Some(url) => {
                let redis = ::redis::Client::open(url.to_string()).unwrap();
                let mut redis = redis.get_connection().unwrap();
                ::redis::cmd("FLUSHDB").query::<()>(&mut redis).unwrap();
                Arc::clone(&world.backends.state)
            }
            None => {
                let state = Redb::open(directory.path().join("state.redb")).await;
                Arc::new(state.unwrap())
            }
        };
        Self {
            state,
            _directory: directory,
        }
    }

    async fn gateway(&self, world: &World, keys: &[u8]) -> Gateway {
        gateway(world, Arc::clone(&self.state), keys).await
    }
}

async fn gateway(world: &World, state: Arc<dyn StateStore>, keys: &[u8]) -> Gateway {
    let settings = Settings {
        rebuilds_per_second: 1_000_000,
        ..keyed(keys)
    };
    let (storages, clock) = (world.backends.storages.clone(), world.clock.clone());
    let gateway = Gateway::new(state, storages, settings, Arc::new(clock)).await;
    gateway.unwrap()
}

/// One of four owners, of two tenants.
fn caller(number: usize) -> Caller {
    Caller {
        owner: Owner {
            tenant: format!("tenant-{}", number % 2),
            subject: format!("subject-{}", number % 4),
        },
        ..Caller::default()
    }
}

/// Sends a file. Some have a side object from the beginning, some since their expiry was changed.
async fn send(gateway: &Gateway, number: usize) -> Known {
    let size = number;
    let described = FileMetadata {
        file_name: format!("plan {number}.pdf"),
        public: number.is_multiple_of(2),
        permissions: [Permissions::None, Permissions::Support, Permissions::Admin][number % 3],
        tags: match number % 5 {
            0 => vec!["plans".into()],
            _ => Vec::new(),
        },
        expire_after: number.is_multiple_of(7).then_some(7200),
        ..file(size)
    };
    let caller = caller(number);
    let mut upload = upload_as(&caller, gateway, described).await;
    if number.is_multiple_of(10) {
        let expire_after = number.is_multiple_of(20).then_some(3600);
        let kept = gateway.keep_upload(&caller, &upload.id, expire_after);
        upload = kept.await.unwrap();
    }
    Known {
        caller,
        upload,
        data: bytes(size),
    }
}

async fn send_all(gateway: &Gateway, numbers: std::ops::Range<usize>) -> Vec<Known> {
    let sent = stream::iter(numbers).map(|number| Box::pin(send(gateway, number)));
    sent.buffered(AT_A_TIME).collect().await
}

/// Puts objects beside those of the files: with the entry of a file, and without one.
async fn put_foreign(world: &World, known: &Upload) {
    let store = world.store();
    let found = store.head(&known.object_key).await.unwrap().unwrap();
    for number in 0..FOREIGN {
        let id = UploadId::generate(None);
        let object = NewObject {
            key: known.object_key.replace(known.id.as_str(), id.as_str()),
            upload_id: id,
            record: found.entry().filter(|_| number % 2 == 0).map(str::to_owned),
            md5: Some(Md5::of(b"foreign")),
            ..world.object_of(known)
        };
        store
            .replace(&object, (&b"foreign"[..]).into())
            .await
            .unwrap();
    }
}

/// Checks that the owner finds and downloads each file. Some calls run at the same time.
async fn are_found(gateway: &Gateway, files: impl IntoIterator<Item = &Known>) {
    let checked = stream::iter(files).map(|known| Box::pin(is_found(gateway, known)));
    checked
        .buffer_unordered(AT_A_TIME)
        .for_each(async |()| {})
        .await;
}

async fn is_found(gateway: &Gateway, known: &Known) {
    let (caller, id) = (&known.caller, &known.upload.id);
    let found = gateway.records.get_upload(caller, Action::Read, id).await;
    assert_eq!(seen(found.unwrap()), seen(known.upload.clone()));
    let downloads = &gateway.downloads;
    let file = downloads.find(caller, id).await.unwrap();
    let size = file.object.size;
    let read = downloads.read(&file, 0..size).await.unwrap();
    let read: Vec<Bytes> = read.try_collect().await.unwrap();
    assert!(read.concat() == known.data, "{id}");
}

/// Checks that listings have all files of each owner again, with their names.
async fn are_listed(gateway: &Gateway, files: &[Known]) {
    for number in 0..4 {
        let caller = caller(number);
        let (mut names, mut start) = (Vec::new(), Start::default());
        loop {
            let all = Search::default();
            let page = gateway.records.list_uploads(&caller, &all, start, 100);
            let page = page.await.unwrap();
            names.extend(page.uploads.into_iter().map(|upload| upload.file.file_name));
            match page.next {
                Some(next) => start = next,
                None => break,
            }
        }
        let own = files
            .iter()
            .filter(|known| known.caller.owner == caller.owner);
        let mut expected: Vec<String> = own
            .map(|known| known.upload.file.file_name.clone())
            .collect();
        names.sort();
        expected.sort();
        assert_eq!(names, expected);
    }
}

async fn a_thousand_files_survive(world: World) {
    let state = Arc::clone(&world.backends.state);
    let first = gateway(&world, Arc::clone(&state), &[1]).await;
    let mut files = send_all(&first, 0..BY_FIRST_KEY).await;
    drop(first);
    let second = gateway(&world, state, &[2, 1]).await;
    files.extend(send_all(&second, BY_FIRST_KEY..FILES).await);
    put_foreign(&world, &files[1].upload).await;
    drop(second);

    // For each search, the embedded store reads what it has of every object.
    let step = if world.config.storage.is_empty() {
        20
    } else {
        1
    };
    let flushed = Flushed::new(&world).await;
    let rebuilding = flushed.gateway(&world, &[2, 1]).await;
    are_found(&rebuilding, files.iter().step_by(step)).await;
    drop(rebuilding);

    // The first key is removed.
    let flushed = Flushed::new(&world).await;
    let log = Log::begin();
    let without_first = flushed.gateway(&world, &[2]).await;
    let (by_first, by_second) = files.split_at(BY_FIRST_KEY);
    for Known { caller, upload, .. } in by_first.iter().step_by(step) {
        let found = without_first
            .records
            .get_upload(caller, Action::Read, &upload.id);
        assert_eq!(found.await.unwrap_err().kind(), Kind::NotFound);
    }
    are_found(&without_first, by_second.iter().step_by(step)).await;
    let warnings = log.lines("WARN");
    drop(log);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("key_id=k1"), "{warnings:?}");
    drop(without_first);

    let flushed = Flushed::new(&world).await;
    let restoring = flushed.gateway(&world, &[2, 1]).await;
    let storage = restoring.storages.for_caller(&files[0].caller, "").unwrap();
    let restored = restoring.records.restore_all(&storage, Restore::default());
    let expected = RestoreReport {
        objects: (FILES + FOREIGN) as u64,
        restored: FILES as u64,
        known: 0,
        foreign: FOREIGN as u64,
        failed: 0,
    };
    assert_eq!(restored.await.unwrap(), expected);
    are_listed(&restoring, &files).await;
    are_found(&restoring, &files).await;
}

async fn a_file_is_kept_although_the_state_store_lost_that_it_is(world: World) {
    let sending = gateway(&world, Arc::clone(&world.backends.state), &[1]).await;
    let (caller, mut uploads) = (Caller::default(), Vec::new());
    for _ in 0..3 {
        let expiring = FileMetadata {
            expire_after: Some(3600),
            ..file(10)
        };
        uploads.push(upload_as(&caller, &sending, expiring).await);
    }
    for (upload, expire_after) in uploads.iter().zip([None, Some(2 * 3600)]) {
        let kept = sending.keep_upload(&caller, &upload.id, expire_after);
        kept.await.unwrap();
    }

    // A replica of Redis that lacks these changes becomes the primary.
    let flushed = Flushed::new(&world).await;
    for upload in &uploads {
        flushed.state.create(upload, u64::MAX).await.unwrap();
    }
    world.clock.advance(HOUR + HOUR / 2);
    // Without the key that sealed what the store keeps, nothing is deleted.
    let keyless = flushed.gateway(&world, &[2]).await;
    sweep(&keyless).await;
    for upload in &uploads {
        let found = keyless
            .records
            .get_upload(&caller, Action::Read, &upload.id);
        found.await.unwrap();
    }
    let behind = flushed.gateway(&world, &[1]).await;
    for _ in 0..2 {
        sweep(&behind).await;
    }
    let found = async |upload: &Upload| {
        let found = behind.records.get_upload(&caller, Action::Read, &upload.id);
        found.await.map(|found| found.file_expires_at)
    };
    assert_eq!(found(&uploads[0]).await.unwrap(), None);
    assert!(found(&uploads[1]).await.unwrap() > uploads[1].file_expires_at);
    assert_eq!(found(&uploads[2]).await.unwrap_err().kind(), Kind::NotFound);
    world.clock.advance(HOUR);
    sweep(&behind).await;
    found(&uploads[0]).await.unwrap();
    assert_eq!(found(&uploads[1]).await.unwrap_err().kind(), Kind::NotFound);
}
