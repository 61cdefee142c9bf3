//! Listen addresses with host names.

use upload_gateway::config::{Flags, load};

use super::{load_text, owned, refusal};
use crate::common::binary;

#[test]
fn a_host_name_is_resolved() {
    let text = "grpc_listen = 'localhost:50052'\nhttp_listen = '[::1]:81'\n\
                [embedded]\ns3_listen = 'localhost:9000'";
    let config = load_text(text, &[]).unwrap();
    assert!(config.grpc_listen.ip().is_loopback());
    assert_eq!(config.grpc_listen.port(), 50_052);
    assert_eq!(config.http_listen.to_string(), "[::1]:81");
    assert!(config.embedded.listen.ip().is_loopback());
    assert_eq!(config.embedded.listen.port(), 9_000);

    let variable = ("UPLOAD_GATEWAY_HTTP_LISTEN", "localhost:0");
    let config = load(None, owned(&[variable]), &Flags::default()).unwrap();
    assert!(config.http_listen.ip().is_loopback());
}

#[test]
fn a_name_without_an_address_and_a_malformed_address_are_refused_with_their_keys() {
    let malformed = "expected an address and a port";
    for (text, key, problem) in [
        (
            "grpc_listen = 'gateway.invalid:1'",
            "grpc_listen",
            "cannot resolve gateway.invalid:1",
        ),
        (
            "[embedded]\ns3_listen = 'a.invalid:1'",
            "embedded.s3_listen",
            "cannot resolve a.invalid:1",
        ),
        ("http_listen = 'localhost'", "http_listen", malformed),
        ("http_listen = 'localhost:http'", "http_listen", malformed),
        ("http_listen = ':8080'", "http_listen", malformed),
        ("http_listen = '[::1:8080'", "http_listen", malformed),
    ] {
        let (message, refused) = refusal(text);
        assert_eq!(refused, key, "{message}");
        assert!(message.contains(problem), "{message}");
    }
}

#[test]
fn a_flag_takes_a_host_name() {
    let serve = |address: &str| {
        let mut command = binary();
        command.args(["serve", "--print-config", "--grpc-listen", address]);
        command.output().unwrap()
    };
    let printed = String::from_utf8(serve("localhost:50053").stdout).unwrap();
    assert!(printed.contains(":50053\""), "{printed}");
    let refused = serve("gateway.invalid:1");
    assert!(!refused.status.success());
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("--grpc-listen"), "{message}");
    assert!(message.contains("cannot resolve"), "{message}");
}
