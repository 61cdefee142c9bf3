//! When uploads expire, and what happens to them then.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use upload_gateway::{config::StoreConfig, serve::connect_storage};
use upload_gateway_core::{
    clock::Clock,
    gateway::{Caller, Report, Settings, Sweep, SweepReport},
    state::Update,
    upload::{ACTIVE_WINDOW, AbortReason, Claim, Event, Phase, Upload},
};

use super::{
    for_each_store,
    world::{DAY, HOUR, MINUTE, PART, World, pass, settings, sweep, sweep_as},
};

for_each_store!(
    an_idle_upload_is_aborted,
    age_ends_an_upload_that_keeps_changing,
    a_running_stream_keeps_its_upload,
    an_idle_day_is_measured_by_clocks_that_differ,
    an_object_that_a_client_made_completes_its_upload,
    an_object_that_is_not_the_uploads_is_deleted_with_it,
    an_upload_that_is_resumed_in_time_is_not_aborted,
    a_dry_run_changes_nothing,
);

async fn an_idle_upload_is_aborted(world: World) {
    let gateway = world.gateway().await;
    let left = world.interrupted(&gateway, PART + 1).await;
    assert_eq!(left.expiry(), left.updated_at.plus(DAY));
    world.clock.advance(12 * HOUR);
    let other = world.interrupted(&gateway, PART).await;
    world.clock.advance(12 * HOUR);
    assert!(
        sweep(&gateway).await.is_idle(),
        "it has only just become due"
    );
    assert_eq!(world.has_session(&left).await, world.has_sessions);

    world.clock.advance(2 * MINUTE);
    let report = sweep(&gateway).await;
    assert_eq!((report.expired, report.failures), (1, 0), "{report:?}");
    let over = world.get(&left.id).await;
    assert_eq!(over.phase, Phase::Aborted);
    assert!(!world.has_session(&over).await);
    assert_eq!(world.get(&other.id).await.phase, Phase::Open);
    assert_eq!(world.has_session(&other).await, world.has_sessions);
    assert!(sweep(&gateway).await.is_idle(), "once is enough");
}

/// Reports a part again after each of the steps.
async fn keep_alive(world: &World, upload: &Upload, step: Duration, steps: u32) {
    let gateway = world.gateway().await;
    for _ in 0..steps {
        world.clock.advance(step);
        let claim = Claim {
            number: 1,
            md5: None,
            signed_for: None,
        };
        let report = Report {
            resumable_id: None,
            claims: vec![claim],
        };
        let reported = gateway
            .signing
            .report(&Caller::default(), &upload.id, report)
            .await;
        assert_eq!(reported.unwrap().phase, Phase::Open);
        let report = sweep(&gateway).await;
        assert_eq!((report.expired, report.failures), (0, 0), "{report:?}");
    }
}

async fn age_ends_an_upload_that_keeps_changing(world: World) {
    let gateway = world.gateway().await;
    let upload = world.signed(&gateway, 2 * PART).await;
    assert_eq!(upload.ends_at, upload.created_at.plus(6 * DAY));
    keep_alive(&world, &upload, 23 * HOUR, 6).await;
    // Past its maximum age, but still active.
    keep_alive(&world, &upload, 4 * MINUTE, 100).await;
    let kept = world.get(&upload.id).await;
    assert!(kept.expires_at > kept.ends_at && kept.expiry() == upload.ends_at);

    world.clock.advance(ACTIVE_WINDOW + 2 * MINUTE);
    assert_eq!(sweep(&gateway).await.expired, 1);
    let over = world.get(&upload.id).await;
    assert_eq!(over.phase, Phase::Aborted);
    assert!(!world.has_session(&over).await);
}

async fn a_running_stream_keeps_its_upload(world: World) {
    // A stream sends three heartbeats in this time.
    let settings = Settings {
        upload_expiry: Duration::from_millis(300),
        ..settings()
    };
    let storages = world.backends.storages.clone();
    let gateway = world.gateway_with(settings, world.clock.clone(), storages);
    let gateway = gateway.await;
    let stream = world.stream(&gateway, PART + 1).await;
    for step in [HOUR, DAY, 6 * DAY] {
        world.clock.advance(step);
        let now = world.clock.now();
        let shown = async || world.get(&stream.id).await.updated_at;
        while shown().await < now {
            tokio::task::yield_now().await;
        }
        let report = sweep(&gateway).await;
        assert_eq!((report.expired, report.failures), (0, 0), "{report:?}");
        assert_eq!(world.get(&stream.id).await.phase, Phase::Open);
    }
    assert_eq!(stream.committed(), PART as u64);
    let id = stream.id.clone();
    stream.end().await.unwrap_err();
    world.clock.advance(ACTIVE_WINDOW + 2 * MINUTE);
    assert_eq!(sweep(&gateway).await.expired, 1);
    assert_eq!(world.get(&id).await.phase, Phase::Aborted);
}

async fn an_idle_day_is_measured_by_clocks_that_differ(world: World) {
    const APART: Duration = Duration::from_secs(30);
    const STEP: Duration = Duration::from_secs(20);
    let storages = || world.backends.storages.clone();
    let ahead = world.clock.ahead(APART);
    let behind = world.gateway().await;
    let ahead = world.gateway_with(settings(), ahead, storages()).await;
    // One by the slower clock, one by the faster one.
    let slow = world.signed(&behind, 2 * PART).await;
    let fast = world.signed(&ahead, 2 * PART).await;
    assert_eq!(fast.expires_at, slow.expires_at.plus(APART));
    world.clock.advance(DAY - 2 * MINUTE);
    let (mut slow_ended, mut fast_ended) = (None, None);
    while slow_ended.is_none() || fast_ended.is_none() {
        for gateway in [&ahead, &behind] {
            let report = sweep(gateway).await;
            assert_eq!(report.failures, 0);
        }
        for (upload, ended) in [(&slow, &mut slow_ended), (&fast, &mut fast_ended)] {
            if world.get(&upload.id).await.phase == Phase::Aborted {
                ended.get_or_insert(world.clock.now());
            }
        }
        world.clock.advance(STEP);
    }
    let day = |upload: &Upload| upload.created_at.plus(DAY);
    for (upload, ended) in [(&slow, slow_ended), (&fast, fast_ended)] {
        let ended = ended.unwrap();
        // The clock that created the upload may differ from the test's, and the sweeper's again from both.
        let latest = day(upload).plus(2 * MINUTE);
        assert!(
            ended >= day(upload) && ended <= latest,
            "{ended:?} {upload:?}"
        );
    }
}

async fn an_object_that_a_client_made_completes_its_upload(world: World) {
    let gateway = world.gateway().await;
    let upload = world.put_as_client(&gateway).await;
    world.clock.advance(2 * DAY);
    let report = sweep(&gateway).await;
    let expected = SweepReport {
        examined: 1,
        completed: 1,
        ..SweepReport::default()
    };
    assert_eq!(report, expected);
    let complete = world.get(&upload.id).await;
    assert_eq!(complete.phase, Phase::Complete);
    let object = world.store().head(&upload.object_key).await.unwrap();
    assert_eq!(object.unwrap().etag, complete.object.unwrap().etag);
}

async fn an_object_that_is_not_the_uploads_is_deleted_with_it(world: World) {
    let gateway = world.gateway().await;
    let mut upload = world.put_as_client(&gateway).await;
    // As if other bytes had been declared.
    upload.file.file_size = Some(999);
    let updated = world.state().update(&upload, upload.writer).await.unwrap();
    assert_eq!(updated, Update::Updated(2));
    world.clock.advance(2 * DAY);
    let report = sweep(&gateway).await;
    assert_eq!((report.expired, report.failures), (1, 0), "{report:?}");
    assert_eq!(world.get(&upload.id).await.phase, Phase::Aborted);
    let object = world.store().head(&upload.object_key).await.unwrap();
    assert_eq!(object, None);
}

async fn an_upload_that_is_resumed_in_time_is_not_aborted(world: World) {
    let gateway = world.gateway().await;
    let upload = world.interrupted(&gateway, PART).await;
    world.clock.advance(DAY + 30 * MINUTE);
    // It has expired but was not swept: it resumes.
    let caller = Caller::default();
    let claim = Claim {
        number: 2,
        md5: None,
        signed_for: None,
    };
    let report = Report {
        resumable_id: None,
        claims: vec![claim],
    };
    gateway
        .signing
        .report(&caller, &upload.id, report)
        .await
        .unwrap();
    // Like a sweeper that has read the record before.
    let mut aborted = upload.clone();
    let abandoned = Event::Abandoned {
        reason: AbortReason::Expired,
        now: world.clock.now(),
    };
    aborted.apply(abandoned).unwrap();
    let update = world.state().update_untouched(&aborted, upload.updated_at);
    assert!(matches!(update.await.unwrap(), Update::Conflict(_)));
    assert_eq!(sweep(&gateway).await.expired, 0);
    assert_eq!(world.get(&upload.id).await.phase, Phase::Open);
    assert_eq!(world.has_session(&upload).await, world.has_sessions);
}

async fn a_dry_run_changes_nothing(world: World) {
    let gateway = world.gateway().await;
    let idle = world.interrupted(&gateway, PART).await;
    let put = world.put_as_client(&gateway).await;
    world.clock.advance(2 * DAY);
    let before = [world.get(&idle.id).await, world.get(&put.id).await];
    let dry = Sweep {
        dry_run: true,
        ..pass()
    };
    let dry_run = sweep_as(&gateway, &dry).await;
    assert_eq!((dry_run.expired, dry_run.completed), (1, 1), "{dry_run:?}");
    assert_eq!(sweep_as(&gateway, &dry).await, dry_run);
    let after = [world.get(&idle.id).await, world.get(&put.id).await];
    assert_eq!(after, before);
    assert_eq!(world.has_session(&idle).await, world.has_sessions);
    let object = world.store().head(&put.object_key).await.unwrap();
    assert!(object.is_some());
    let done = sweep(&gateway).await;
    let counts = [done.expired, done.completed, done.failures];
    assert_eq!(counts, [1, 1, 0], "it does what the dry run reported");
}

#[tokio::test]
async fn an_upload_that_is_resumed_while_it_is_swept_stays_open() {
    let Some(world) = crate::world::s3().await else {
        return;
    };
    let gateway = world.gateway().await;
    let upload = world.signed(&gateway, 2 * PART).await;
    world.clock.advance(2 * DAY);

    // The sweeper reaches the store through this listener.
    let way = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut storage = world.config.storage[0].clone();
    let StoreConfig::S3(s3) = &mut storage.store else {
        panic!("an S3")
    };
    let store = s3.endpoint.as_ref().unwrap().url().clone();
    let address = format!("http://{}", way.local_addr().unwrap());
    s3.endpoint = Some(address.parse().unwrap());
    let detoured = connect_storage(&storage).await.unwrap();
    let storages = world.backends.storages.clone();
    let storages = storages.with_stores(|_, _| Arc::clone(&detoured));
    let sweeper = world.gateway_with(settings(), world.clock.clone(), storages);
    let sweeper = sweeper.await;

    let id = upload.id.clone();
    tokio::spawn(async move {
        loop {
            let (mut from, _) = way.accept().await.unwrap();
            // The sweeper has read the record and now asks for the object.
            let caller = Caller::default();
            let reported = gateway
                .signing
                .report(&caller, &id, Report::default())
                .await;
            reported.unwrap();
            let store = (store.host_str().unwrap(), store.port().unwrap());
            let mut to = TcpStream::connect(store).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut from, &mut to).await });
        }
    });
    let report = sweep(&sweeper).await;
    assert_eq!((report.expired, report.failures), (0, 0), "{report:?}");
    let kept = world.get(&upload.id).await;
    assert_eq!(kept.phase, Phase::Open);
    assert!(kept.updated_at > upload.updated_at);
    assert!(world.has_session(&kept).await);
}
