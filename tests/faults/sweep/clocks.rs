//! Replicas whose clocks differ by half a minute: leases, expiry, tokens and listings.

use std::{sync::Arc, time::Duration};

use tokio_stream::wrappers::UnboundedReceiverStream;
use upload_gateway_core::{
    blobs::{COMMIT_TIMEOUT, Session},
    clock::Clock,
    error::{Error, Reason},
    gateway::{
        Caller, Counts, Gateway, Message, Observer, Open, Report, Settings, Takeover, Target,
    },
    state::{ListQuery, Update},
    upload::{Claim, Event, Lease, Phase, Timestamp, Upload, UploadId, WriterTag},
};

use super::{
    for_each_store,
    world::{DAY, MINUTE, PART, World, settings, sweep},
};

/// The difference between the clocks.
const APART: Duration = Duration::from_secs(30);

const SECOND: Duration = Duration::from_secs(1);

for_each_store!(
    activity_on_either_replica_keeps_an_upload,
    a_token_is_valid_until_its_upload_expires_by_either_clock,
    a_listing_in_pages_loses_and_repeats_nothing,
    a_lease_expires_by_the_faster_clock_but_a_missing_object_is_not_lost_yet,
    a_released_lease_delays_no_commit,
);

/// Two gateways: one with the current time, one half a minute ahead.
async fn pair(world: &World, settings: Settings) -> [Arc<Gateway>; 2] {
    let storages = || world.backends.storages.clone();
    let ahead = world.clock.ahead(APART);
    [
        world
            .gateway_with(settings.clone(), world.clock.clone(), storages())
            .await,
        world.gateway_with(settings, ahead, storages()).await,
    ]
}

/// With a short retry time-out: a missing object stays missing.
fn short_retry() -> Settings {
    Settings {
        store_retry_timeout: Duration::from_millis(500),
        ..settings()
    }
}

/// Opens an existing upload and half-closes.
async fn open(gateway: &Arc<Gateway>, id: &UploadId, token: &str) -> Result<Upload, Error> {
    let (messages, queue) = tokio::sync::mpsc::unbounded_channel();
    let open = Message::Open(Open {
        target: Target::Upload(id.clone()),
        restart: false,
        takeover: Takeover::Force,
        resume_token: token.into(),
    });
    messages.send(Ok(open)).unwrap();
    drop(messages);
    // A stream whose caller has disconnected is not opened.
    let (opened, _opening) = tokio::sync::oneshot::channel();
    let (counts, _progress) = tokio::sync::watch::channel(Counts::default());
    let observer = Observer::new(opened, counts);
    let mut queue = UnboundedReceiverStream::new(queue);
    let gateway = Arc::clone(gateway);
    gateway
        .streams
        .receive(
            &Caller::default(),
            gateway.streams.memory(&Caller::default()),
            &mut queue,
            observer,
        )
        .await
}

/// Reports reach both gateways in turn, and both sweep after each one.
async fn activity_on_either_replica_keeps_an_upload(world: World) {
    const STEP: Duration = Duration::from_secs(6 * 60 * 60);
    let gateways = pair(&world, settings()).await;
    let upload = world.signed(&gateways[0], 2 * PART).await;
    let caller = Caller::default();
    for step in 0..12 {
        let report = Report {
            resumable_id: None,
            claims: vec![Claim {
                number: 1,
                md5: None,
                signed_for: None,
            }],
        };
        let reported = gateways[step % 2]
            .signing
            .report(&caller, &upload.id, report);
        let expires_at = reported.await.unwrap().expires_at;
        let now = world.clock.now();
        assert!(expires_at >= now.plus(DAY) && expires_at <= now.plus(DAY + APART));
        world.clock.advance(STEP);
        for gateway in &gateways {
            assert!(sweep(gateway).await.is_idle());
        }
    }
    // The gateway with the faster clock received the last report.
    world.clock.advance(DAY - STEP + APART);
    for gateway in &gateways {
        assert!(sweep(gateway).await.is_idle(), "swept early");
    }
    world.clock.advance(MINUTE);
    assert_eq!(sweep(&gateways[0]).await.expired, 1);
}

async fn a_token_is_valid_until_its_upload_expires_by_either_clock(world: World) {
    let [behind, ahead] = pair(&world, settings()).await;
    let upload = world.interrupted(&behind, PART + 1).await;
    let token = behind.tokens.resume_token(&upload).await.unwrap();
    let reason = async |gateway: &Arc<Gateway>| {
        let opened = open(gateway, &upload.id, &token).await;
        opened.unwrap_err().reason()
    };
    world.clock.advance(DAY - APART - SECOND);
    assert_eq!(reason(&ahead).await, Reason::Incomplete);
    // At most this much early by one clock, and at most this much late by the other one.
    world.clock.advance(SECOND);
    assert_eq!(reason(&ahead).await, Reason::InvalidToken);
    world.clock.advance(APART - SECOND);
    assert_eq!(reason(&behind).await, Reason::Incomplete);
    world.clock.advance(SECOND);
    assert_eq!(reason(&behind).await, Reason::InvalidToken);
    // Without the token the upload is still found.
    assert_eq!(
        open(&behind, &upload.id, "").await.unwrap_err().reason(),
        Reason::Incomplete
    );
}

async fn a_listing_in_pages_loses_and_repeats_nothing(world: World) {
    let gateways = pair(&world, settings()).await;
    let mut made = Vec::new();
    for number in 0..12 {
        let upload = world.signed(&gateways[number % 2], 2 * PART).await;
        made.push((upload.created_at, upload.id));
        world.clock.advance(SECOND);
    }
    let mut listed = Vec::new();
    let mut query = ListQuery {
        listing: Caller::default().owner.into(),
        after: None,
        skip: 0,
        limit: 5,
    };
    loop {
        let page = world.state().list(&query).await.unwrap();
        listed.extend(
            page.uploads
                .into_iter()
                .map(|found| (found.created_at, found.id)),
        );
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    let newest_first: Vec<Timestamp> = listed.iter().map(|(at, _)| *at).collect();
    assert!(newest_first.is_sorted_by(|newer, older| newer >= older));
    listed.sort();
    made.sort();
    assert_eq!(listed, made);
}

/// An upload whose committer ended without an object in the store, with a lease by the slower clock.
async fn committing(world: &World, gateway: &Arc<Gateway>, until: Timestamp) -> Upload {
    let mut upload = world.interrupted(gateway, 2 * PART + 1).await;
    let started = Event::CommitStarted {
        lease: Lease {
            holder: WriterTag::random(),
            until,
        },
        now: world.clock.now(),
        file_size: 2 * PART as u64 + 1,
        runs_until: until.plus(COMMIT_TIMEOUT),
    };
    upload.apply(started).unwrap();
    let updated = world.state().update(&upload, upload.writer).await.unwrap();
    assert!(matches!(updated, Update::Updated(_)));
    world.get(&upload.id).await
}

async fn a_lease_expires_by_the_faster_clock_but_a_missing_object_is_not_lost_yet(world: World) {
    if !world.has_sessions {
        return;
    }
    let [behind, ahead] = pair(&world, short_retry()).await;
    let lease = 3 * APART;
    let upload = committing(&world, &behind, world.clock.now().plus(lease)).await;
    let session = Session {
        key: &upload.object_key,
        id: upload.session.as_ref().unwrap(),
        scope: None,
    };
    world.store().abort(&session).await.unwrap();
    world.clock.advance(lease - APART + SECOND);
    let early = open(&ahead, &upload.id, "").await.unwrap_err();
    assert_eq!(early.reason(), Reason::StoreUnavailable);
    assert_eq!(world.get(&upload.id).await.phase, Phase::Committing);
    // Until then the commit of the first committer can run in the store.
    world.clock.advance(COMMIT_TIMEOUT + 2 * APART + SECOND);
    let late = open(&ahead, &upload.id, "").await.unwrap_err();
    assert_eq!(late.reason(), Reason::SessionLost);
    assert_eq!(world.get(&upload.id).await.phase, Phase::Aborted);
}

async fn a_released_lease_delays_no_commit(world: World) {
    let [behind, ahead] = pair(&world, short_retry()).await;
    let given_back = Timestamp(0);
    for gateway in [&ahead, &behind] {
        let upload = committing(&world, &ahead, given_back).await;
        assert_eq!(world.get(&upload.id).await.lease.unwrap().until, given_back);
        let complete = open(gateway, &upload.id, "").await.unwrap();
        assert_eq!(complete.phase, Phase::Complete);
    }
}
