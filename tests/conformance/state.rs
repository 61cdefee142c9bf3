//! The contract that every state store keeps: each case is one test per adapter. Contracts of one adapter are beside
//! it.

mod cases;
mod changes;
mod claims;
mod ended;
mod formats;
mod indexes;
mod listings;
mod memory;
mod model;
mod parts;
mod redb_only;
mod redis_compact;
mod redis_full;
mod redis_indexes;
mod redis_notices;
mod redis_only;
mod redis_outages;
mod redis_round_trips;
mod redis_tls;
mod replicas;
pub(crate) mod samples;
mod sweeping;
mod takeovers;
mod upgrade;

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tempfile::TempDir;
use upload_gateway::state::{
    redb::Redb,
    redis::{Redis, RedisConfig, RedisMode},
};

use crate::common;

/// Makes one test of each case for one adapter; `$open` returns a new store and what keeps its server running.
macro_rules! adapter {
    ($adapter:ident, $open:path, $($module:ident [$($case:ident)*])*) => {
        mod $adapter {
            $($(
                #[tokio::test]
                async fn $case() {
                    let Some((store, _backend)) = $open().await else { return };
                    super::$module::$case(&store).await;
                }
            )*)*
        }
    };
}

macro_rules! adapters {
    ($($module:ident [$($case:ident),* $(,)?])*) => {
        adapter!(redb, super::fresh_redb, $($module [$($case)*])*);
        adapter!(redis, super::fresh_redis, $($module [$($case)*])*);
        adapter!(redis_cluster, super::fresh_cluster, $($module [$($case)*])*);
    };
}

adapters! {
    parts [
        resume_after_a_lost_reply,
        another_writer_records_nothing,
        only_the_contiguous_prefix_is_committed,
        a_part_replaces_another_one_of_its_number,
        a_receipt_of_any_shape_reads_back_equal,
        a_receipt_longer_than_1024_bytes_is_an_error_of_the_store,
        only_digest_states_that_a_resume_can_need_are_kept,
        another_part_in_the_committed_prefix_is_counted,
        several_parts_are_recorded_at_once,
        several_parts_of_another_writer_are_not_recorded,
        ten_thousand_parts_are_recorded_at_once,
        parts_are_recorded_only_in_phase_open,
        a_record_older_than_the_writer_knows_accepts_no_parts,
        parts_of_a_missing_record_are_missing,
        fifty_concurrent_parts_are_all_recorded,
        ten_thousand_parts_read_back,
        a_record_that_ends_while_it_is_read_is_whole_or_ended,
    ]
    cases [
        a_created_record_reads_back_equal,
        an_unknown_id_is_not_found,
        the_same_fingerprint_finds_the_live_upload,
        a_committing_upload_keeps_its_fingerprint,
        an_upload_that_has_ended_releases_its_fingerprint,
        create_repeated_after_a_lost_reply_is_created,
        concurrent_creates_make_one_upload,
        an_update_by_another_writer_is_a_conflict,
        a_take_over_drops_parts_after_a_gap_and_fences_the_older_writer,
        a_take_over_of_a_closed_upload_changes_nothing,
        an_update_of_an_older_version_returns_the_current_record,
        update_repeated_after_a_lost_reply_is_updated,
        a_take_over_is_not_taken_for_a_repeated_update,
        an_update_replaces_all_but_the_parts_and_claims,
        writes_set_the_times,
        the_first_secret_offered_stays,
        a_working_store_passes_the_check,
    ]
    ended [
        an_upload_that_has_ended_keeps_no_parts_and_claims,
        an_upload_whose_file_is_deleted_is_not_listed,
        a_rebuilt_record_is_created_listed_and_due,
        an_upload_that_has_ended_is_kept_until_its_time,
    ]
    listings [
        a_listing_shows_the_newest_first_and_only_the_owners,
        pages_lose_and_repeat_nothing_across_equal_times,
        a_page_can_skip_entries,
        a_listing_summarises_parts,
        a_summary_has_the_counts_and_the_last_committed_part,
        committed_parts_are_listed_in_pages,
        a_count_is_of_the_owners_uploads,
        live_uploads_of_all_owners_are_counted,
        an_identical_upload_is_found_while_it_is_live,
        a_tenants_listing_has_the_uploads_of_all_its_owners,
        an_owner_with_too_many_live_uploads_creates_no_other,
        concurrent_creates_do_not_exceed_the_limit_of_an_owner,
        an_upload_given_to_another_owner_leaves_the_first_one,
    ]
    indexes [
        refused_writes_leave_the_entries_of_what_is_stored,
        each_index_has_its_uploads_in_its_order,
        equal_times_and_names_lose_and_repeat_nothing,
        a_selection_has_a_range_of_times,
        uploads_of_several_phases_are_in_one_order,
        a_position_of_another_query_finds_nothing_or_something,
        entries_follow_their_record,
        an_entry_has_what_filters_need,
        summaries_come_in_the_order_of_the_ids,
    ]
    claims [
        a_claim_is_stored_and_changes_only_the_times,
        concurrent_claims_are_all_stored,
        a_claim_without_an_md5_keeps_the_one_before,
        the_last_claim_of_a_number_in_one_call_counts,
        a_claim_returns_the_parts_of_its_numbers,
        a_claim_that_a_recorded_part_contradicts_is_not_stored,
        another_owner_claims_nothing,
        owners_whose_joined_names_are_equal_are_distinguished,
        a_claim_outside_the_plan_is_not_stored,
        an_upload_of_unknown_size_stores_no_claims,
        claims_are_stored_once_the_size_is_known,
        an_upload_that_is_not_open_stores_no_claims,
        claims_survive_all_other_writes,
        a_claim_does_not_hide_a_repeated_update,
        fifty_thousand_claims_in_one_call_are_stored,
        another_md5_of_a_signed_part_begins_a_new_cut,
        a_report_replaces_a_signed_md5_only_if_the_plan_is_fixed,
        an_update_keeps_a_cut_that_began_meanwhile,
        an_unproven_part_is_proven_when_it_is_signed_again,
    ]
    sweeping [
        due_uploads_are_listed_completely_and_earliest_first,
        prolonging_an_upload_postpones_its_due_time,
        recording_no_parts_is_a_heartbeat,
        age_makes_an_upload_due_although_it_changes,
        a_commit_is_due_when_its_lease_ends,
        an_upload_that_has_ended_is_never_due,
        an_aborted_upload_is_due_once_more,
        an_upload_that_was_resumed_meanwhile_is_not_updated,
        an_untouched_upload_is_updated_also_after_a_lost_reply,
        a_lease_has_one_holder,
        notes_are_replaced_only_by_those_who_have_seen_them,
        a_lease_expires,
    ]
    memory [
        a_complete_record_is_removed_with_all_its_entries,
        a_record_that_has_changed_is_not_removed,
    ]
    changes [
        watchers_are_notified_of_every_change,
    ]
    takeovers [
        watchers_are_notified_of_every_take_over,
        a_take_over_from_another_writer_changes_nothing,
        a_take_over_repeated_after_a_lost_reply_is_taken,
        only_the_writer_can_send_a_heartbeat,
    ]
}

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

/// A new key prefix in the cluster that all tests share.
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

/// With time-outs that suffice for many thousand parts in a debug build.
fn config(urls: impl Into<Vec<String>>) -> RedisConfig {
    let urls: Vec<String> = urls.into();
    let mut urls = urls.iter().map(|url| url.parse().unwrap());
    RedisConfig {
        url: urls.next().unwrap(),
        nodes: urls.collect(),
        response_timeout: Duration::from_secs(5),
        call_timeout: Duration::from_secs(10),
        ..RedisConfig::default()
    }
}
