//! Credentials and PEM files of stores and Redis.

use super::{load_text, refusal};

#[test]
fn credentials_and_pem_files_are_checked_and_their_keys_named() {
    let s3 = "[[storage]]\nid = 'a'\nkind = 's3'\nbucket = 'b'\n";
    let azure = "[[storage]]\nid = 'a'\nkind = 'azure'\naccount = 'b'\ncontainer = 'c'\n";
    let file = "ca_file = '/nonexistent/ca.pem'";
    for (text, key) in [
        (
            "[redis]\nmode = 'sentinel'\nservice_name = 'a'\nsentinel_user = 'b'".into(),
            "redis.sentinel_password",
        ),
        (
            "[redis]\nsentinel_password = 'a'".into(),
            "redis.sentinel_password",
        ),
        (format!("[redis]\n{file}"), "redis.ca_file"),
        (format!("{s3}{file}"), "storage.a.ca_file"),
        (format!("{azure}{file}"), "storage.a.ca_file"),
        (format!("{s3}ca_file = 'Cargo.toml'"), "storage.a.ca_file"),
    ] {
        let (message, refused) = refusal(&text);
        assert_eq!(refused, key, "{text}: {message}");
    }
}

#[test]
fn aws_ca_bundle_is_the_ca_file_of_s3_storages() {
    let text = "[[storage]]\nid = 'a'\ndefault = true\nkind = 's3'\nbucket = 'b'\n\
                [[storage]]\nid = 'c'\nkind = 'azure'\naccount = 'd'\ncontainer = 'e'\n";
    let error = load_text(text, &[("AWS_CA_BUNDLE", "/nonexistent/ca.pem")]).unwrap_err();
    assert_eq!(error.key, "storage.a.ca_file");
    assert_eq!(error.origin.as_deref(), Some("AWS_CA_BUNDLE"));
    assert!(error.problem.contains("/nonexistent/ca.pem"), "{error}");
    load_text(text, &[("AWS_CA_BUNDLE", "")]).unwrap();
    let own = text.replacen("'b'", "'b'\nca_file = '/nonexistent/own.pem'", 1);
    let error = load_text(&own, &[("AWS_CA_BUNDLE", "/nonexistent/ca.pem")]).unwrap_err();
    assert!(error.problem.contains("own.pem"), "{error}");
}
