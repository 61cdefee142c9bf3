//! Redis over TLS: authorities, client certificates, and their files.

use std::{path::PathBuf, time::Duration};

use upload_gateway::state::redis::{ConnectError, Redis, RedisConfig};
use upload_gateway_core::{
    error::Kind,
    state::{Creation, RecordStore, StateStore},
    upload::Phase,
};

use super::{common, config, samples::*};

#[tokio::test]
async fn tls_trusts_only_the_authority_of_the_file() {
    let Some(server) = common::redis_tls() else {
        return;
    };
    let unknown = RedisConfig {
        call_timeout: Duration::from_millis(200),
        ..config([server.url.clone()])
    };
    assert!(matches!(
        Redis::connect(&unknown).await.unwrap_err(),
        ConnectError::Failed(_)
    ));
    let missing = RedisConfig {
        ca_file: Some(PathBuf::from("/nowhere.pem")),
        ..unknown.clone()
    };
    assert!(matches!(
        Redis::connect(&missing).await.unwrap_err(),
        ConnectError::Invalid(problem) if problem.contains("ca_file") && problem.contains("/nowhere.pem")
    ));
    let known = RedisConfig {
        ca_file: Some(server.authority_file.clone()),
        ..config([server.url.clone()])
    };
    let store = Redis::connect(&known).await.unwrap();
    let mut upload = upload(&owner());
    create(&store, &upload).await;
    upload.phase = Phase::Aborted;
    store.update(&upload, upload.writer).await.unwrap();
    assert_eq!(
        store.create(&upload, u64::MAX).await.unwrap(),
        Creation::Created
    );
}

#[tokio::test]
async fn a_client_certificate_is_presented_and_read_again_for_a_new_connection() {
    let Some(mut server) = common::redis_tls_for_clients_with_certificates() else {
        return;
    };
    let without = RedisConfig {
        ca_file: Some(server.authority_file.clone()),
        call_timeout: Duration::from_millis(500),
        ..config([server.url.clone()])
    };
    let error = Redis::connect(&without).await.unwrap_err();
    assert!(matches!(error, ConnectError::Failed(_)), "{error:?}");

    let (certificate, key) = &server.client_files;
    let with = RedisConfig {
        client_cert_file: Some(certificate.clone()),
        client_key_file: Some(key.clone()),
        ..without.clone()
    };
    let store = Redis::connect(&with).await.unwrap();
    store.check().await.unwrap();

    let valid = std::fs::read(key).unwrap();
    std::fs::write(key, "being replaced").unwrap();
    server.server.restart();
    let error = store.check().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert!(
        format!("{error:?}").contains("redis.client_key_file"),
        "{error:?}"
    );
    std::fs::write(&server.client_files.1, valid).unwrap();
    store.check().await.unwrap();
}

#[tokio::test]
async fn a_pem_file_that_cannot_be_used_is_named_with_its_key() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let signed = || rcgen::generate_simple_self_signed(["gateway".to_owned()]).unwrap();
    let (one, other) = (signed(), signed());
    let certificate = file("one.pem", &one.cert.pem());
    let key = file("one.key", &one.signing_key.serialize_pem());
    let other_key = file("other.key", &other.signing_key.serialize_pem());
    let text = file("text.pem", "no PEM");
    let missing = Some(directory.path().join("missing.pem"));
    let pair = |certificate: &Option<PathBuf>, key: &Option<PathBuf>| RedisConfig {
        client_cert_file: certificate.clone(),
        client_key_file: key.clone(),
        ..RedisConfig::default()
    };
    let trusting = |ca_file: &Option<PathBuf>| RedisConfig {
        ca_file: ca_file.clone(),
        ..RedisConfig::default()
    };
    pair(&certificate, &key).validate().unwrap();
    for (config, key, problem) in [
        (trusting(&missing), "ca_file", "missing.pem"),
        (
            trusting(&text),
            "ca_file",
            "text.pem must contain certificates",
        ),
        (
            pair(&text, &key),
            "client_cert_file",
            "text.pem must contain",
        ),
        (
            pair(&certificate, &text),
            "client_key_file",
            "text.pem must contain",
        ),
        (
            pair(&certificate, &missing),
            "client_key_file",
            "missing.pem",
        ),
        (
            pair(&certificate, &other_key),
            "client_key_file",
            "does not belong",
        ),
        (pair(&certificate, &None), "client_key_file", "is required"),
        (pair(&None, &key), "client_cert_file", "is required"),
    ] {
        let invalid = config.validate().unwrap_err();
        assert_eq!(invalid.key, key, "{invalid}");
        assert!(invalid.problem.contains(problem), "{invalid}");
    }
}
