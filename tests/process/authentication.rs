//! Authentication over the process: tokens of PyJWT, certificates of openssl, API keys, and the answers to callers without a
//! valid one.

mod admin;
mod floods;
mod guarded;
mod http;
mod key_server;
mod matrix;
mod ownership;
mod rotation;
mod tls;
mod uploads;

use std::fs;

use crate::common;

#[test]
fn a_gateway_beyond_loopback_needs_authentication_and_encryption() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let key = "[[api_key]]\nid = \"a\"\nsha256 = \"".to_owned()
        + &"0".repeat(64)
        + "\"\ntenant = \"t\"\nsubject = \"s\"\n";
    for (listen, config, expected) in [
        ("0.0.0.0:0", String::new(), "auth = \"required\""),
        (
            "0.0.0.0:0",
            format!("auth = \"required\"\n{key}"),
            "tls.cert_file",
        ),
        ("127.0.0.1:0", "auth = \"required\"\n".into(), "[[api_key]]"),
    ] {
        fs::write(&file, config).unwrap();
        let output = common::binary()
            .args(["serve", "--grpc-listen", listen, "--config"])
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(64));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(expected), "{text}");
    }
}
