//! What clients send after their upload was aborted: their signed requests stay valid for some time.

use std::time::Duration;

use upload_gateway_core::{
    blobs::Put,
    clock::Clock,
    gateway::{Caller, Gateway, Settings, Sweep, SweepReport},
    upload::{Cleanup, Phase, Upload},
};

use super::{
    common::bytes,
    for_each_store,
    world::{DAY, MINUTE, PART, World, file, pass, settings, sweep, sweep_as},
};

for_each_store!(
    an_object_that_is_put_after_the_abort_is_deleted,
    an_aborted_upload_is_cleared_only_after_its_signatures_expired,
);

/// An upload that was aborted, and whose object the client puts nevertheless.
async fn put_too_late(world: &World, gateway: &Gateway, size: usize) -> Upload {
    let caller = Caller::default();
    let step = gateway.signing.create_signed(&caller, file(size), "").await;
    let id = step.unwrap().upload_id;
    let upload = gateway.delete_upload(&caller, &id).await.unwrap();
    let object = world.object_of(&upload);
    let put = world.store().put_object(&object, bytes(1000).into()).await;
    assert!(matches!(put.unwrap(), Put::Stored(_)));
    upload
}

async fn has_object(world: &World, upload: &Upload) -> bool {
    let found = world.store().head(&upload.object_key).await.unwrap();
    found.is_some()
}

async fn an_object_that_is_put_after_the_abort_is_deleted(world: World) {
    let gateway = world.gateway().await;
    let upload = put_too_late(&world, &gateway, 1000).await;
    world.clock.advance(DAY);
    assert!(
        sweep(&gateway).await.is_idle(),
        "it has only just become due"
    );
    assert!(has_object(&world, &upload).await);

    world.clock.advance(2 * MINUTE);
    let expected = SweepReport {
        examined: 1,
        cleared: 1,
        ..SweepReport::default()
    };
    let dry = Sweep {
        dry_run: true,
        ..pass()
    };
    assert_eq!(sweep_as(&gateway, &dry).await, expected);
    assert!(has_object(&world, &upload).await);
    assert_eq!(sweep(&gateway).await, expected);
    assert!(!has_object(&world, &upload).await);
    let left = world.get(&upload.id).await;
    assert_eq!((left.phase, left.cleanup), (Phase::Aborted, Cleanup::Done));
    assert!(sweep(&gateway).await.is_idle(), "once is enough");
}

async fn an_aborted_upload_is_cleared_only_after_its_signatures_expired(world: World) {
    let settings = Settings {
        upload_expiry: Duration::from_secs(1),
        ..settings()
    };
    let storages = world.backends.storages.clone();
    let gateway = world.gateway_with(settings, world.clock.clone(), storages);
    let gateway = gateway.await;
    // One part of 5 MiB at 16 KiB a second.
    let signed = Duration::from_secs(320);
    let upload = put_too_late(&world, &gateway, PART).await;
    assert_eq!(upload.expires_at, world.clock.now().plus(2 * signed));
    world.clock.advance(2 * signed);
    assert!(sweep(&gateway).await.is_idle());
    world.clock.advance(2 * MINUTE);
    assert_eq!(sweep(&gateway).await.cleared, 1);
    assert!(!has_object(&world, &upload).await);
}
