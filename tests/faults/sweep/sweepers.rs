//! Several sweepers, and stores that do not answer.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use upload_gateway::blobs::s3::{Profile, S3Config, S3Store};
use upload_gateway_core::{
    clock::Clock,
    decorate::{Around, Decorated},
    error::{Error, Result},
    gateway::{Caller, Settings, Storage, Storages, Sweep},
    state::Update,
    upload::{Denial, Denied, Event, PART_SIZE, Phase},
};

use super::{
    common::until,
    for_each_store,
    world::{DAY, HOUR, PART, World, file, pass, settings, sweep, sweep_as},
};

for_each_store!(
    one_sweeper_runs_at_a_time,
    concurrent_sweepers_sweep_nothing_twice,
    a_pass_that_is_stopped_leaves_the_rest_to_the_next,
    an_unreachable_store_does_not_stop_the_others,
    a_store_that_fails_at_the_second_observation_is_a_failure,
    four_slow_commits_do_not_stop_a_pass,
);

async fn one_sweeper_runs_at_a_time(world: World) {
    let (one, other) = (world.gateway().await, world.gateway().await);
    let upload = world.interrupted(&one, PART).await;
    world.clock.advance(2 * DAY);
    let stop = CancellationToken::new();
    let lease = world.state().lease("sweep", "another replica", HOUR);
    assert!(lease.await.unwrap());
    assert_eq!(one.sweeper.sweep(&pass(), &stop).await.unwrap(), None);
    assert_eq!(world.get(&upload.id).await.phase, Phase::Open);
    let dry = Sweep {
        dry_run: true,
        ..pass()
    };
    assert_eq!(
        sweep_as(&one, &dry).await.expired,
        1,
        "a dry run needs no lease"
    );
    let release = world.state().release("sweep", "another replica");
    release.await.unwrap();

    // Each replica tries once in an interval, and the first one sweeps.
    let turn = Sweep {
        interval: Some(HOUR),
        ..pass()
    };
    assert_eq!(sweep_as(&one, &turn).await.expired, 1);
    for gateway in [&one, &other] {
        assert_eq!(gateway.sweeper.sweep(&turn, &stop).await.unwrap(), None);
    }
    assert!(
        sweep(&other).await.is_idle(),
        "a manual pass ignores the interval"
    );
}

async fn concurrent_sweepers_sweep_nothing_twice(world: World) {
    let (one, other) = (world.gateway().await, world.gateway().await);
    let (caller, mut uploads) = (Caller::default(), Vec::new());
    for _ in 0..120 {
        let step = one.signing.create_signed(&caller, file(2 * PART), "");
        uploads.push(step.await.unwrap().upload_id);
    }
    world.clock.advance(2 * DAY);
    let (pass, stop) = (pass(), CancellationToken::new());
    let (mine, theirs) = tokio::join!(
        one.sweeper.sweep(&pass, &stop),
        other.sweeper.sweep(&pass, &stop)
    );
    let reports = [mine.unwrap(), theirs.unwrap()];
    let expired: u64 = reports.iter().flatten().map(|report| report.expired).sum();
    assert_eq!(expired, 120, "{reports:?}");
    for id in &uploads {
        assert_eq!(world.get(id).await.phase, Phase::Aborted);
    }
}

async fn a_pass_that_is_stopped_leaves_the_rest_to_the_next(world: World) {
    let gateway = world.gateway().await;
    let upload = world.interrupted(&gateway, PART).await;
    world.clock.advance(2 * DAY);
    let stop = CancellationToken::new();
    stop.cancel();
    let stopped = gateway.sweeper.sweep(&pass(), &stop).await.unwrap();
    assert!(stopped.unwrap().is_idle());
    assert_eq!(world.get(&upload.id).await.phase, Phase::Open);
    assert_eq!(sweep(&gateway).await.expired, 1);
}

async fn an_unreachable_store_does_not_stop_the_others(world: World) {
    let mut down = S3Config::new("down");
    down.endpoint = Some("http://127.0.0.1:1".parse().unwrap());
    down.profile = Some(Profile::Compatible);
    down.access_key_id = Some("id".into());
    down.secret_access_key = Some("secret".into());
    let down = Arc::new(S3Store::connect(down).await.unwrap());
    let good = Storage::clone(
        &world
            .backends
            .storages
            .for_caller(&Caller::default(), "")
            .unwrap(),
    );
    let (down, id) = (Storage::new("down", down, "", PART_SIZE), good.id.clone());
    let storages = Storages::new(vec![down, good], &id).unwrap();
    let settings = Settings {
        store_retry_timeout: Duration::from_millis(200),
        ..settings()
    };
    let gateway = world.gateway_with(settings, world.clock.clone(), storages);
    let gateway = gateway.await;
    let caller = Caller::default();
    let create = async |storage| {
        let step = gateway
            .signing
            .create_signed(&caller, file(2 * PART), storage)
            .await;
        step.unwrap().upload_id
    };
    let (mut held, mut swept) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        held.push(create("down").await);
        swept.push(create("").await);
    }
    world.clock.advance(2 * DAY);
    let report = sweep(&gateway).await;
    assert_eq!(report.expired, 3, "{report:?}");
    assert_eq!(report.failures, 1, "an unreachable store is called once");
    for (held, swept) in held.iter().zip(&swept) {
        assert_eq!(world.get(held).await.phase, Phase::Open);
        assert_eq!(world.get(swept).await.phase, Phase::Aborted);
    }
}

/// Fails each HEAD request to a store.
#[derive(Debug)]
struct NoHead;

impl Around for NoHead {
    async fn around<T, F>(
        &self,
        name: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        if name == "store.head" {
            return Err(Error::store_unavailable("no answer to HEAD"));
        }
        call().await
    }
}

/// An older denial must not hide that the store does not answer.
async fn a_store_that_fails_at_the_second_observation_is_a_failure(world: World) {
    let upload = world.interrupted(&world.gateway().await, PART).await;
    let mut upload = world.get(&upload.id).await;
    let denial = Denial {
        denied: Denied::Session,
        settles_at: world.clock.now(),
    };
    upload.apply(Event::Denied(denial)).unwrap();
    let updated = world.state().update(&upload, upload.writer).await.unwrap();
    assert!(matches!(updated, Update::Updated(_)));
    world.clock.advance(HOUR);
    let storages = world.backends.storages.clone();
    let storages = storages.with_stores(|_, store| Arc::new(Decorated::new(store, NoHead)));
    let settings = Settings {
        store_retry_timeout: Duration::from_millis(200),
        ..settings()
    };
    let gateway = world.gateway_with(settings, world.clock.clone(), storages);
    let gateway = gateway.await;
    let report = sweep(&gateway).await;
    assert_eq!(report.failures, 1, "{report:?}");
    assert_eq!(world.get(&upload.id).await.phase, Phase::Open);
}

/// Holds each commit until the gate opens.
#[derive(Debug, Clone)]
struct HeldCommits {
    running: watch::Sender<usize>,
    gate: Arc<Semaphore>,
}

impl Around for HeldCommits {
    async fn around<T, F>(
        &self,
        name: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        if name == "store.commit" {
            self.running.send_modify(|running| *running += 1);
            let _held = self.gate.acquire().await.unwrap();
            self.running.send_modify(|running| *running -= 1);
        }
        call().await
    }
}

async fn four_slow_commits_do_not_stop_a_pass(world: World) {
    let first = world.gateway().await;
    let mut abandoned = Vec::new();
    for _ in 0..6 {
        abandoned.push(super::commits::abandoned(&world, &first).await.id);
    }
    world.clock.advance(DAY / 2);
    let idle = world.signed(&first, 2 * PART).await.id;
    world.clock.advance(2 * DAY);
    let held = HeldCommits {
        running: watch::Sender::new(0),
        gate: Arc::new(Semaphore::new(0)),
    };
    let mut running = held.running.subscribe();
    let storages = world.backends.storages.clone();
    let storages = storages.with_stores(|_, store| Arc::new(Decorated::new(store, held.clone())));
    let gateway = world.gateway_with(settings(), world.clock.clone(), storages);
    let gateway = gateway.await;
    let pass = tokio::spawn(async move { sweep(&gateway).await });
    until("the expired upload is aborted", async || {
        world.get(&idle).await.phase == Phase::Aborted
    })
    .await;
    running.wait_for(|running| *running == 4).await.unwrap();
    held.gate.add_permits(Semaphore::MAX_PERMITS);
    let report = pass.await.unwrap();
    assert_eq!(
        (report.finished_commits, report.expired, report.failures),
        (6, 1, 0)
    );
    for id in &abandoned {
        assert_eq!(world.get(id).await.phase, Phase::Complete);
    }
}
