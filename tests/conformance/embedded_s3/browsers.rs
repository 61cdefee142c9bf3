//! Requests from pages of other origins (CORS).

use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::{
    Method, RequestBuilder, Response,
    header::{HeaderMap, ORIGIN as ORIGIN_HEADER},
};

use super::server::*;

const FORBIDDEN: &str = "https://evil.example";
const BODY: &[u8] = b"sent by a page";

/// A signed URL to put [`BODY`], and the headers that it covers.
async fn signed_put(server: &TestServer) -> String {
    let expiry = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let put = server.client.put_object().bucket(BUCKET).key(KEY);
    let put = put
        .content_md5(BASE64_STANDARD.encode(md5(BODY)))
        .content_type("text/plain");
    put.presigned(expiry).await.unwrap().uri().to_owned()
}

fn request(method: Method, url: &str, origin: &str) -> RequestBuilder {
    let request = reqwest::Client::new().request(method, url);
    request.header(ORIGIN_HEADER, origin)
}

async fn preflight(url: &str, origin: &str, method: &str) -> Response {
    let request = request(Method::OPTIONS, url, origin)
        .header("Access-Control-Request-Method", method)
        .header(
            "Access-Control-Request-Headers",
            "content-md5,content-type,x-amz-meta-uploadid",
        );
    request.send().await.unwrap()
}

async fn put(url: &str, origin: &str, body: &'static [u8]) -> Response {
    let request = request(Method::PUT, url, origin)
        .header("content-md5", BASE64_STANDARD.encode(md5(BODY)))
        .header("content-type", "text/plain");
    request.body(body).send().await.unwrap()
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn preflight_of_a_listed_origin_allows_the_signed_methods_and_headers() {
    let server = TestServer::start().await;
    let url = signed_put(&server).await;
    for method in ["PUT", "POST", "GET", "HEAD", "DELETE"] {
        let answer = preflight(&url, ORIGIN, method).await;
        assert_eq!(answer.status(), 200);
        let headers = answer.headers();
        assert_eq!(value(headers, "access-control-allow-origin"), ORIGIN);
        let methods = value(headers, "access-control-allow-methods");
        assert!(methods.contains(method), "{methods}");
        let allowed = value(headers, "access-control-allow-headers");
        for header in ["content-md5", "content-type", "x-amz-meta-uploadid"] {
            assert!(allowed.contains(header), "{allowed}");
        }
    }
}

#[tokio::test]
async fn preflight_of_another_origin_allows_nothing() {
    let server = TestServer::start().await;
    let url = signed_put(&server).await;
    let answer = preflight(&url, FORBIDDEN, "PUT").await;
    assert_eq!(value(answer.headers(), "access-control-allow-origin"), "");
}

#[tokio::test]
async fn a_listed_origin_puts_with_a_signature_and_reads_the_entity_tag() {
    let server = TestServer::start().await;
    let answer = put(&signed_put(&server).await, ORIGIN, BODY).await;
    assert_eq!(answer.status(), 200);
    let headers = answer.headers();
    assert_eq!(value(headers, "access-control-allow-origin"), ORIGIN);
    assert_eq!(value(headers, "access-control-expose-headers"), "etag");
    assert_eq!(value(headers, "etag"), quoted(&hexadecimal(&md5(BODY))));
    assert_eq!(server.read(None).await.unwrap(), BODY);
}

#[tokio::test]
async fn a_listed_origin_needs_a_signature_and_reads_the_refusal() {
    let server = TestServer::start().await;
    let url = signed_put(&server).await;
    let (unsigned, _) = url.split_once('?').unwrap();
    let tampered = url.replace("X-Amz-Expires=60", "X-Amz-Expires=61");
    for url in [unsigned, &tampered] {
        let answer = put(url, ORIGIN, BODY).await;
        assert_eq!(answer.status(), 403);
        let allowed = value(answer.headers(), "access-control-allow-origin");
        assert_eq!(allowed, ORIGIN);
    }
    assert_eq!(server.read(None).await.unwrap_err(), "NoSuchKey");
}
