//! A server in front of an S3 store that makes ETags look like MD5s which they are not: the 32 digits are reversed.

use std::sync::Arc;

use aws_sdk_s3::{
    Client,
    types::{CompletedMultipartUpload, CompletedPart},
};
use axum::http::{HeaderValue, Method, Response, StatusCode, header::ETAG, request::Parts as Head};
use bytes::Bytes;

use super::{
    S3Backend,
    front::{Behind, Front},
};

/// The server; it stops when dropped.
#[derive(Debug)]
pub struct OpaqueEtags {
    /// Its URL, without a path.
    pub endpoint: String,
    _front: Front,
}

#[derive(Debug)]
struct Shared {
    behind: Behind,
    bucket: String,
    /// Sends the requests that name ETags: their signature covers the body.
    client: Client,
}

// === impl OpaqueEtags ===

impl OpaqueEtags {
    /// Starts one in front of `store`.
    pub async fn start(store: &S3Backend) -> Self {
        let shared = Arc::new(Shared {
            behind: Behind::new(&store.endpoint),
            bucket: store.bucket.clone(),
            client: store.client(),
        });
        let front = Front::start(shared, answer).await;
        Self {
            endpoint: front.endpoint.clone(),
            _front: front,
        }
    }
}

async fn answer(shared: Arc<Shared>, head: Head, body: Bytes) -> Response<Bytes> {
    let query = head.uri.query().unwrap_or_default();
    if head.method == Method::POST
        && let Some(id) = value(query, "uploadId")
    {
        let bucket = format!("/{}/", shared.bucket);
        let key = head.uri.path().strip_prefix(&bucket);
        let named = String::from_utf8_lossy(&body);
        return shared.complete(key.unwrap(), id, &named).await;
    }
    let mut response = shared.behind.pass(head, body).await;
    if let Some(etag) = response.headers_mut().get_mut(ETAG) {
        *etag = HeaderValue::from_str(&reversed(etag.to_str().unwrap())).unwrap();
    }
    response.map(|body| match body.starts_with(b"<?xml") {
        true => with_reversed_etags(&String::from_utf8_lossy(&body)).into(),
        false => body,
    })
}

// === impl Shared ===

impl Shared {
    async fn complete(&self, key: &str, id: &str, named: &str) -> Response<Bytes> {
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
                let mut refusal = Response::new(format!("{error:?}").into());
                *refusal.status_mut() = StatusCode::BAD_REQUEST;
                return refusal;
            }
        };
        Response::new(format!(
            "<?xml version=\"1.0\"?><CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
        ).into())
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
