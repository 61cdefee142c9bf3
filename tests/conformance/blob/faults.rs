//! Stores with a wrong configuration, and stores that cannot be reached.

use upload_gateway_core::{
    blobs::{BlobStore, Session},
    error::{Error, Kind},
    upload::WriterTag,
};

use super::subject::{Broken, Subject};

pub(crate) async fn an_existing_bucket_passes_the_check(subject: &Subject) {
    subject.store.check().await.unwrap();
}

pub(crate) async fn a_missing_bucket_is_named(subject: &Subject) {
    let store = subject.broken(Broken::MissingBucket).await;
    let error = store.check().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal, "{error:?}");
    assert!(error.to_string().contains("absent"), "{error}");
    assert!(error.operator_code().is_some(), "{error:?}");
    let error = put_part(&*store, subject).await;
    assert!(error.is_retryable(), "{error:?}");
    assert!(error.operator_code().is_some(), "{error:?}");
}

pub(crate) async fn wrong_credentials_are_an_error_for_the_operator(subject: &Subject) {
    let store = subject.broken(Broken::WrongCredentials).await;
    let error = store.check().await.unwrap_err();
    assert!(error.to_string().contains("credentials"), "{error}");
    assert!(error.operator_code().is_some(), "{error:?}");
    for error in [
        put_part(&*store, subject).await,
        store.head("key").await.unwrap_err(),
    ] {
        assert!(error.is_retryable(), "{error:?}");
        assert!(error.operator_code().is_some(), "{error:?}");
    }
}

pub(crate) async fn an_unreachable_store_is_retryable(subject: &Subject) {
    let store = subject.broken(Broken::DeadEndpoint).await;
    for error in [
        store.check().await.unwrap_err(),
        put_part(&*store, subject).await,
    ] {
        assert!(error.is_retryable(), "{error:?}");
        let logged = format!("{error:?}").replace("sig=[redacted]", "");
        assert!(!logged.contains("sig="), "{logged}");
    }
}

pub(crate) async fn a_store_that_does_not_answer_times_out(subject: &Subject) {
    let (_listener, store) = subject.silent().await;
    let error = put_part(&*store, subject).await;
    assert!(error.is_retryable(), "{error:?}");
}

/// The error of a part that cannot be put.
async fn put_part(store: &dyn BlobStore, subject: &Subject) -> Error {
    let object = subject.object();
    let session = Session {
        key: &object.key,
        id: "00000000-0000-0000-0000-000000000000",
        scope: None,
    };
    let part = subject.part(WriterTag::random(), 1, b"part");
    store.put_part(&session, part).await.unwrap_err()
}
