//! Records of COMPLETE uploads do not fill Redis: above a limit, the sweeper removes those that their files carry, too.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use upload_gateway_core::{
    blobs::NewObject,
    decorate::{Around, Decorated},
    error::{Error, Reason, Result},
    gateway::{Caller, Gateway, Settings, Sweep},
    upload::{FileMetadata, Md5, Phase, Upload},
};

use super::{
    common::Log,
    object_records::{get, keyed, seen, upload},
    world::{self, PART, World, file, pass, sweep, sweep_as},
};

/// A gateway whose state store always uses too much memory.
async fn crowded(world: &World, keys: &[u8]) -> Arc<Gateway> {
    limited(world, keys, 1).await
}

async fn limited(world: &World, keys: &[u8], max: u64) -> Arc<Gateway> {
    let settings = Settings {
        max_record_memory: Some(max),
        ..keyed(keys)
    };
    let storages = world.backends.storages.clone();
    world
        .gateway_with(settings, world.clock.clone(), storages)
        .await
}

async fn has_record(world: &World, upload: &Upload) -> bool {
    world.state().summary(&upload.id).await.unwrap().is_some()
}

/// Files that have all that their records need, in each way.
async fn restorable(gateway: &Gateway) -> Vec<Upload> {
    let tagged = FileMetadata {
        tags: vec!["a".into()],
        ..file(1000)
    };
    let mut uploads = Vec::new();
    for kind in [file(1000), file(PART + 1), tagged] {
        uploads.push(upload(gateway, kind).await);
    }
    let again = upload(gateway, file(10)).await;
    let caller = Caller::default();
    let kept = gateway.keep_upload(&caller, &again.id, None);
    uploads.push(kept.await.unwrap());
    uploads
}

async fn records_are_removed_only_if_their_files_carry_them(world: World) {
    let gateway = crowded(&world, &[1]).await;
    let expiring = FileMetadata {
        expire_after: Some(7200),
        ..file(1000)
    };
    let expiring = upload(&gateway, expiring).await;
    let (replaced, missing) = (
        upload(&gateway, file(1000)).await,
        upload(&gateway, file(1000)).await,
    );
    let other = NewObject {
        md5: Some(Md5::of(b"other")),
        upload_id: replaced.id.clone(),
        ..world.object_of(&replaced)
    };
    let store = world.store();
    let put = store.replace(&other, (&b"other"[..]).into());
    put.await.unwrap();
    store.delete(&missing.object_key).await.unwrap();
    let open = world.interrupted(&gateway, PART).await;
    let restorable = restorable(&gateway).await;

    let dry_run = sweep_as(
        &gateway,
        &Sweep {
            dry_run: true,
            ..pass()
        },
    )
    .await;
    assert!(dry_run.removed_records > 0);
    for upload in &restorable {
        assert!(has_record(&world, upload).await);
    }
    let mut removed = 0;
    while removed < restorable.len() as u64 {
        let report = sweep(&gateway).await;
        assert_eq!(report.failures, 0);
        removed += report.removed_records;
    }
    assert_eq!(sweep(&gateway).await.removed_records, 0);
    for upload in [&expiring, &replaced, &missing, &open] {
        assert!(has_record(&world, upload).await, "{upload:?}");
    }
    for known in restorable {
        assert!(!has_record(&world, &known).await);
        let found = get(&gateway, &known.id).await.unwrap();
        assert_eq!(seen(found), seen(known));
    }
}

#[tokio::test]
async fn records_in_s3_are_removed_only_if_their_files_carry_them() {
    let Some(world) = world::s3().await else {
        return;
    };
    let case = Box::pin(records_are_removed_only_if_their_files_carry_them(world));
    world::in_time(case).await;
}

#[tokio::test]
async fn records_in_azure_are_removed_only_if_their_files_carry_them() {
    let Some(world) = world::azure().await else {
        return;
    };
    let case = Box::pin(records_are_removed_only_if_their_files_carry_them(world));
    world::in_time(case).await;
}

#[tokio::test]
async fn without_the_key_that_sealed_it_no_record_is_removed() {
    let Some(world) = world::s3().await else {
        return;
    };
    let known = upload(&*crowded(&world, &[1]).await, file(1000)).await;
    let without = crowded(&world, &[]).await;
    assert_eq!(sweep(&without).await.removed_records, 0);
    let other_key = crowded(&world, &[2]).await;
    assert_eq!(sweep(&other_key).await.removed_records, 0);
    assert!(has_record(&world, &known).await);
}

/// A store that does not answer to one kind of request.
#[derive(Debug, Clone, Copy)]
struct Without(&'static str);

impl Around for Without {
    async fn around<T, F>(
        &self,
        name: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        match name == self.0 {
            true => Err(Error::store_unavailable("no answer")),
            false => call().await,
        }
    }
}

#[tokio::test]
async fn while_the_store_does_not_answer_no_record_is_removed() {
    let Some(world) = world::s3().await else {
        return;
    };
    let restorable = restorable(&*crowded(&world, &[1]).await).await;
    for request in ["store.read", "store.head"] {
        let storages = world.backends.storages.clone();
        let storages =
            storages.with_stores(|_, store| Arc::new(Decorated::new(store, Without(request))));
        let settings = Settings {
            max_record_memory: Some(1),
            store_retry_timeout: Duration::from_millis(1),
            ..keyed(&[1])
        };
        let gateway = world.gateway_with(settings, world.clock.clone(), storages);
        let report = sweep(&*gateway.await).await;
        assert_eq!(
            (report.removed_records, report.failures),
            (0, 1),
            "{request}"
        );
        for upload in &restorable {
            assert!(has_record(&world, upload).await, "{request}");
        }
    }
    let gateway = crowded(&world, &[1]).await;
    assert!(sweep(&gateway).await.removed_records > 0);
}

#[tokio::test]
async fn room_is_made_until_nothing_can_be_removed_and_not_again_at_once() {
    let Some(world) = world::s3().await else {
        return;
    };
    let gateway = crowded(&world, &[1]).await;
    let known = restorable(&gateway).await;
    let (memory, stop) = (&gateway.sweeper.memory, CancellationToken::new());
    let removed = memory.make_room(&stop).await.unwrap();
    assert_eq!(removed, known.len() as u64);
    let later = upload(&gateway, file(10)).await;
    assert_eq!(memory.make_room(&stop).await.unwrap(), 0);
    assert!(has_record(&world, &later).await);
    // A sweep tries again.
    assert_eq!(sweep(&gateway).await.removed_records, 1);
}

#[tokio::test]
async fn all_replicas_together_warn_once_an_hour() {
    let Some((world, url)) = world::s3_with_private_redis().await else {
        return;
    };
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let replicas = [crowded(&world, &[1]).await, crowded(&world, &[1]).await];
    let log = Log::begin();
    let warnings = || log.lines("records.max_memory").len();
    for _ in 0..2 {
        for replica in &replicas {
            sweep(replica).await;
        }
    }
    assert_eq!(warnings(), 1);
    let key = "upload-gateway:lease:room-warned";
    let left: u64 = redis::cmd("PTTL").arg(key).query(&mut connection).unwrap();
    assert!((3_500_000..=3_600_000).contains(&left), "{left} ms");
    // As after an hour.
    redis::cmd("DEL").arg(key).exec(&mut connection).unwrap();
    upload(&replicas[0], file(10)).await;
    for replica in &replicas {
        while sweep(replica).await.removed_records > 0 {}
    }
    assert_eq!(warnings(), 2, "{:?}", log.lines(""));
    let removed = log.lines("records of the oldest COMPLETE uploads are removed");
    assert!(removed[0].contains("removed=1"), "{removed:?}");
}

#[tokio::test]
async fn a_removed_record_is_read_while_redis_is_full() {
    let Some((world, url)) = world::s3_with_private_redis().await else {
        return;
    };
    let known = upload(&*crowded(&world, &[1]).await, file(1000)).await;
    let sweeper = crowded(&world, &[1]).await;
    while sweep(&sweeper).await.removed_records == 0 {}
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let mut limit = |bytes: u64| {
        let set = redis::cmd("CONFIG")
            .arg(("SET", "maxmemory", bytes))
            .to_owned();
        set.exec(&mut connection).unwrap();
    };
    limit(1);
    let settings = Settings {
        max_record_memory: Some(u64::MAX),
        store_retry_timeout: Duration::from_millis(100),
        ..keyed(&[1])
    };
    let storages = world.backends.storages.clone();
    let clock = world.clock.clone();
    let gateway = world.gateway_with(settings, clock, storages).await;
    let found = get(&gateway, &known.id).await.unwrap();
    assert_eq!(seen(found), seen(known.clone()));
    let caller = Caller::default();
    let parts = gateway.records.list_parts(&caller, &known.id, 0, 9);
    assert_eq!(parts.await.unwrap().parts, []);
    assert!(!has_record(&world, &known).await);
    let changed = gateway.keep_upload(&caller, &known.id, None);
    assert_eq!(changed.await.unwrap_err().reason(), Reason::StateFull);
    limit(0);
    get(&gateway, &known.id).await.unwrap();
    assert!(has_record(&world, &known).await);
}

#[tokio::test]
async fn uploads_continue_in_a_small_redis_and_every_id_answers() {
    const FILES: usize = 800;
    let Some((world, url)) = world::s3_with_private_redis().await else {
        return;
    };
    let used = world.state().memory().await.unwrap().unwrap().used;
    let limit = used + 600_000;
    let maxmemory = redis::cmd("CONFIG")
        .arg(("SET", "maxmemory", used + 1_200_000))
        .to_owned();
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    maxmemory.exec(&mut connection).unwrap();
    let gateway = limited(&world, &[1], limit).await;
    let mut uploads = Vec::new();
    let mut removed = 0;
    for _ in 0..FILES / 100 {
        let some = stream::iter(0..100).map(|_| upload(&gateway, file(10)));
        uploads.extend(some.buffer_unordered(8).collect::<Vec<_>>().await);
        removed += sweep(&gateway).await.removed_records;
    }
    let all = Caller::default().owner.into();
    let listed = world.state().count(&all).await.unwrap();
    assert_eq!(listed + removed, FILES as u64);
    assert!(removed > 0);
    for some in uploads.chunks(100) {
        for known in some {
            let found = get(&gateway, &known.id).await.unwrap();
            assert_eq!((found.phase, found.id), (Phase::Complete, known.id.clone()));
        }
        // What was rebuilt needs room, too.
        sweep(&gateway).await;
    }
}
