//! Authentication over the process: tokens of PyJWT, certificates of openssl, API keys, and the answers to callers without a
//! valid one.

mod guarded;
mod http;
mod tls;
mod uploads;

use std::fs;

use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Code;
use upload_gateway::proto::FILE_DESCRIPTOR_SET;

use self::guarded::{Guarded, reason};
use crate::common;

/// The paths of all calls of the API.
fn paths() -> Vec<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut paths = Vec::new();
    for file in &set.file {
        for service in file
            .service
            .iter()
            .filter(|_| file.package() == "uploadgateway.v1")
        {
            let method = |method: &prost_types::MethodDescriptorProto| {
                format!("/uploadgateway.v1.{}/{}", service.name(), method.name())
            };
            paths.extend(service.method.iter().map(method));
        }
    }
    assert!(paths.len() >= 15, "{paths:?}");
    paths
}

#[tokio::test]
async fn every_call_needs_a_valid_credential() {
    let Some(guarded) = Guarded::start() else {
        return;
    };
    let invalid = guarded.tokens.keys().filter(|name| {
        ![
            "owner",
            "same-tenant",
            "support",
            "admin",
            "operator",
            "other",
        ]
        .iter()
        .any(|valid| name.starts_with(valid))
    });
    let invalid: Vec<&str> = invalid.map(String::as_str).collect();
    assert!(invalid.len() >= 15, "{invalid:?}");
    let mut reflection: Vec<String> = ["v1", "v1alpha"]
        .map(|version| format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"))
        .into();
    reflection.extend(paths());
    for path in reflection {
        let status = guarded.call(&path, None, Vec::new()).await.unwrap_err();
        assert_eq!(reason(&status), "CREDENTIAL_MISSING", "{path}");
        assert_eq!(status.code(), Code::Unauthenticated);
        for name in &invalid {
            let status = guarded.call(&path, Some(name), Vec::new()).await;
            let status = status.unwrap_err();
            let expected = match *name {
                "expired" => "CREDENTIAL_EXPIRED",
                // The file may have been replaced just now.
                "unknown-key" if status.code() == Code::Unavailable => "ISSUER_UNAVAILABLE",
                _ => "CREDENTIAL_INVALID",
            };
            assert_eq!(reason(&status), expected, "{path} {name}");
            assert!(
                !status.message().contains("audience"),
                "{}",
                status.message()
            );
        }
    }
    let health = "/grpc.health.v1.Health/Check";
    guarded.call(health, None, Vec::new()).await.unwrap();
}

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
