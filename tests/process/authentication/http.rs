//! Credentials over HTTP, header by header.

use reqwest::{Client, Method, Response, StatusCode, header::HeaderMap};

use super::guarded::Guarded;

const ORIGIN: &str = "https://app.example";

/// A gateway that takes credentials of queries and cookies, and pages of [`ORIGIN`]; and the URL of its uploads.
fn start() -> Option<(Guarded, String)> {
    let rest = format!(
        "[rest]\ncredentials_in = [\"cookie\", \"query\"]\ncors_origins = [\"{ORIGIN}\"]\n"
    );
    let guarded = Guarded::start_with(&rest)?;
    let uploads = guarded.uploads_url();
    Some((guarded, uploads))
}

async fn send(method: Method, url: &str, headers: &[(&'static str, &str)]) -> Response {
    let mut request = Client::new().request(method, url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

fn is_careful(headers: &HeaderMap) -> bool {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok());
    (value("referrer-policy"), value("cache-control")) == (Some("no-referrer"), Some("private"))
}

#[tokio::test]
async fn reads_take_credentials_of_queries_and_of_cookies_of_this_site() {
    let Some((guarded, uploads)) = start() else {
        return;
    };
    let token = &guarded.tokens["owner"];
    let (bearer, cookie) = (format!("Bearer {token}"), format!("bearer_token={token}"));
    let in_query = format!("{uploads}?bearer_token={token}");
    let (get, post) = (Method::GET, Method::POST);
    for (method, url, headers, status, is_ambient) in [
        (
            &get,
            &uploads,
            vec![("authorization", &*bearer)],
            200,
            false,
        ),
        (&get, &in_query, vec![], 200, true),
        (&get, &uploads, vec![("cookie", &*cookie)], 200, true),
        (
            &get,
            &uploads,
            vec![("cookie", &*cookie), ("sec-fetch-site", "same-origin")],
            200,
            true,
        ),
        (
            &get,
            &uploads,
            vec![("cookie", &*cookie), ("sec-fetch-site", "cross-site")],
            401,
            false,
        ),
        (&post, &in_query, vec![], 401, false),
        (&post, &uploads, vec![("cookie", &*cookie)], 401, false),
        (
            &get,
            &uploads,
            vec![("authorization", &*bearer), ("x-api-key", "a.b")],
            401,
            false,
        ),
        (&get, &uploads, vec![], 401, false),
    ] {
        let response = send(method.clone(), url, &headers).await;
        assert_eq!(response.status().as_u16(), status, "{method} {headers:?}");
        assert_eq!(
            is_careful(response.headers()),
            is_ambient,
            "{method} {headers:?}"
        );
        let challenge = response.headers().contains_key("www-authenticate");
        assert_eq!(challenge, status == 401);
        let link = response.headers().get("link");
        assert!(link.is_none_or(|link| !link.to_str().unwrap().contains(token)));
    }
    assert!(!guarded.server.log().contains(token));
}

#[tokio::test]
async fn a_missing_role_is_403_without_a_body() {
    let Some((guarded, uploads)) = start() else {
        return;
    };
    let bearer = format!("Bearer {}", guarded.tokens["operator"]);
    let url = format!("{uploads}?file_name=a.bin&file_size=1&file_id=1B2M2Y8AsgTpgAmY7PhCfg==");
    let response = send(Method::POST, &url, &[("authorization", &*bearer)]).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(response.text().await.unwrap(), "");
}

#[tokio::test]
async fn a_long_credential_is_refused_and_longer_headers_are_not_read() {
    let Some((guarded, uploads)) = start() else {
        return;
    };
    for (length, status) in [(8 << 10, 401), (15 << 10, 401), (17 << 10, 431)] {
        let bearer = format!("Bearer {}", "x".repeat(length));
        let response = send(Method::GET, &uploads, &[("authorization", &*bearer)]).await;
        assert_eq!(response.status().as_u16(), status, "{length}");
        let log = guarded.server.log();
        assert!(!log.contains("xxxxxxxx"));
    }
}

#[tokio::test]
async fn pages_of_configured_origins_read_refusals() {
    let Some((_guarded, uploads)) = start() else {
        return;
    };
    let refused = send(Method::GET, &uploads, &[("origin", ORIGIN)]).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()["access-control-allow-origin"], ORIGIN);
    let asks = [
        ("origin", ORIGIN),
        ("access-control-request-method", "POST"),
    ];
    let answer = send(Method::OPTIONS, &uploads, &asks).await;
    assert!(answer.status().is_success());
    assert_eq!(answer.headers()["access-control-allow-origin"], ORIGIN);
}
