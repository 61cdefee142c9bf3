//! Signed requests, sent with plain HTTP and without credentials, do what they were signed for and nothing else.

mod azure;
mod client;
mod flow;
mod python;
mod s3;
mod subject;

/// One test per case and store.
macro_rules! on {
    ($room:ident: $($store:ident)*: $cases:tt) => { $(on!(@store $room $store $cases);)* };
    (@store $room:ident $store:ident { $($case:ident)* }) => {
        mod $store {
            $(
                #[tokio::test]
                async fn $case() {
                    let Some(subject) = crate::signatures::subject::$store().await else { return };
                    crate::signatures::$room::$case(&subject).await;
                }
            )*
        }
    };
}

mod everywhere {
    on!(flow: embedded versitygw azurite: {
        a_file_is_put_whole
        an_empty_file_is_put_whole
        a_file_of_unknown_digest_is_put_once
        parts_become_a_file_without_any_credentials
        a_list_names_the_stored_parts
        a_download_has_the_name_of_the_file
        the_headers_of_a_download_can_be_read
        an_expired_signature_is_refused
        bytes_that_differ_from_the_signature_are_refused
    });
}

mod bound_by_s3 {
    on!(s3: embedded versitygw: {
        a_signed_part_cannot_be_put_elsewhere
        the_headers_of_a_part_are_bound
        the_length_of_an_object_is_bound
        the_headers_of_an_object_are_bound
        a_list_shows_no_other_upload
        a_signed_request_does_not_copy_another_object
        the_body_of_a_commit_is_free
        a_download_keeps_its_type
    });
}

mod bound_by_azure {
    on!(azure: azurite: {
        a_signature_is_for_one_blob
        a_signature_allows_what_it_names
        the_times_of_a_signature_are_bound
        a_block_list_has_the_form_that_placeos_documents
        a_part_has_the_url_that_placeos_documents
        no_request_begins_a_session
    });
}
