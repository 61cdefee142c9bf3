//! A store that reads parts and drops them: S3's multipart calls, without checks and without copies. It keeps only the bytes of
//! very small objects, since other servers keep their records of uploads in such. Of these it compares the CRC-64; it repeats that
//! of larger ones as if it had compared it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Query, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{AppendHeaders, IntoResponse, Response},
    serve::ListenerExt,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::Deserialize;
use tokio::net::TcpListener;
use upload_gateway_core::upload::{Crc64Nvme, Md5};

use super::Result;

/// The metadata by which the gateway recognises its object.
const UPLOAD_ID: &str = "x-amz-meta-uploadid";

/// The header with the MD5 of a part.
const CONTENT_MD5: &str = "content-md5";

/// The header with the CRC-64 of bytes.
const CRC64: &str = "x-amz-checksum-crc64nvme";

/// The headers of an upload whose parts have CRC-64s.
const WITH_CRC64: [(&str, &str); 2] = [
    ("x-amz-checksum-algorithm", "CRC64NVME"),
    ("x-amz-checksum-type", "FULL_OBJECT"),
];

/// The most bytes of an object that are kept.
const KEPT: u64 = 4096;

/// What is kept: sizes and entity tags.
#[derive(Debug, Default)]
struct Discarded {
    sessions: Mutex<HashMap<String, Session>>,
    objects: Mutex<HashMap<String, Object>>,
    last_session: AtomicU64,
}

#[derive(Debug)]
struct Session {
    metadata: Option<String>,
    has_crc64s: bool,
    parts: BTreeMap<u32, Part>,
}

#[derive(Debug)]
struct Part {
    size: u64,
    etag: String,
    crc64: Option<String>,
}

#[derive(Debug, Clone)]
struct Object {
    size: u64,
    etag: String,
    metadata: Option<String>,
    /// Not set for one that is larger than [`KEPT`].
    content: Option<Bytes>,
}

/// The query parameters that, with the method, select S3's call.
#[derive(Debug, Deserialize)]
struct Call {
    uploads: Option<String>,
    #[serde(rename = "uploadId")]
    session: Option<String>,
    #[serde(rename = "partNumber")]
    part: Option<u32>,
}

/// The router of the store.
pub(crate) fn store() -> Router {
    Router::new().fallback(answer).with_state(Arc::default())
}

/// Serves `store`, perhaps with a layer around it, until the process ends, and returns its endpoint. Counts its connections.
pub(crate) async fn serve(store: Router, connections: Arc<AtomicU64>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let listener = listener.tap_io(move |_| {
        connections.fetch_add(1, Ordering::Relaxed);
    });
    tokio::spawn(axum::serve(listener, store).into_future());
    Ok(endpoint)
}

async fn answer(
    State(store): State<Arc<Discarded>>,
    Query(call): Query<Call>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let (size, content) = match read(body).await {
        Ok(read) => read,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let key = head.uri.path().to_owned();
    match (head.method, call.session, call.part) {
        (Method::POST, None, _) if call.uploads.is_some() => store.begin(&head.headers),
        (Method::PUT, Some(session), Some(number)) => {
            store.put_part(&session, number, size, &head.headers)
        }
        (Method::GET, Some(session), _) => store.list_parts(&session),
        (Method::POST, Some(session), _) => store.complete(&session, key),
        (Method::PUT, None, _) => {
            if is_damaged(&head.headers, content.as_deref()) {
                return refused(StatusCode::BAD_REQUEST, "BadDigest");
            }
            let object = Object {
                size,
                etag: etag(&head.headers),
                metadata: metadata(&head.headers),
                content,
            };
            store.put_object(key, object, text(&head.headers, CRC64))
        }
        (Method::GET, None, _) => store.get(&key),
        (Method::HEAD, ..) => store.head(&key),
        (Method::DELETE, session, _) => store.delete(session, &key),
        _ => StatusCode::NOT_IMPLEMENTED.into_response(),
    }
}

/// Reads a body to its end and keeps its size, and its bytes if they are at most [`KEPT`].
async fn read(body: Body) -> std::result::Result<(u64, Option<Bytes>), axum::Error> {
    let mut pieces = body.into_data_stream();
    let (mut size, mut content) = (0, BytesMut::new());
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        size += piece.len() as u64;
        if size <= KEPT {
            content.extend_from_slice(&piece);
        }
    }
    Ok((size, (size <= KEPT).then(|| content.freeze())))
}

impl Discarded {
    fn begin(&self, headers: &HeaderMap) -> Response {
        let id = self
            .last_session
            .fetch_add(1, Ordering::Relaxed)
            .to_string();
        let has_crc64s = headers.contains_key(WITH_CRC64[0].0);
        let session = Session {
            metadata: metadata(headers),
            has_crc64s,
            parts: BTreeMap::new(),
        };
        lock(&self.sessions).insert(id.clone(), session);
        let answer = xml(&format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        ));
        match has_crc64s {
            true => (AppendHeaders(WITH_CRC64), answer).into_response(),
            false => answer,
        }
    }

    fn put_part(&self, session: &str, number: u32, size: u64, headers: &HeaderMap) -> Response {
        let (etag, crc64) = (etag(headers), text(headers, CRC64));
        match lock(&self.sessions).get_mut(session) {
            None => no_such_upload(),
            Some(session) => {
                session.parts.insert(
                    number,
                    Part {
                        size,
                        etag: etag.clone(),
                        crc64: crc64.clone(),
                    },
                );
                let crc64 = AppendHeaders(crc64.map(|crc64| (CRC64, crc64)));
                ([(header::ETAG, etag)], crc64).into_response()
            }
        }
    }

    fn list_parts(&self, session: &str) -> Response {
        let sessions = lock(&self.sessions);
        let Some(session) = sessions.get(session) else {
            return no_such_upload();
        };
        let mut list = String::from("<ListPartsResult><IsTruncated>false</IsTruncated>");
        if session.has_crc64s {
            list.push_str("<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>");
            list.push_str("<ChecksumType>FULL_OBJECT</ChecksumType>");
        }
        for (number, Part { size, etag, crc64 }) in &session.parts {
            let crc64 = crc64.as_ref().map_or_else(String::new, |crc64| {
                format!("<ChecksumCRC64NVME>{crc64}</ChecksumCRC64NVME>")
            });
            // Cannot fail for a String.
            let _ = write!(
                list,
                "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag><Size>{size}</Size>{crc64}</Part>"
            );
        }
        list.push_str("</ListPartsResult>");
        xml(&list)
    }

    fn complete(&self, session: &str, key: String) -> Response {
        let Some(session) = lock(&self.sessions).remove(session) else {
            return no_such_upload();
        };
        let object = Object {
            size: session.parts.values().map(|part| part.size).sum(),
            etag: composite(&session.parts),
            metadata: session.metadata,
            content: None,
        };
        let answer = format!(
            "<CompleteMultipartUploadResult><ETag>{}</ETag></CompleteMultipartUploadResult>",
            object.etag
        );
        lock(&self.objects).insert(key, object);
        xml(&answer)
    }

    fn put_object(&self, key: String, object: Object, crc64: Option<String>) -> Response {
        let crc64 = AppendHeaders(crc64.map(|crc64| (CRC64, crc64)));
        let answer = ([(header::ETAG, object.etag.clone())], crc64).into_response();
        lock(&self.objects).insert(key, object);
        answer
    }

    fn get(&self, key: &str) -> Response {
        match lock(&self.objects).get(key).cloned() {
            None => not_found("NoSuchKey"),
            Some(object) => match object.content {
                None => StatusCode::NOT_IMPLEMENTED.into_response(),
                Some(content) => ([(header::ETAG, object.etag)], content).into_response(),
            },
        }
    }

    fn head(&self, key: &str) -> Response {
        // A bucket, `/name`, always exists.
        if key.trim_end_matches('/').matches('/').count() == 1 {
            return StatusCode::OK.into_response();
        }
        let Some(object) = lock(&self.objects).get(key).cloned() else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let metadata = AppendHeaders(object.metadata.map(|id| (UPLOAD_ID, id)));
        let head = [
            (header::ETAG, object.etag),
            (header::CONTENT_LENGTH, object.size.to_string()),
        ];
        (head, metadata).into_response()
    }

    fn delete(&self, session: Option<String>, key: &str) -> Response {
        match session {
            Some(session) => drop(lock(&self.sessions).remove(&session)),
            None => drop(lock(&self.objects).remove(key)),
        }
        StatusCode::NO_CONTENT.into_response()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn metadata(headers: &HeaderMap) -> Option<String> {
    text(headers, UPLOAD_ID)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// Whether small bytes do not have the CRC-64 in the headers.
fn is_damaged(headers: &HeaderMap, content: Option<&[u8]>) -> bool {
    let crc64 = text(headers, CRC64).zip(content);
    crc64.is_some_and(|(crc64, content)| crc64 != Crc64Nvme::of(content).to_string())
}

/// The entity tag that S3 computes for the bytes with this `Content-MD5`; without the header, a constant.
fn etag(headers: &HeaderMap) -> String {
    let md5 = headers
        .get(CONTENT_MD5)
        .and_then(|md5| STANDARD.decode(md5).ok());
    let digits: String = md5
        .unwrap_or_default()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("\"{digits:0>32}\"")
}

/// The entity tag that S3 computes for an object of these parts: the MD5 of their MD5s, and their number.
fn composite(parts: &BTreeMap<u32, Part>) -> String {
    let digits = parts.values().flat_map(|part| part.etag.chars());
    let values: Vec<u8> = digits
        .filter_map(|digit| digit.to_digit(16)?.try_into().ok())
        .collect();
    let pairs = values.chunks(2);
    let digests: Vec<u8> = pairs
        .map(|pair| pair.iter().fold(0, |byte, digit| byte * 16 + digit))
        .collect();
    format!("\"{}-{}\"", Md5::of(&digests).to_hex(), parts.len())
}

fn xml(text: &str) -> Response {
    ([(header::CONTENT_TYPE, "application/xml")], text.to_owned()).into_response()
}

fn no_such_upload() -> Response {
    not_found("NoSuchUpload")
}

fn not_found(code: &str) -> Response {
    refused(StatusCode::NOT_FOUND, code)
}

fn refused(status: StatusCode, code: &str) -> Response {
    let error = xml(&format!("<Error><Code>{code}</Code></Error>"));
    (status, error).into_response()
}
