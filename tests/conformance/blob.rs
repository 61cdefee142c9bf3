//! Every blob store keeps the contract of `BlobStore`: each case is one test per store.

mod faults;
mod objects;
mod parts;
mod sessions;
mod subject;

macro_rules! conformance {
    ($($area:ident { $($case:ident)* })*) => {
        conformance!(store embedded: $($($area $case)*)*);
        conformance!(store versitygw: $($($area $case)*)*);
        conformance!(store azurite: $($($area $case)*)*);
    };
    (store $store:ident: $($area:ident $case:ident)*) => {
        mod $store {
            $(
                #[tokio::test]
                async fn $case() {
                    let Some(subject) = crate::blob::subject::$store().await else { return };
                    crate::blob::$area::$case(&subject).await;
                }
            )*
        }
    };
}

conformance! {
    parts {
        parts_put_out_of_order_make_the_object_in_order
        a_part_put_again_replaces_itself
        a_damaged_part_is_refused_and_not_kept
        a_wrong_receipt_is_part_replaced
        a_part_that_was_never_put_is_part_replaced
        a_commit_may_be_repeated
        an_unknown_session_is_told_apart_from_an_empty_one
        an_aborted_session_may_be_aborted_again
        another_writer_never_changes_what_a_commit_names
        more_parts_than_one_page_are_listed
        a_commit_keeps_a_proven_digest_where_the_store_can
        an_object_tells_its_parts_where_the_store_can
    }
    objects {
        a_whole_object_is_never_replaced
        a_damaged_object_is_refused_and_not_kept
        an_object_without_a_known_digest_is_put
        an_empty_object_is_an_object
        owner_and_media_type_come_back
        ranges_may_cross_the_borders_of_parts
        what_is_not_there_is_not_found
        keys_come_out_as_they_went_in
    }
    sessions {
        open_sessions_are_listed_until_they_end
        more_sessions_than_one_page_are_listed
    }
    faults {
        a_bucket_that_is_there_passes_the_check
        a_missing_bucket_is_named
        wrong_credentials_are_the_operators_fault
        a_dead_store_is_worth_a_retry
        a_silent_store_is_given_up_in_time
    }
}
