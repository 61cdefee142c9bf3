//! The contract that every blob store keeps: each case is one test per store.

mod copies;
mod faults;
mod objects;
mod parts;
mod sessions;
mod subject;

macro_rules! conformance {
    ({ $($area:ident { $($case:ident)* })* } with md5 only { $($other:ident { $($only:ident)* })* }) => {
        conformance!(store embedded: $($($area $case)*)* $($($other $only)*)*);
        conformance!(store versitygw: $($($area $case)*)* $($($other $only)*)*);
        conformance!(store azurite: $($($area $case)*)* $($($other $only)*)*);
        conformance!(store memory_azure: $($($area $case)*)* $($($other $only)*)*);
        conformance!(store embedded_crc64: $($($area $case)*)*);
        conformance!(store versitygw_crc64: $($($area $case)*)*);
        conformance!(store azurite_crc64: $($($area $case)*)*);
        conformance!(store memory_azure_crc64: $($($area $case)*)*);
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
    {
        parts {
            parts_put_out_of_order_make_the_object_in_order
            a_part_put_again_replaces_itself
            a_damaged_part_is_refused_and_not_kept
            a_wrong_receipt_is_part_replaced
            a_part_that_was_never_put_is_part_replaced
            a_commit_may_be_repeated
            an_unknown_session_is_distinguished_from_an_empty_one
            an_aborted_session_may_be_aborted_again
            another_writer_never_changes_what_a_commit_names
            more_parts_than_one_page_are_listed
            a_commit_keeps_a_proven_digest_if_the_store_can
            an_object_lists_its_parts_if_the_store_can
        }
        objects {
            a_whole_object_is_never_replaced
            a_damaged_object_is_refused_and_not_kept
            an_object_without_a_known_digest_is_put
            an_empty_object_is_an_object
            owner_and_media_type_are_returned
            ranges_can_cross_part_boundaries
            a_placement_is_kept
            a_placement_that_was_left_out_is_set
            a_missing_object_is_not_found
            an_object_is_replaced
            keys_are_listed_by_prefix_and_in_pages
            only_the_object_with_the_etag_is_read
            keys_are_kept_unchanged
        }
        sessions {
            open_sessions_are_listed_until_they_end
            more_sessions_than_one_page_are_listed
        }
    }
    with md5 only {
        copies {
            an_object_is_copied_with_the_metadata_of_the_copy
            parts_are_copied_from_ranges_of_an_object
            only_the_source_with_the_etag_is_copied
            a_copied_part_with_other_bytes_is_noticed
            a_source_that_does_not_exist_is_refused
            the_address_of_a_source_is_not_printed
        }
        faults {
            an_existing_bucket_passes_the_check
            a_missing_bucket_is_named
            wrong_credentials_are_an_error_for_the_operator
            an_unreachable_store_is_retryable
            a_store_that_does_not_answer_times_out
        }
    }
}
