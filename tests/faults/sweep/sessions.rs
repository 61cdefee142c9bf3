//! Sessions without a record. Their age is measured by the store, whose clock the tests cannot change.

use std::{collections::BTreeSet, time::Duration};

use upload_gateway_core::{
    blobs::Session,
    gateway::{Gateway, Sweep},
    upload::{Phase, UploadId},
};

use super::{
    for_each_store,
    world::{DAY, HOUR, PART, World, pass, sweep, sweep_as},
};

for_each_store!(
    only_old_sessions_without_a_record_are_ended,
    an_upload_that_the_index_lost_is_found_by_its_session,
    a_record_of_an_unknown_format_is_left_alone,
);

/// A pass to which every session is old.
fn any_age() -> Sweep {
    Sweep {
        session_age: Some(Duration::ZERO),
        ..pass()
    }
}

/// Sweeps until all sessions are old: stores report times in whole seconds.
async fn sweep_any_age(gateway: &Gateway, expected: u64) {
    let mut aborted = 0;
    while aborted < expected {
        let report = sweep_as(gateway, &any_age()).await;
        assert_eq!(report.failures, 0);
        aborted += report.aborted_sessions;
    }
    assert_eq!(aborted, expected);
}

async fn open(world: &World, sessions: &[(String, String)]) -> BTreeSet<String> {
    let mut open = BTreeSet::new();
    for (key, id) in sessions {
        let session = Session {
            key,
            id,
            scope: None,
        };
        if world.store().list_parts(&session).await.unwrap().is_some() {
            open.insert(key.clone());
        }
    }
    open
}

async fn only_old_sessions_without_a_record_are_ended(world: World) {
    let gateway = world.gateway().await;
    let live = world.interrupted(&gateway, PART).await;
    let prefix = match world.prefix() {
        prefix if prefix.is_empty() => prefix,
        prefix => format!("{prefix}/"),
    };
    let id = UploadId::generate(None);
    let orphan = format!("{prefix}{id}/film.mp4");
    let foreign = [
        format!("elsewhere/{id}/film.mp4"),
        format!("{prefix}uploads-of-mine/film.mp4"),
        format!("{prefix}{id}/deeper/film.mp4"),
        format!("{prefix}{id}"),
        format!("x{prefix}{id}/film.mp4"),
    ];
    let mut sessions = Vec::new();
    for key in foreign.iter().chain([&orphan, &live.object_key]) {
        sessions.push((key.clone(), world.begin(key).await));
    }
    let all: BTreeSet<_> = sessions.iter().map(|(key, _)| key.clone()).collect();
    // Also if the gateway's clock is far ahead.
    world.clock.advance(HOUR);
    assert_eq!(sweep(&gateway).await.aborted_sessions, 0);
    if !world.has_sessions {
        assert!(sweep_as(&gateway, &any_age()).await.is_idle());
        return;
    }
    assert_eq!(open(&world, &sessions).await, all);

    let dry = Sweep {
        dry_run: true,
        ..any_age()
    };
    while sweep_as(&gateway, &dry).await.aborted_sessions < 2 {}
    assert_eq!(open(&world, &sessions).await, all);
    // The orphaned session, and the second session of the live upload's key.
    sweep_any_age(&gateway, 2).await;
    assert_eq!(open(&world, &sessions).await, foreign.into());
    assert!(world.has_session(&live).await);
    assert_eq!(world.get(&live.id).await, live);
}

async fn an_upload_that_the_index_lost_is_found_by_its_session(world: World) {
    let gateway = world.gateway().await;
    let lost = world.interrupted(&gateway, PART).await;
    let Some(redis) = &world.config.redis_url else {
        return;
    };
    let client = redis::Client::open(redis.expose()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let removed: u32 = redis::cmd("DEL")
        .arg(format!("{}due", world.config.redis.key_prefix))
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(removed, 1);
    world.clock.advance(2 * DAY);
    assert!(sweep(&gateway).await.is_idle());
    assert_eq!(world.get(&lost.id).await.phase, Phase::Open);
    if world.has_sessions {
        while sweep_as(&gateway, &any_age()).await.expired == 0 {}
        assert_eq!(world.get(&lost.id).await.phase, Phase::Aborted);
        assert!(!world.has_session(&lost).await);
    }
}

async fn a_record_of_an_unknown_format_is_left_alone(world: World) {
    let gateway = world.gateway().await;
    let upload = world.interrupted(&gateway, PART).await;
    let Some(redis) = &world.config.redis_url else {
        return;
    };
    let prefix = &world.config.redis.key_prefix;
    let key = format!("{prefix}upload:{{{}}}:{}", upload.id.tag(), upload.id);
    let client = redis::Client::open(redis.expose()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let set = |format: &str| {
        let mut set = redis::cmd("HSET");
        set.arg(&key).arg("format").arg(format);
        set
    };
    let mut present = redis::cmd("HGET");
    present.arg(&key).arg("format");
    let present: String = present.query_async(&mut connection).await.unwrap();
    let () = set("unknown").query_async(&mut connection).await.unwrap();
    world.clock.advance(10 * DAY);
    // Once as an upload that is due, and once, if the store has sessions, as the owner of an old session.
    let expected = if world.has_sessions { 2 } else { 1 };
    let mut report = sweep_as(&gateway, &any_age()).await;
    while report.failures < expected {
        report = sweep_as(&gateway, &any_age()).await;
    }
    assert_eq!((report.expired, report.aborted_sessions), (0, 0));
    let () = set(&present).query_async(&mut connection).await.unwrap();
    assert_eq!(world.get(&upload.id).await, upload);
    assert_eq!(world.has_session(&upload).await, world.has_sessions);
}
