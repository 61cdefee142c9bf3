//! Notices of takeovers in Redis: heard in every process, and made up for where they were missed.

use upload_gateway::state::redis::{Redis, RedisConfig};
use upload_gateway_core::state::RecordStore;

use super::{common, config, redis_only::ask, samples::*, takeovers};

/// Waits until so many have subscribed to takeovers.
async fn subscribed(url: &str, wanted: u64) {
    let channel = format!("{}takeovers", RedisConfig::default().key_prefix);
    let numbers = redis::cmd("PUBSUB").arg("NUMSUB").arg(channel).to_owned();
    common::until("they have subscribed", async || {
        ask::<(String, u64)>(url, &numbers).await.1 == wanted
    })
    .await;
}

#[tokio::test]
async fn a_take_over_is_heard_in_every_process() {
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
        takeovers::hears(&mut watch, writer(number - 1)).await;
    }
    drop(here);
    subscribed(&url, 1).await;
}

#[tokio::test]
async fn a_subscription_that_broke_is_made_again_and_what_was_missed_is_told() {
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
        takeovers::hears(&mut watch, writer(1)).await;
        subscribed(&url, 1).await;
        takeovers::who_watches_hears_of_every_take_over(&store).await;
    }
}

/// A user without the right to channels: takeovers work, only nobody hears of them.
#[tokio::test]
async fn a_user_that_may_not_publish_takes_over_all_the_same() {
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
