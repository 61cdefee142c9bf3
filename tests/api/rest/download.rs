//! Downloads through the gateway, whole and in ranges, and links to the store.

use reqwest::header::{
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use serde_json::json;
use upload_gateway::config::{S3Profile, StorageConfig};

use super::{
    client::{Http, UNKNOWN, answer, file, text},
    common::{self, TestGateway, bytes},
};

#[tokio::test]
async fn a_download_has_the_headers_that_browsers_need() {
    let gateway = TestGateway::start().await;
    let (http, sent) = (Http::of(&gateway), bytes(300_000));
    let id = http.upload("später.pdf", &sent, &json!({})).await;
    for method in ["GET", "HEAD"] {
        let whole = answer(http.request(method, &format!("/{id}/download"))).await;
        assert_eq!(whole.status, 200);
        assert_eq!(whole.header("content-length"), "300000");
        assert_eq!(whole.header("content-type"), "application/pdf");
        assert_eq!(whole.header("accept-ranges"), "bytes");
        assert_eq!(whole.header("x-content-type-options"), "nosniff");
        assert_eq!(
            whole.header("content-disposition"),
            "attachment; filename=\"sp_ter.pdf\"; filename*=UTF-8''sp%C3%A4ter.pdf"
        );
        assert!(whole.header("etag").starts_with('"') && whole.header("etag").ends_with('"'));
        let expected: &[u8] = if method == "GET" { &sent } else { &[] };
        assert!(whole.body == expected, "{method}");
    }
}

#[tokio::test]
async fn a_range_is_downloaded_alone() {
    let gateway = TestGateway::start().await;
    let (http, sent) = (Http::of(&gateway), bytes(300_000));
    let id = http.upload("a.bin", &sent, &json!({})).await;
    let ranged = |range: &str| {
        let request = http.request("GET", &format!("/{id}/download"));
        answer(request.header(RANGE, range))
    };
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=100-299", 100, 300),
        ("bytes=299000-", 299_000, 300_000),
        ("bytes=-7", 299_993, 300_000),
        ("bytes=0-9999999", 0, 300_000),
    ] {
        let part = ranged(range).await;
        assert_eq!(part.status, 206, "{range}");
        let place = format!("bytes {from}-{}/300000", to - 1);
        assert_eq!(part.header("content-range"), place);
        assert_eq!(part.header("content-length"), (to - from).to_string());
        assert!(part.body == sent[from..to], "{range}");
    }
    for range in ["bytes=0-1,5-6", "bytes=9-1", "items=1-2", "rubbish"] {
        let whole = ranged(range).await;
        assert_eq!(whole.status, 200, "{range}");
        assert!(whole.body == sent, "{range}");
    }
    for range in ["bytes=300000-", "bytes=-0"] {
        let refused = ranged(range).await;
        assert_eq!(refused.refusal().0, 416, "{range}");
        assert_eq!(refused.header("content-range"), "bytes */300000");
    }
    let part = ranged("bytes=0-0").await;
    for (tag, status) in [
        (part.header("etag"), 206),
        (part.header("last-modified"), 206),
        ("\"other\"", 200),
        ("Mon, 23 Nov 2020 16:00:00 GMT", 200),
    ] {
        let request = http.request("GET", &format!("/{id}/download"));
        let request = request.header(RANGE, "bytes=0-0").header(IF_RANGE, tag);
        assert_eq!(answer(request).await.status, status, "{tag}");
    }
}

#[tokio::test]
async fn a_file_that_the_caller_has_is_not_sent_again() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    let id = http.upload("a.txt", b"abc", &json!({})).await;
    let path = format!("/{id}/download");
    let whole = http.get(&path).await;
    let (tag, modified) = (whole.header("etag"), whole.header("last-modified"));
    assert!(modified.ends_with(" GMT"), "{modified}");
    for method in ["GET", "HEAD"] {
        for (name, value) in [(IF_NONE_MATCH, tag), (IF_MODIFIED_SINCE, modified)] {
            let request = http.request(method, &path).header(&name, value);
            // A condition is checked before the range.
            let known = answer(request.header(RANGE, "bytes=0-0")).await;
            assert_eq!((known.status, known.body.len()), (304, 0), "{name}");
            assert_eq!(known.header("etag"), tag);
            assert_eq!(known.header("last-modified"), modified);
            let length = known.header("content-length");
            assert!(["", "3"].contains(&length), "{method}: {length}");
            assert_eq!(known.header("content-type"), "");
        }
        for (name, value) in [
            (IF_MATCH, "\"other\""),
            (IF_UNMODIFIED_SINCE, "Mon, 23 Nov 2020 16:00:00 GMT"),
        ] {
            let refused = answer(http.request(method, &path).header(&name, value)).await;
            assert_eq!(refused.status, 412, "{name}");
        }
        for (name, value) in [
            (IF_MATCH, tag),
            (IF_UNMODIFIED_SINCE, modified),
            (IF_NONE_MATCH, "\"other\""),
            (IF_MODIFIED_SINCE, "Mon, 23 Nov 2020 16:00:00 GMT"),
        ] {
            let sent = answer(http.request(method, &path).header(&name, value)).await;
            assert_eq!((sent.status, sent.header("etag")), (200, tag), "{name}");
        }
    }
    let refused = answer(http.request("GET", &path).header(IF_MATCH, "\"x\"")).await;
    assert!(!text(&refused.json()["error"]).is_empty());
    // Without the condition the response is an error as well, so the condition does not count.
    let unknown = format!("/{UNKNOWN}/download");
    let request = http.request("GET", &unknown).header(IF_NONE_MATCH, "*");
    assert_eq!(answer(request).await.status, 404);
}

#[tokio::test]
async fn head_ignores_the_range() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    let id = http.upload("a.txt", b"abc", &json!({})).await;
    for range in ["bytes=0-0", "bytes=9-"] {
        let request = http.request("HEAD", &format!("/{id}/download"));
        let head = answer(request.header(RANGE, range)).await;
        assert_eq!((head.status, head.header("content-length")), (200, "3"));
        assert_eq!(head.header("content-range"), "");
    }
}

#[tokio::test]
async fn an_empty_file_is_downloaded() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    let id = http.upload("a.txt", b"", &json!({})).await;
    let whole = http.get(&format!("/{id}/download")).await;
    assert_eq!((whole.status, whole.header("content-length")), (200, "0"));
    let request = http.request("GET", &format!("/{id}/download"));
    let refused = answer(request.header(RANGE, "bytes=0-")).await;
    assert_eq!(
        (refused.status, refused.header("content-range")),
        (416, "bytes */0")
    );
}

#[tokio::test]
async fn a_link_expires_as_requested_and_after_a_day_at_most() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    let id = http.upload("a.txt", b"abc", &json!({})).await;
    for (query, seconds) in [("", 86_400), ("?expiry=7", 420), ("?expiry=99999", 86_400)] {
        let link = http.get(&format!("/{id}/url{query}")).await;
        assert_eq!((link.status, link.body.len()), (303, 0));
        let location = link.header("location");
        assert!(
            location.contains(&format!("X-Amz-Expires={seconds}")),
            "{location}"
        );
        let found = reqwest::get(location).await.unwrap();
        let name = found.headers()["content-disposition"].to_str().unwrap();
        assert!(name.contains("a.txt"), "{name}");
        assert_eq!(found.bytes().await.unwrap(), "abc");
    }
}

/// A client follows the redirect with the method of its request, and stores bind the method.
#[tokio::test]
async fn a_link_for_head_is_signed_for_head() {
    has_a_link_for_head(Vec::new()).await;
    if let Some(s3) = common::s3().await {
        has_a_link_for_head(vec![s3.storage(S3Profile::Compatible)]).await;
    }
    if let Some(azure) = common::azure().await {
        has_a_link_for_head(vec![azure.storage()]).await;
    }
}

async fn has_a_link_for_head(storage: Vec<StorageConfig>) {
    let gateway = TestGateway::with(|config| config.storage = storage).await;
    let http = Http::of(&gateway);
    let id = http.upload("a.txt", b"abc", &json!({})).await;
    let link = answer(http.request("HEAD", &format!("/{id}/url"))).await;
    assert_eq!((link.status, link.body.len()), (303, 0));
    let client = reqwest::Client::new();
    let found = client.head(link.header("location")).send().await.unwrap();
    assert_eq!(found.status(), 200, "{found:?}");
    assert_eq!(found.headers()["content-length"], "3");
}

#[tokio::test]
async fn an_incomplete_upload_cannot_be_downloaded() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    let step = http.call("POST", "", file("a.txt", b"abc")).await.json();
    for call in ["url", "download"] {
        let refused = http
            .get(&format!("/{}/{call}", text(&step["upload_id"])))
            .await;
        assert_eq!(refused.status, 412);
        assert_eq!(refused.json()["reason"], "WRONG_PHASE");
    }
}
