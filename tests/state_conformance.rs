//! One suite for every state store: each case is a test per adapter. What only one adapter promises stands beside it.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "common/lib.rs"]
mod common;

#[path = "state_conformance/cases.rs"]
mod cases;
#[path = "state_conformance/model.rs"]
mod model;
#[path = "state_conformance/redb_only.rs"]
mod redb_only;
#[path = "state_conformance/redis_only.rs"]
mod redis_only;
#[path = "state_conformance/samples.rs"]
mod samples;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;
use upload_gateway::state::{
    redb::Redb,
    redis::{Redis, RedisConfig, RedisMode},
};

/// Stamps every case for one adapter; `$open` gives a fresh store and what keeps its server alive.
macro_rules! adapter {
    ($adapter:ident, $open:path, [$($case:ident)*]) => {
        mod $adapter {
            $(
                #[tokio::test]
                async fn $case() {
                    let Some((store, _backend)) = $open().await else { return };
                    super::cases::$case(&store).await;
                }
            )*
        }
    };
}

macro_rules! adapters {
    ($($case:ident),* $(,)?) => {
        adapter!(redb, super::fresh_redb, [$($case)*]);
        adapter!(redis, super::fresh_redis, [$($case)*]);
        adapter!(redis_cluster, super::fresh_cluster, [$($case)*]);
    };
}

adapters![
    a_created_record_reads_back_equal,
    an_unknown_id_reads_as_nothing,
    the_same_fingerprint_finds_the_live_upload,
    a_committing_upload_keeps_its_fingerprint,
    an_upload_that_is_over_releases_its_fingerprint,
    create_repeated_after_a_lost_reply_is_created,
    creates_side_by_side_make_one_upload,
    resume_after_a_lost_reply,
    a_stranger_records_nothing,
    only_the_contiguous_prefix_is_committed,
    a_recorded_part_is_never_replaced,
    parts_come_too_late_after_open,
    parts_of_a_missing_record_are_missing,
    a_take_over_drops_parts_behind_a_gap_and_fences_the_older_writer,
    a_take_over_of_a_closed_upload_changes_nothing,
    an_update_of_an_older_version_gets_the_present_record,
    update_repeated_after_a_lost_reply_is_updated,
    a_take_over_is_no_echo_of_an_update,
    an_update_replaces_all_but_the_parts,
    fifty_parts_side_by_side_are_all_recorded,
    writes_set_the_times,
    ten_thousand_parts_read_back,
    a_listing_shows_the_newest_first_and_only_the_owners,
    pages_lose_and_repeat_nothing_across_equal_times,
    a_listing_can_ask_for_one_phase,
    a_listing_sums_parts_up,
    the_first_secret_offered_stays,
    a_store_that_works_passes_the_check,
];

async fn fresh_redb() -> Option<(Redb, TempDir)> {
    let directory = TempDir::new().unwrap();
    let store = Redb::open(directory.path().join("new/state.redb"))
        .await
        .unwrap();
    Some((store, directory))
}

async fn fresh_redis() -> Option<(Redis, common::RedisBackend)> {
    let backend = common::redis().await?;
    let store = Redis::connect(&config([backend.url.clone()]))
        .await
        .unwrap();
    Some((store, backend))
}

/// A key prefix of its own in the cluster that all tests share.
async fn fresh_cluster() -> Option<(Redis, Arc<common::RedisCluster>)> {
    static SHARED: Mutex<Weak<common::RedisCluster>> = Mutex::new(Weak::new());
    let cluster = {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        match shared.upgrade() {
            Some(cluster) => cluster,
            None => {
                let cluster = Arc::new(common::redis_cluster()?);
                *shared = Arc::downgrade(&cluster);
                cluster
            }
        }
    };
    let config = RedisConfig {
        mode: RedisMode::Cluster,
        key_prefix: format!("{:x}:", rand::random::<u64>()),
        ..config(cluster.urls.clone())
    };
    let store = Redis::connect(&config).await.unwrap();
    Some((store, cluster))
}

fn config(urls: impl Into<Vec<String>>) -> RedisConfig {
    RedisConfig {
        urls: urls.into(),
        ..RedisConfig::default()
    }
}
