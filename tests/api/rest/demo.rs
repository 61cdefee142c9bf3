//! The demo page of a gateway on its embedded stores.

use super::{
    client::{Answer, Http, answer, file, text},
    common::{TestGateway, stores},
};

async fn get(http: &Http, path: &str) -> Answer {
    answer(http.request_at("GET", path)).await
}

#[tokio::test]
async fn the_page_and_its_modules_may_connect_to_the_api_and_the_store_only() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    let redirect = get(&http, "/demo").await;
    assert_eq!(
        (redirect.status, redirect.header("location")),
        (308, "/demo/")
    );

    let step = http.call("POST", "", file("a.bin", b"bytes")).await.json();
    let signed = text(&step["signature"]["url"]);
    let (store, _) = signed.split_once("/uploads/").unwrap();
    for (name, mime) in [
        ("", "text/html; charset=utf-8"),
        ("page.css", "text/css"),
        ("page.js", "text/javascript"),
        ("upload.js", "text/javascript"),
        ("md5.js", "text/javascript"),
        ("sha256.js", "text/javascript"),
    ] {
        let served = get(&http, &format!("/demo/{name}")).await;
        assert_eq!((served.status, served.header("content-type")), (200, mime));
        let policy = served.header("content-security-policy");
        let connect = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' {store};"
        );
        assert!(policy.starts_with(&connect), "{policy}");
    }
    let announced = format!("demo page at {}/demo/", gateway.http);
    assert!(gateway.announcement.contains(&announced));
}

#[tokio::test]
async fn a_gateway_with_a_configured_storage_has_no_page() {
    let Some(stores) = stores::s3().await else {
        return;
    };
    let gateway = stores.gateway().await;
    let http = Http::of(&gateway);
    for path in ["/demo", "/demo/", "/demo/upload.js"] {
        assert_eq!(get(&http, path).await.status, 404, "{path}");
    }
    assert!(
        !gateway
            .announcement
            .iter()
            .any(|line| line.contains("demo"))
    );
}
