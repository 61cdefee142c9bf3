//! Calls from pages of other origins (CORS), and of pages that claim to be the gateway's own.

use std::time::Duration;

use reqwest::header::{HOST, ORIGIN};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use upload_gateway::config::Config;

use super::{
    client::{BASE, Http, UNKNOWN, answer, file, text},
    common::TestGateway,
};

async fn gateway(origins: &[&str]) -> TestGateway {
    let origins = origins
        .iter()
        .map(|origin| origin.parse().unwrap())
        .collect();
    TestGateway::with(|config: &mut Config| config.rest.cors_origins = origins).await
}

#[tokio::test]
async fn a_listed_origin_can_preflight_send_and_read() {
    let gateway = gateway(&["https://app.example", "http://localhost:4200"]).await;
    let http = Http::of(&gateway);
    let preflight = http
        .request("OPTIONS", "/x")
        .header(ORIGIN, "https://app.example")
        .header("Access-Control-Request-Method", "PATCH")
        .header("Access-Control-Request-Headers", "content-type,x-api-key");
    let allowed = answer(preflight).await;
    assert_eq!(allowed.status, 200);
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        "https://app.example"
    );
    let methods = allowed.header("access-control-allow-methods");
    for method in ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"] {
        assert!(methods.contains(method), "{methods}");
    }
    assert_eq!(
        allowed.header("access-control-allow-headers"),
        "content-type,x-api-key"
    );

    for path in ["", "/nowhere/at/all", "/x/url"] {
        let request = http
            .request("GET", path)
            .header(ORIGIN, "http://localhost:4200");
        let listed = answer(request).await;
        assert_eq!(
            listed.header("access-control-allow-origin"),
            "http://localhost:4200"
        );
        let exposed = listed.header("access-control-expose-headers");
        for header in [
            "accept-ranges",
            "content-disposition",
            "content-range",
            "etag",
            "last-modified",
            "link",
            "retry-after",
            "x-request-id",
            "x-total-count",
        ] {
            assert!(exposed.split(',').any(|name| name == header), "{exposed}");
        }
    }
}

#[tokio::test]
async fn other_origins_are_refused_and_by_default_all() {
    for origins in [&["https://app.example"][..], &[]] {
        let gateway = gateway(origins).await;
        let http = Http::of(&gateway);
        let request = http
            .request("GET", "")
            .header(ORIGIN, "https://evil.example");
        let answered = answer(request).await;
        assert_eq!(answered.header("access-control-allow-origin"), "");
    }
}

#[tokio::test]
async fn a_star_allows_every_origin() {
    let gateway = gateway(&["*"]).await;
    let request = Http::of(&gateway)
        .request("GET", "")
        .header(ORIGIN, "https://any.example");
    assert_eq!(
        answer(request).await.header("access-control-allow-origin"),
        "*"
    );
}

#[tokio::test]
async fn the_embedded_s3_accepts_the_pages_that_the_api_accepts_and_its_own() {
    let gateway = gateway(&["https://app.example"]).await;
    let http = Http::of(&gateway);
    let step = http.call("POST", "", file("a.bin", b"bytes")).await.json();
    let url = text(&step["signature"]["url"]);
    let by_name = gateway.http.replace("127.0.0.1", "localhost");
    for (origin, is_allowed) in [
        ("https://app.example", true),
        (&*gateway.http, true),
        (&*by_name, true),
        ("https://evil.example", false),
        ("http://127.0.0.1:1", false),
    ] {
        let preflight = reqwest::Client::new()
            .request(reqwest::Method::OPTIONS, &url)
            .header(ORIGIN, origin)
            .header("Access-Control-Request-Method", "PUT");
        let answered = answer(preflight).await;
        let allowed = answered.header("access-control-allow-origin");
        assert_eq!(allowed, if is_allowed { origin } else { "" });
    }
}

/// The status of a request that is written by hand.
async fn status(gateway: &TestGateway, request: &str) -> u16 {
    let address = gateway.http.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The number of uploads that exist.
async fn uploads(http: &Http) -> usize {
    http.get("").await.json().as_array().unwrap().len()
}

#[tokio::test]
async fn a_page_that_rebinds_its_name_can_neither_read_nor_change() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    let id = http.upload("a.bin", b"private", &json!({})).await;
    let port = gateway.http.rsplit_once(':').unwrap().1;
    let host = format!("evil.example:{port}");
    let one = format!("{BASE}/{id}");
    for (method, path) in [
        ("GET", BASE),
        ("GET", &*format!("{one}/download")),
        ("GET", &*format!("{one}/url")),
        ("POST", BASE),
        ("DELETE", &*one),
        ("OPTIONS", BASE),
        ("GET", "/demo/"),
        ("GET", "/nowhere"),
    ] {
        let request = http
            .request_at(method, path)
            .header(HOST, &host)
            .header(ORIGIN, format!("http://{host}"))
            .header("Sec-Fetch-Site", "same-origin")
            .body(file("b.bin", b"x").to_string());
        assert_eq!(answer(request).await.status, 421, "{method} {path}");
    }
    assert_eq!(uploads(&http).await, 1);
    // Probes name the address of a pod, or anything.
    for path in ["/healthz", "/readyz"] {
        let probe = http.request_at("GET", path).header(HOST, &host);
        assert_eq!(answer(probe).await.status, 200);
    }
}

#[tokio::test]
async fn hosts_of_this_machine_and_listed_ones_are_answered() {
    let gateway = TestGateway::with(|config: &mut Config| {
        config.http_hosts = vec!["Uploads.example".parse().unwrap()];
    })
    .await;
    let http = Http::of(&gateway);
    for (host, expected) in [
        ("localhost:1", 200),
        ("LOCALHOST.", 200),
        ("gateway.localhost", 200),
        ("127.0.0.2:9", 200),
        ("[::1]:8080", 200),
        ("uploads.example.:443", 200),
        ("other.uploads.example", 421),
        ("localhost.evil.example", 421),
        ("10.0.0.1", 421),
    ] {
        let request = http.request("GET", "").header(HOST, host);
        assert_eq!(answer(request).await.status, expected, "{host}");
    }
}

#[tokio::test]
async fn a_request_has_one_host_or_is_http_1_0() {
    let gateway = TestGateway::start().await;
    for (head, expected) in [
        ("HTTP/1.0\r\n", 200),
        ("HTTP/1.0\r\nHost: evil.example\r\n", 421),
        ("HTTP/1.1\r\n", 400),
        ("HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n", 400),
        ("HTTP/1.1\r\nHost: localhost\r\n", 200),
    ] {
        let request = format!("GET {BASE} {head}Connection: close\r\n\r\n");
        assert_eq!(status(&gateway, &request).await, expected, "{head}");
    }
    // Every path needs the header, also those that answer for any host.
    for path in ["/healthz", "/readyz", "/demo/", "/nowhere"] {
        for hosts in ["", "Host: localhost\r\nHost: localhost\r\n"] {
            let request = format!("GET {path} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
            assert_eq!(status(&gateway, &request).await, 400, "{path} {hosts:?}");
        }
    }
    // The host of the target overrides the header.
    let target = format!(
        "GET http://evil.example{BASE} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(status(&gateway, &target).await, 421);
}

/// The preface of HTTP/2 and an empty SETTINGS frame.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn http_2_is_refused_at_once() {
    let gateway = TestGateway::start().await;
    let address = gateway.http.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(HTTP_2).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer));
    // The connection may be reset, as the rest of the bytes was not read.
    let _ = read.await.expect("the connection is closed");
    let is_http_1 = answer.is_empty() || answer.starts_with(b"HTTP/1.1 4");
    assert!(is_http_1, "{answer:?}");
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let gateway = gateway(&["https://app.example"]).await;
    let http = Http::of(&gateway);
    let own = gateway.http.as_str();
    let other_port = "http://127.0.0.1:1";
    let other_scheme = own.replace("http:", "https:");
    for (origin, site, is_allowed) in [
        (None, None, true),
        (None, Some("same-origin"), true),
        (None, Some("none"), true),
        (None, Some("cross-site"), false),
        (Some(own), Some("same-origin"), true),
        (Some(own), Some("cross-site"), false),
        (Some("https://app.example"), Some("cross-site"), true),
        (Some("https://evil.example"), None, false),
        (Some("null"), None, false),
        (Some(other_port), Some("same-site"), false),
        (Some(&*other_scheme), None, false),
        (
            Some("https://app.example, https://evil.example"),
            None,
            false,
        ),
    ] {
        for (method, path, otherwise) in [
            ("POST", "", 201),
            ("PATCH", &*format!("/{UNKNOWN}"), 404),
            ("PUT", &*format!("/{UNKNOWN}"), 404),
            ("DELETE", &*format!("/{UNKNOWN}"), 404),
            (
                "GET",
                &*format!("/{UNKNOWN}/edit?part=1&file_id={}", "0".repeat(32)),
                404,
            ),
        ] {
            let before = uploads(&http).await;
            // As a form or a script sends it without a preflight.
            let mut request = http
                .request(method, path)
                .header("Content-Type", "text/plain")
                .body(match method {
                    "POST" => file(&format!("{before}.bin"), b"x").to_string(),
                    _ => String::new(),
                });
            for (name, value) in [("Origin", origin), ("Sec-Fetch-Site", site)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            let status = answer(request).await.status;
            let expected = if is_allowed { otherwise } else { 403 };
            assert_eq!(status, expected, "{method} {path} {origin:?} {site:?}");
            let made = usize::from(is_allowed && method == "POST");
            assert_eq!(uploads(&http).await, before + made);
        }
        let mut read = http.request("GET", "");
        if let Some(origin) = origin {
            read = read.header(ORIGIN, origin);
        }
        assert_eq!(answer(read).await.status, 200);
    }
}
