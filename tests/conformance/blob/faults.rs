//! Stores that are badly configured or out of reach.

use upload_gateway_core::{
    blobs::{BlobStore, Session},
    error::{Error, Kind},
    upload::WriterTag,
};

use super::subject::{Broken, Subject, new_part};

pub(crate) async fn a_bucket_that_is_there_passes_the_check(subject: &Subject) {
    subject.store.check().await.unwrap();
}

pub(crate) async fn a_missing_bucket_is_named(subject: &Subject) {
    let store = subject.broken(Broken::MissingBucket).await;
    let error = store.check().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal, "{error:?}");
    assert!(error.to_string().contains("absent"), "{error}");
    let error = put_part(&*store, subject).await;
    assert_eq!(error.kind(), Kind::Internal, "{error:?}");
}

pub(crate) async fn wrong_credentials_are_the_operators_fault(subject: &Subject) {
    let store = subject.broken(Broken::WrongCredentials).await;
    for error in [
        store.check().await.unwrap_err(),
        put_part(&*store, subject).await,
        store.head("key").await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Internal, "{error:?}");
        assert!(error.to_string().contains("credentials"), "{error}");
    }
}

pub(crate) async fn a_dead_store_is_worth_a_retry(subject: &Subject) {
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

pub(crate) async fn a_silent_store_is_given_up_in_time(subject: &Subject) {
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
    };
    let part = new_part(WriterTag::random(), 1, b"part");
    store.put_part(&session, part).await.unwrap_err()
}
