//! Notices of takeovers in Redis: they reach every process, and missed ones are replaced.

use upload_gateway::state::redis::{Redis, RedisConfig};
use upload_gateway_core::state::RecordStore;

use super::{common, config, redis_only::ask, samples::*, takeovers};

/// Waits until `wanted` connections have subscribed to takeovers.
async fn subscribed(url: &str, wanted: u64) {
    let channel = format!("{}takeovers", RedisConfig::default().key_prefix);
    let numbers = redis::cmd("PUBSUB").arg("NUMSUB").arg(channel).to_owned();
    common::until("they have subscribed", async || {
        ask::<(String, u64)>(url, &numbers).await.1 == wanted
    })
    .await;
}

#[tokio::test]
async fn every_process_is_notified_of_a_take_over() {
    let Some((_server, url)) = common::private_redis(&[]) else {
        return;
    };
    let here = Redis::connect(&config([url.clone()])).await.unwrap();
    let there = Redis::connect(&config([url.clone()])).await.unwrap();
    subscribed(&url, 2).await;
    let upload = upload(&owner());
    create(&here, &upload).await;
    let mut watch = there.watch_takeovers(&upload.id);
    for number in 2..5 {
        takeovers::take_over(&here, &upload.id, writer(number)).await;
        takeovers::is_notified(&mut watch, writer(number - 1)).await;
    }
    drop(here);
    subscribed(&url, 1).await;
}

#[tokio::test]
async fn a_broken_subscription_is_renewed_and_missed_take_overs_are_notified() {
    let Some((mut server, url)) = common::private_redis(&[]) else {
        return;
    };
    let store = Redis::connect(&config([url.clone()])).await.unwrap();
    for outage in ["cut", "restarted"] {
        subscribed(&url, 1).await;
        let upload = upload(&owner());
        create(&store, &upload).await;
        let mut watch = store.watch_takeovers(&upload.id);
        if outage == "cut" {
            let kill = ["KILL", "TYPE", "pubsub"];
            ask::<u64>(&url, redis::cmd("CLIENT").arg(&kill)).await;
        } else {
            server.restart();
        }
        takeovers::is_notified(&mut watch, writer(1)).await;
        subscribed(&url, 1).await;
        takeovers::watchers_are_notified_of_every_take_over(&store).await;
    }
}

/// A user without permission for channels: takeovers work, but send no notices.
#[tokio::test]
async fn a_user_that_may_not_publish_can_take_over() {
    let Some((server, url)) = common::private_redis(&[]) else {
        return;
    };
    let user = [
        "SETUSER",
        "gateway",
        "on",
        ">secret",
        "~*",
        "+@all",
        "resetchannels",
    ];
    ask::<()>(&url, redis::cmd("ACL").arg(&user)).await;
    let url = format!("redis://gateway:secret@127.0.0.1:{}", server.port());
    let store = Redis::connect(&config([url])).await.unwrap();
    let upload = upload(&owner());
    create(&store, &upload).await;
    takeovers::take_over(&store, &upload.id, writer(2)).await;
}
