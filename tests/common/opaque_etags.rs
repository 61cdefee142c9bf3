//! A server in front of an S3 store that makes ETags look like MD5s which they are not: the 32 digits are reversed.

use std::{future::IntoFuture, sync::Arc};

use aws_sdk_s3::{
    Client,
    types::{CompletedMultipartUpload, CompletedPart},
};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header::ETAG},
    response::{IntoResponse, Response},
};
use tokio::{net::TcpListener, task::JoinHandle};

use super::S3Backend;

/// The server; it stops when dropped.
#[derive(Debug)]
pub struct OpaqueEtags {
    /// Its URL, without a path.
    pub endpoint: String,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Behind {
    endpoint: String,
    bucket: String,
    /// Sends the requests that name ETags: their signature covers the body.
    client: Client,
    http: reqwest::Client,
}

// === impl OpaqueEtags ===

impl OpaqueEtags {
    /// Starts one in front of `store`.
    pub async fn start(store: &S3Backend) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let behind = Behind {
            endpoint: store.endpoint.clone(),
            bucket: store.bucket.clone(),
            client: store.client(),
            http: reqwest::Client::new(),
        };
        let router = Router::new().fallback(answer).with_state(Arc::new(behind));
        let serving = axum::serve(listener, router).into_future();
        let task = tokio::spawn(async {
            let _ = serving.await;
        });
        Self { endpoint, task }
    }
}

impl Drop for OpaqueEtags {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(behind): State<Arc<Behind>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let query = head.uri.query().unwrap_or_default();
    if head.method == Method::POST
        && let Some(id) = value(query, "uploadId")
    {
        let key = head
            .uri
            .path()
            .strip_prefix(&format!("/{}/", behind.bucket));
        let named = String::from_utf8_lossy(&body);
        return behind.complete(key.unwrap(), id, &named).await;
    }
    let path = head.uri.path_and_query().unwrap().as_str();
    let request = behind
        .http
        .request(head.method, format!("{}{path}", behind.endpoint));
    let sent = request.headers(head.headers).body(body).send().await;
    let answer = sent.unwrap();
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    if let Some(etag) = headers.get_mut(ETAG) {
        *etag = HeaderValue::from_str(&reversed(etag.to_str().unwrap())).unwrap();
    }
    let mut body = answer.bytes().await.unwrap();
    if body.starts_with(b"<?xml") {
        body = with_reversed_etags(&String::from_utf8_lossy(&body)).into();
    }
    let mut response = Response::new(Body::from(body));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    response
}

// === impl Behind ===

impl Behind {
    async fn complete(&self, key: &str, id: &str, named: &str) -> Response {
        let parts = named.split("<Part>").skip(1).map(|part| {
            CompletedPart::builder()
                .part_number(between(part, "<PartNumber>", "<").parse().unwrap())
                .e_tag(reversed(between(part, "<ETag>", "<")).replace("&quot;", "\""))
                .build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect()));
        let complete = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .upload_id(id)
            .multipart_upload(parts.build());
        let etag = match complete.send().await {
            Ok(output) => reversed(output.e_tag().unwrap()),
            Err(error) => {
                return (StatusCode::BAD_REQUEST, format!("{error:?}")).into_response();
            }
        };
        format!(
            "<?xml version=\"1.0\"?><CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
        )
        .into_response()
    }
}

/// The same text with each ETag reversed.
fn with_reversed_etags(xml: &str) -> String {
    let mut pieces = xml.split("<ETag>");
    let mut all = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (etag, rest) = piece.split_once("</ETag>").unwrap();
        all += &format!("<ETag>{}</ETag>{rest}", reversed(etag));
    }
    all
}

/// An ETag, in quotes or not, with its 32 digits in reverse order.
fn reversed(etag: &str) -> String {
    let is_digit = |character: char| character.is_ascii_hexdigit();
    let digits = etag
        .split(|character| !is_digit(character))
        .find(|digits| digits.len() == 32)
        .unwrap_or_default();
    etag.replacen(digits, &digits.chars().rev().collect::<String>(), 1)
}

fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(begin).unwrap();
    rest.split_once(end).unwrap().0
}
