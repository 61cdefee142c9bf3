//! The demo page at `/demo/`: the files of `examples/browser`, a client of the API that runs in a browser.

use axum::{
    Router,
    http::header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS,
    },
    response::Redirect,
    routing::get,
};

/// The path of the page.
pub const DEMO: &str = "/demo/";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css";
const JAVASCRIPT: &str = "text/javascript";

/// Names below [`DEMO`], media types, and contents.
const FILES: [(&str, &str, &str); 6] = [
    ("", HTML, include_str!("../../examples/browser/index.html")),
    (
        "page.css",
        CSS,
        include_str!("../../examples/browser/page.css"),
    ),
    (
        "page.js",
        JAVASCRIPT,
        include_str!("../../examples/browser/page.js"),
    ),
    (
        "upload.js",
        JAVASCRIPT,
        include_str!("../../examples/browser/upload.js"),
    ),
    (
        "md5.js",
        JAVASCRIPT,
        include_str!("../../examples/browser/md5.js"),
    ),
    (
        "sha256.js",
        JAVASCRIPT,
        include_str!("../../examples/browser/sha256.js"),
    ),
];

/// Adds the page to `router`. It may connect to the API and to the store at `store`, an origin, and to nothing else.
pub fn with_demo(router: Router, store: &str) -> Router {
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' {store}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let router = router.route(
        DEMO.trim_end_matches('/'),
        get(|| async { Redirect::permanent(DEMO) }),
    );
    FILES.iter().fold(router, |router, (name, mime, content)| {
        let headers = [
            (CONTENT_SECURITY_POLICY, policy.clone()),
            (CONTENT_TYPE, (*mime).to_owned()),
            (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
            (REFERRER_POLICY, "no-referrer".to_owned()),
            // A new build may serve another page.
            (CACHE_CONTROL, "no-cache".to_owned()),
        ];
        let serve = move || async move { (headers, *content) };
        router.route(&format!("{DEMO}{name}"), get(serve))
    })
}
