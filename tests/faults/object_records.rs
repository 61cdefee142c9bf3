//! What the stores keep of records: files survive the loss of the state store, and nothing else becomes a record.

use std::sync::Arc;

use bytes::Bytes;
use futures::{TryStreamExt, stream};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use upload_gateway::{
    config::{Config, S3Profile},
    state::redb::Redb,
};
use upload_gateway_core::{
    blobs::{BlobStore, NewObject},
    clock::Clock,
    error::Kind,
    gateway::{
        Action, Caller, Chunk, Counts, Finish, Gateway, Message, Observer, Open, Restore,
        RestoreReport, Settings, Takeover, Target,
    },
    seal::SealKey,
    upload::{FileMetadata, Md5, Permissions, Phase, Placement, Upload, UploadId},
};

use super::{
    common::{self, bytes},
    copies::copy_to,
    world::{DAY, HOUR, PART, World, file, for_each_store, settings},
};

for_each_store!(
    every_file_is_found_again_after_the_state_store_lost_everything,
    a_record_is_rebuilt_with_its_last_change,
    a_file_is_found_as_long_as_one_of_the_keys_is_configured,
    a_copy_under_another_key_is_not_a_record,
    a_replaced_object_is_not_a_record,
    what_changes_before_the_completion_is_kept,
    a_side_object_that_cannot_be_opened_hides_the_entry,
    an_expired_file_is_not_found_again,
    a_deleted_file_leaves_nothing_in_the_store,
    all_records_of_a_storage_are_restored,
    records_that_no_key_has_sealed_are_restored_only_on_demand,
    a_client_that_leaves_the_metadata_out_does_not_lose_its_file,
);

/// A gateway over another state store, which is empty, and the same stores.
struct Flushed {
    gateway: Gateway,
    _directory: TempDir,
}

pub(crate) fn keyed(keys: &[u8]) -> Settings {
    let key = |byte: &u8| SealKey::new(format!("k{byte}"), &[*byte; 32]);
    Settings {
        record_keys: keys.iter().map(key).collect(),
        rebuilds_per_second: 1000,
        ..settings()
    }
}

pub(crate) async fn with_keys(world: &World, keys: &[u8]) -> Arc<Gateway> {
    let storages = world.backends.storages.clone();
    world
        .gateway_with(keyed(keys), world.clock.clone(), storages)
        .await
}

async fn flushed(world: &World, keys: &[u8]) -> Flushed {
    let directory = TempDir::new().unwrap();
    let state = Redb::open(directory.path().join("state.redb")).await;
    let gateway = Gateway::new(
        Arc::new(state.unwrap()),
        world.backends.storages.clone(),
        keyed(keys),
        Arc::new(world.clock.clone()),
    );
    Flushed {
        gateway: gateway.await.unwrap(),
        _directory: directory,
    }
}

/// Uploads this file whole, as a stream.
pub(crate) async fn upload(gateway: &Gateway, file: FileMetadata) -> Upload {
    upload_as(&Caller::default(), gateway, file).await
}

/// As [`upload`], by this caller.
pub(crate) async fn upload_as(caller: &Caller, gateway: &Gateway, file: FileMetadata) -> Upload {
    let data = bytes(usize::try_from(file.file_size.unwrap()).unwrap());
    let open = Message::Open(Open {
        target: Target::File {
            file,
            storage_id: String::new(),
        },
        restart: false,
        takeover: Takeover::Force,
        resume_token: String::new(),
    });
    let chunk = Message::Chunk(Chunk {
        offset: 0,
        data: data.into(),
        crc32c: None,
    });
    let finish = Message::Finish(Finish {
        file_size: None,
        file_id: None,
        crc64nvme: None,
    });
    let mut messages = stream::iter([Ok(open), Ok(chunk), Ok(finish)]);
    let (opened, _id) = oneshot::channel();
    let (counts, _counted) = watch::channel(Counts::default());
    let observer = Observer::new(opened, counts);
    let memory = gateway.streams.memory(caller);
    let received = gateway
        .streams
        .receive(caller, memory, &mut messages, observer);
    Box::pin(received).await.unwrap()
}

/// The bytes of an object.
pub(crate) async fn collect(store: &dyn BlobStore, key: &str) -> Vec<u8> {
    let read = store.read(key, None, None).await.unwrap();
    let read: Vec<Bytes> = read.try_collect().await.unwrap();
    read.concat()
}

pub(crate) async fn get(gateway: &Gateway, id: &UploadId) -> Result<Upload, Kind> {
    let caller = Caller::default();
    let found = gateway.records.get_upload(&caller, Action::Download, id);
    found.await.map_err(|error| error.kind())
}

/// What callers see of a COMPLETE upload. The MD5 of an object of parts may be lost.
pub(crate) fn seen(upload: Upload) -> impl PartialEq + std::fmt::Debug {
    let object = upload.object.unwrap();
    let place = (object.bucket, object.key, object.etag, object.size);
    let Upload {
        id,
        phase,
        file,
        owner,
        storage_id,
        store_kind,
        created_at,
        file_expires_at,
        opaque_file_id,
        ..
    } = upload;
    let kept = (created_at, file_expires_at, opaque_file_id);
    (id, phase, file, owner, storage_id, store_kind, place, kept)
}

/// Files of all kinds, small and large.
async fn files(gateway: &Gateway) -> Vec<Upload> {
    let small = || file(1000);
    let kinds = [
        small(),
        file(2 * PART + 1),
        FileMetadata {
            public: true,
            permissions: Permissions::Support,
            file_name: "später & mehr.bin".into(),
            ..small()
        },
        FileMetadata {
            placement: Box::new(Placement {
                metadata: [("project".into(), "a b".into())].into(),
                cache_control: Some("max-age=60".into()),
                ..Placement::default()
            }),
            ..small()
        },
        FileMetadata {
            tags: vec!["a".into(), "b".into()],
            file_path: "some/where".into(),
            ..small()
        },
        FileMetadata {
            file_name: "ä".repeat(500),
            expire_after: Some(7200),
            ..file(PART + 7)
        },
    ];
    let mut uploads = Vec::new();
    for kind in kinds {
        uploads.push(upload(gateway, kind).await);
    }
    uploads
}

async fn every_file_is_found_again_after_the_state_store_lost_everything(world: World) {
    let gateway = with_keys(&world, &[1]).await;
    let uploads = files(&gateway).await;
    let flushed = flushed(&world, &[1]).await;
    for known in uploads {
        let found = get(&flushed.gateway, &known.id).await.unwrap();
        assert_eq!(found.phase, Phase::Complete);
        assert_eq!(seen(found), seen(known));
    }
    let unknown = UploadId::generate(None);
    assert_eq!(get(&flushed.gateway, &unknown).await, Err(Kind::NotFound));
}

async fn a_record_is_rebuilt_with_its_last_change(world: World) {
    let gateway = with_keys(&world, &[1]).await;
    let caller = Caller::default();
    let mut kept = Vec::new();
    for expire_after in [Some(3600), None] {
        let known = upload(
            &gateway,
            FileMetadata {
                expire_after: Some(60),
                ..file(1000)
            },
        )
        .await;
        let changed = gateway.keep_upload(&caller, &known.id, expire_after).await;
        kept.push(changed.unwrap());
    }
    let flushed = flushed(&world, &[1]).await;
    for known in kept {
        let found = get(&flushed.gateway, &known.id).await.unwrap();
        assert_eq!(seen(found), seen(known));
    }
}

async fn a_file_is_found_as_long_as_one_of_the_keys_is_configured(world: World) {
    let old = upload(&*with_keys(&world, &[1]).await, file(1000)).await;
    let new = upload(&*with_keys(&world, &[2, 1]).await, file(1000)).await;
    let both = flushed(&world, &[2, 1]).await;
    assert!(get(&both.gateway, &old.id).await.is_ok());
    assert!(get(&both.gateway, &new.id).await.is_ok());
    let second = flushed(&world, &[2]).await;
    assert_eq!(get(&second.gateway, &old.id).await, Err(Kind::NotFound));
    assert!(get(&second.gateway, &new.id).await.is_ok());
    let without = flushed(&world, &[]).await;
    assert_eq!(get(&without.gateway, &new.id).await, Err(Kind::NotFound));
}

async fn a_copy_under_another_key_is_not_a_record(world: World) {
    let gateway = with_keys(&world, &[1]).await;
    let known = upload(&gateway, file(1000)).await;
    let found = world.store().head(&known.object_key).await.unwrap();
    let stolen = found.unwrap().entry().unwrap().to_owned();
    let forged = UploadId::generate(None);
    for id in [&forged, &known.id] {
        let object = NewObject {
            key: known.object_key.replace(known.id.as_str(), forged.as_str()),
            upload_id: id.clone(),
            record: Some(stolen.clone()),
            md5: Some(Md5::of(b"other")),
            ..world.object_of(&known)
        };
        let store = world.store();
        let copied = store.replace(&object, (&b"other"[..]).into());
        copied.await.unwrap();
        let flushed = flushed(&world, &[1]).await;
        assert_eq!(get(&flushed.gateway, &forged).await, Err(Kind::NotFound));
        let report = restore(&flushed.gateway, Restore::default()).await;
        assert_eq!((report.restored, report.foreign), (1, 1));
        assert_eq!(get(&flushed.gateway, &forged).await, Err(Kind::NotFound));
    }
}

async fn a_replaced_object_is_not_a_record(world: World) {
    let gateway = with_keys(&world, &[1]).await;
    let tagged = FileMetadata {
        tags: vec!["a".into()],
        ..file(1000)
    };
    for kind in [file(1000), tagged] {
        let known = upload(&gateway, kind).await;
        let store = world.store();
        let found = store.head(&known.object_key).await.unwrap().unwrap();
        // With all metadata.
        let object = NewObject {
            md5: Some(Md5::of(b"other")),
            upload_id: known.id.clone(),
            record: found.entry().map(str::to_owned),
            ..world.object_of(&known)
        };
        let replaced = store.replace(&object, (&b"other"[..]).into());
        replaced.await.unwrap();
        let flushed = flushed(&world, &[1]).await;
        assert_eq!(get(&flushed.gateway, &known.id).await, Err(Kind::NotFound));
    }
}

async fn what_changes_before_the_completion_is_kept(world: World) {
    let gateway = with_keys(&world, &[1]).await;
    let caller = Caller::default();
    let begun = world.put_as_client(&gateway).await;
    gateway
        .keep_upload(&caller, &begun.id, Some(3600))
        .await
        .unwrap();
    let amended = world.get(&begun.id).await;
    assert!(amended.is_amended);
    gateway.keep_upload(&caller, &begun.id, None).await.unwrap();
    let completed = gateway.signing.complete_upload(&caller, &begun.id).await;
    let known = completed.unwrap();
    // The entry in the object may be older: the side object decides.
    let side = format!("{}/.records/{}", world.prefix(), known.id);
    let side = side.trim_start_matches('/');
    assert!(world.store().head(side).await.unwrap().is_some());
    let flushed = flushed(&world, &[1]).await;
    let found = get(&flushed.gateway, &known.id).await.unwrap();
    assert_eq!(seen(found), seen(known));
}

async fn a_side_object_that_cannot_be_opened_hides_the_entry(world: World) {
    let known = upload(&*with_keys(&world, &[1]).await, file(1000)).await;
    let rotated = with_keys(&world, &[2, 1]).await;
    let caller = Caller::default();
    let kept = rotated.keep_upload(&caller, &known.id, Some(3600)).await;
    kept.unwrap();
    // Its entry, which the first key has sealed, does not expire.
    let behind = flushed(&world, &[1]).await;
    assert_eq!(get(&behind.gateway, &known.id).await, Err(Kind::NotFound));
    let both = flushed(&world, &[1, 2]).await;
    let found = get(&both.gateway, &known.id).await.unwrap();
    assert!(found.file_expires_at.is_some());
}

async fn an_expired_file_is_not_found_again(world: World) {
    let gateway = with_keys(&world, &[1]).await;
    let expiring = FileMetadata {
        expire_after: Some(7200),
        ..file(1000)
    };
    let known = upload(&gateway, expiring).await;
    world.clock.advance(HOUR);
    let before = flushed(&world, &[1]).await;
    let found = get(&before.gateway, &known.id).await.unwrap();
    assert_eq!(found.file_expires_at, known.file_expires_at);
    world.clock.advance(HOUR);
    let after = flushed(&world, &[1]).await;
    assert_eq!(get(&after.gateway, &known.id).await, Err(Kind::NotFound));
    // Nor is a file whose record would not be kept any more.
    let other = upload(&gateway, file(1000)).await;
    world.clock.advance(2 * DAY);
    let directory = TempDir::new().unwrap();
    let state = Redb::open(directory.path().join("state.redb")).await;
    let settings = Settings {
        keep_complete: Some(DAY),
        ..keyed(&[1])
    };
    let storages = world.backends.storages.clone();
    let clock = Arc::new(world.clock.clone());
    let short = Gateway::new(Arc::new(state.unwrap()), storages, settings, clock);
    let short = short.await.unwrap();
    assert!(other.created_at <= world.clock.now());
    assert_eq!(get(&short, &other.id).await, Err(Kind::NotFound));
}

async fn a_deleted_file_leaves_nothing_in_the_store(world: World) {
    let gateway = with_keys(&world, &[1]).await;
    let caller = Caller::default();
    for known in files(&gateway).await {
        gateway.delete_upload(&caller, &known.id).await.unwrap();
        let kept = gateway.keep_upload(&caller, &known.id, Some(9)).await;
        assert_eq!(kept.unwrap_err().kind(), Kind::NotFound);
    }
    let left = world.store().list(&world.prefix(), None).await.unwrap();
    assert_eq!(left.keys, Vec::<String>::new());
}

async fn restore(gateway: &Gateway, how: Restore) -> RestoreReport {
    let storage = gateway.storages.for_caller(&Caller::default(), "").unwrap();
    gateway.records.restore_all(&storage, how).await.unwrap()
}

async fn all_records_of_a_storage_are_restored(world: World) {
    let gateway = with_keys(&world, &[1]).await;
    let uploads = files(&gateway).await;
    let count = uploads.len() as u64;
    let foreign = NewObject {
        key: format!("{}/else/where.bin", world.prefix()),
        ..world.object_of(&uploads[0])
    };
    let put = world.store().put_object(&foreign, (&b"x"[..]).into()).await;
    put.unwrap();

    let flushed = flushed(&world, &[1]).await;
    let dry_run = Restore {
        dry_run: true,
        ..Restore::default()
    };
    for (how, restored, known) in [
        (dry_run, count, 0),
        (Restore::default(), count, 0),
        (Restore::default(), 0, count),
    ] {
        let expected = RestoreReport {
            objects: count + 1,
            restored,
            known,
            foreign: 1,
            failed: 0,
        };
        assert_eq!(restore(&flushed.gateway, how).await, expected);
    }
    let without = self::flushed(&world, &[]).await;
    let storage = without.gateway.storages.iter().next().unwrap();
    let records = &without.gateway.records;
    let refused = records.restore_all(storage, Restore::default()).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::FailedPrecondition);
    for known in uploads {
        let found = get(&flushed.gateway, &known.id).await.unwrap();
        assert_eq!(seen(found), seen(known));
    }
}

async fn records_that_no_key_has_sealed_are_restored_only_on_demand(world: World) {
    let known = upload(&*with_keys(&world, &[]).await, file(1000)).await;
    let flushed = flushed(&world, &[1]).await;
    assert_eq!(get(&flushed.gateway, &known.id).await, Err(Kind::NotFound));
    assert_eq!(
        restore(&flushed.gateway, Restore::default()).await.restored,
        0
    );
    let unauthenticated = Restore {
        unauthenticated: true,
        ..Restore::default()
    };
    assert_eq!(restore(&flushed.gateway, unauthenticated).await.restored, 1);
    let found = get(&flushed.gateway, &known.id).await.unwrap();
    assert_eq!(found.file.permissions, Permissions::Admin);
    assert!(!found.file.public);
    assert_eq!(found.committed_size(), 1000);
}

async fn a_client_that_leaves_the_metadata_out_does_not_lose_its_file(world: World) {
    let gateway = with_keys(&world, &[1]).await;
    // The test puts the object without the entry.
    let begun = world.put_as_client(&gateway).await;
    let caller = Caller::default();
    let completed = gateway.signing.complete_upload(&caller, &begun.id);
    let known = completed.await.unwrap();
    let object = world.store().head(&known.object_key).await.unwrap();
    // On Azure the completion sets what the client left out.
    assert_eq!(object.unwrap().entry().is_some(), !world.has_sessions);
    let flushed = flushed(&world, &[1]).await;
    let found = get(&flushed.gateway, &known.id).await.unwrap();
    assert_eq!(seen(found), seen(known));
}

#[tokio::test]
async fn a_storage_does_not_take_the_files_of_another_one_in_its_bucket() {
    let Some(server) = common::s3().await else {
        return;
    };
    let mut outer = server.storage(S3Profile::Compatible);
    outer.options.default = true;
    let mut inner = outer.clone();
    inner.options.id = "archive".into();
    inner.options.prefix += "/archive";
    inner.options.default = false;
    let directory = TempDir::new().unwrap();
    let config = Config {
        data_dir: directory.path().join("data"),
        storage: vec![outer, inner],
        ..Config::default()
    };
    let world = World::over(config, true, Box::new((server, directory))).await;
    let gateway = with_keys(&world, &[1]).await;
    let own = upload(&gateway, file(1000)).await;
    let other = copy_to(&gateway, &own.id, "archive").await.unwrap();
    let kept = copy_to(&gateway, &own.id, "archive").await.unwrap();
    let caller = Caller::default();
    let kept = gateway.keep_upload(&caller, &kept.id, Some(3600)).await;
    let kept = kept.unwrap();

    let flushed = flushed(&world, &[1]).await;
    let unauthenticated = Restore {
        unauthenticated: true,
        ..Restore::default()
    };
    let expected = RestoreReport {
        // The side object, too.
        objects: 4,
        restored: 1,
        foreign: 3,
        ..RestoreReport::default()
    };
    assert_eq!(restore(&flushed.gateway, unauthenticated).await, expected);
    for known in [own, other, kept] {
        let found = get(&flushed.gateway, &known.id).await.unwrap();
        assert_eq!(found.storage_id, known.storage_id);
        assert_eq!(seen(found), seen(known));
    }
}
