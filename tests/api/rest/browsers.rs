//! Calls from pages of other origins (CORS).

use reqwest::header::ORIGIN;
use upload_gateway::config::Config;

use super::{
    client::{Http, answer, file, text},
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
        for header in ["x-total-count", "content-range", "link", "etag"] {
            assert!(exposed.contains(header), "{exposed}");
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
