//! Records that are rebuilt, on demand and from a listing.

use std::sync::Arc;

use tempfile::TempDir;
use upload_gateway::state::redb::Redb;
use upload_gateway_core::{
    gateway::{Caller, Gateway, Restore, RestoreReport},
    state::StateStore,
    upload::Upload,
};

use super::{
    super::{
        object_records::{get, keyed, seen, upload, with_keys},
        world::{MINUTE, PART, World, file, for_each_store, sweep_as},
    },
    MAX_STEPS, ended_after, objects, tagged, with_all_sessions,
};

for_each_store!(
    a_record_is_rebuilt_on_demand_or_the_next_time,
    records_are_restored_or_the_next_time,
);

/// A state store that has lost everything.
struct Flushed {
    state: Arc<dyn StateStore>,
    _directory: TempDir,
}

// === impl Flushed ===

impl Flushed {
    async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let state = Redb::open(directory.path().join("state.redb")).await;
        Self {
            state: Arc::new(state.unwrap()),
            _directory: directory,
        }
    }
}

/// Files whose records are in the metadata and in side objects.
async fn files(world: &World) -> Vec<Upload> {
    let gateway = with_keys(world, &[1]).await;
    let mut files = Vec::new();
    for kind in [file(1000), tagged(1000), file(PART + 1)] {
        files.push(upload(&gateway, kind).await);
    }
    files
}

async fn restore(gateway: &Gateway) -> upload_gateway_core::error::Result<RestoreReport> {
    let storage = gateway.storages.for_caller(&Caller::default(), "").unwrap();
    gateway
        .records
        .restore_all(&storage, Restore::default())
        .await
}

/// Runs `operation` on gateways that end after no call, one call, two calls, until one does not end. Each time a new gateway makes
/// one sweep, and `check` gets it.
#[expect(
    clippy::future_not_send,
    reason = "a test stays in its thread, and bounds of asynchronous closures cannot name `Send`"
)]
async fn at_every_step(
    world: &World,
    operation: impl AsyncFn(&Gateway),
    check: impl AsyncFn(&Gateway),
) {
    let stored = objects(world).await;
    for step in 0..MAX_STEPS {
        let flushed = Flushed::new().await;
        let has_ended = ended_after(step, world, &flushed.state, async |ending| {
            operation(ending).await;
        });
        let has_ended = has_ended.await;
        world.clock.advance(3 * MINUTE);
        let clock = Arc::new(world.clock.clone());
        let storages = world.backends.storages.clone();
        let other = Gateway::new(Arc::clone(&flushed.state), storages, keyed(&[1]), clock);
        let other = other.await.unwrap();
        let report = sweep_as(&other, &with_all_sessions()).await;
        assert!(report.is_idle(), "after {step} calls: {report:?}");
        check(&other).await;
        assert_eq!(objects(world).await, stored);
        if !has_ended {
            assert!(step > 2, "it ended after {step} calls");
            return;
        }
    }
    panic!("it makes more than {MAX_STEPS} calls");
}

async fn a_record_is_rebuilt_on_demand_or_the_next_time(world: World) {
    for known in files(&world).await {
        at_every_step(
            &world,
            async |ending| {
                // It fails, unless this is the last step.
                let _ = get(ending, &known.id).await;
            },
            async |other| {
                let found = get(other, &known.id).await.unwrap();
                assert_eq!(seen(found), seen(known.clone()));
            },
        )
        .await;
    }
}

async fn records_are_restored_or_the_next_time(world: World) {
    let files = files(&world).await;
    at_every_step(
        &world,
        async |ending| {
            let _ = restore(ending).await;
        },
        async |other| {
            let report = restore(other).await.unwrap();
            let all = files.len() as u64;
            assert_eq!(report.restored + report.known, all, "{report:?}");
            assert_eq!((report.foreign, report.failed), (0, 0));
            for known in &files {
                let found = get(other, &known.id).await.unwrap();
                assert_eq!(seen(found), seen(known.clone()));
            }
        },
    )
    .await;
}
