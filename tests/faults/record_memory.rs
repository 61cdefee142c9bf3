//! Records of COMPLETE uploads do not fill Redis: above a limit, the sweeper removes those that their files carry, too.

use std::sync::Arc;

use futures::{StreamExt, stream};
use upload_gateway_core::{
    blobs::NewObject,
    gateway::{Caller, Gateway, Settings, Sweep},
    upload::{FileMetadata, Md5, Phase, Upload},
};

use super::{
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
