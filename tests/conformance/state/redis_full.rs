//! A Redis server whose memory is full: uploads can still be ended, which makes room.

use std::time::Duration;

use redis::Cmd;
use upload_gateway::state::redis::Redis;
use upload_gateway_core::{
    error::{Kind, Reason},
    state::{Creation, MemoryStore, PartRecord, PartStore, RecordStore, ScheduleStore, Update},
    upload::{AbortReason, Event, Upload},
};

use super::{common, config, ended::complete, redis_only::ask, samples::*};

fn set_memory_limit(bytes: u64) -> Cmd {
    redis::cmd("CONFIG")
        .arg("SET")
        .arg("maxmemory")
        .arg(bytes)
        .to_owned()
}

pub(crate) async fn used_memory(url: &str) -> u64 {
    let report: String = ask(url, redis::cmd("INFO").arg("memory")).await;
    let line = report
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn uploads_can_be_ended_in_full_memory_and_make_room() {
    let Some((_server, url)) = common::private_redis(&[]) else {
        return;
    };
    let store = Redis::connect(&config([url.clone()])).await.unwrap();
    let mut uploads = Vec::new();
    for number in 0..100 {
        let upload = Upload {
            parts: (1..=1_000).map(part).collect(),
            claims: (1..=1_000).map(claim).collect(),
            ..sized(findable(&owner(), &number.to_string()), 1_000)
        };
        create(&store, &upload).await;
        uploads.push(upload);
    }
    let full = used_memory(&url).await;
    // Less than is used, also after the buffers of connections have shrunk.
    ask::<()>(&url, &set_memory_limit(full - 500_000)).await;

    let refused = store.create(&upload(&owner()), u64::MAX).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.reason()),
        (Kind::ResourceExhausted, Reason::StateFull)
    );
    let parts = [part(1_000)];
    let refused = store.record_parts(&uploads[0].id, writer(1), 0, &parts, times());
    assert_eq!(refused.await.unwrap_err().reason(), Reason::StateFull);
    // What the sweeper needs.
    assert!(
        store
            .lease("sweep", "a", Duration::from_secs(9))
            .await
            .unwrap()
    );
    store.due(uploads[0].expires_at, None, 10).await.unwrap();

    for upload in &mut uploads {
        let abandoned = Event::Abandoned {
            reason: AbortReason::Deleted,
            now: now(),
        };
        upload.apply(abandoned).unwrap();
        let ended = store.update(upload, Some(writer(1))).await.unwrap();
        assert_eq!(ended, Update::Updated(2));
        upload.version = 2;
        assert_eq!(get(&store, &upload.id).await, *upload);
    }
    let left = used_memory(&url).await;
    assert!(left + 4_000_000 < full, "{full} bytes before, {left} after");
    let again = upload(&owner());
    assert_eq!(
        store.create(&again, u64::MAX).await.unwrap(),
        Creation::Created
    );
    let parts = [part(1)];
    let recorded = store.record_parts(&again.id, writer(1), 0, &parts, times());
    assert_eq!(
        recorded.await.unwrap(),
        PartRecord::Recorded { committed: 1 }
    );
}

#[tokio::test]
async fn records_of_complete_uploads_are_removed_in_full_memory() {
    let Some((_server, url)) = common::private_redis(&[]) else {
        return;
    };
    let store = Redis::connect(&config([url.clone()])).await.unwrap();
    let mut uploads = Vec::new();
    for _ in 0..1_000 {
        uploads.push(complete(&store).await);
    }
    let unlimited = store.memory().await.unwrap().unwrap();
    assert_eq!((unlimited.max, unlimited.limit(None)), (None, None));
    let full = used_memory(&url).await - 500_000;
    ask::<()>(&url, &set_memory_limit(full)).await;
    let memory = store.memory().await.unwrap().unwrap();
    assert_eq!(memory.limit(None), Some(full / 2));
    assert_eq!(memory.limit(Some(9)), Some(9));
    assert!(memory.used > full);

    let refused = store.create(&upload(&owner()), u64::MAX).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::StateFull);
    for upload in &uploads {
        assert!(store.remove(upload).await.unwrap());
    }
    let created = store.create(&upload(&owner()), u64::MAX).await.unwrap();
    assert_eq!(created, Creation::Created);
}
