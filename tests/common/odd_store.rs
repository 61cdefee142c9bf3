//! Stores that are not like AWS and Azure, or that allow less: a server in front of a real store.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_credential_types::Credentials;
use axum::http::{
    HeaderName, Response, StatusCode, header::CONTENT_LENGTH, request::Parts as Head,
};
use bytes::Bytes;

use super::{
    front::{Behind, Front, error},
    layer::{Call, Protocol},
    resigned::sign_again,
};

const CRC64NVME: &str = "x-amz-checksum-crc64nvme";

/// What a store does. Servers in front of each other do several things.
#[derive(Debug, Clone)]
pub(crate) enum Habit {
    /// As MinIO does, and AWS where MinIO differs in releases: in an upload that was created with CRC64NVME, a part without
    /// it is InvalidArgument, also a copied one, and completing without that of each part is InvalidPart; in another
    /// upload, a part with it is InvalidRequest. A wrong one is XAmzContentChecksumMismatch. What completing answers has a
    /// checksum only in an upload with it, and its type never.
    MinIo,
    /// Checksums, and the names of algorithms, are taken out of the requests: the store does not compare them. Requests that
    /// these keys have signed are signed again. A signature of S3 in a query must not cover checksums; those of Azure do
    /// not.
    DropsChecksums(Option<Credentials>),
    /// PUTs of keys below this directory, such as `a/b`, are 403 AccessDenied.
    DeniesPuts(String),
    /// Objects cannot be deleted: 403 AccessDenied. Uploads can be aborted.
    DeniesDeletes,
}

/// The server; it stops when dropped.
#[derive(Debug)]
pub(crate) struct OddStore {
    /// Its URL, without a path.
    pub(crate) endpoint: String,
    shared: Arc<Shared>,
    _front: Front,
}

#[derive(Debug)]
struct Shared {
    behind: Behind,
    protocol: Protocol,
    habit: Habit,
    /// The ids of the uploads that were created with CRC64NVME.
    with_crc: Mutex<HashSet<String>>,
    refused: AtomicUsize,
}

// === impl OddStore ===

impl OddStore {
    /// Starts one in front of the store at `store`, `http://127.0.0.1:PORT`.
    pub(crate) async fn start(store: &str, protocol: Protocol, habit: Habit) -> Self {
        let shared = Arc::new(Shared {
            behind: Behind::new(store),
            protocol,
            habit,
            with_crc: Mutex::default(),
            refused: AtomicUsize::new(0),
        });
        let front = Front::start(Arc::clone(&shared), answer).await;
        Self {
            endpoint: front.endpoint.clone(),
            shared,
            _front: front,
        }
    }

    /// How many requests it refused in place of the store.
    pub(crate) fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

async fn answer(shared: Arc<Shared>, mut head: Head, body: Bytes) -> Response<Bytes> {
    let call = shared.protocol.call(&head, false);
    if let Some((status, code)) = shared.refusal(&call, &head, &body) {
        shared.refused.fetch_add(1, Ordering::Relaxed);
        return error(status, code);
    }
    if let Habit::DropsChecksums(keys) = &shared.habit {
        drop_checksums(&mut head, keys.as_ref());
    }
    let Habit::MinIo = shared.habit else {
        return shared.behind.pass(head, body).await;
    };
    let has_crc = shared.has_crc(&head);
    let algorithm = head.headers.get("x-amz-checksum-algorithm").cloned();
    let answer = shared.behind.pass(head, body).await;
    if call.name == "CreateMultipartUpload" && algorithm.is_some_and(|name| name == "CRC64NVME") {
        let text = String::from_utf8_lossy(answer.body());
        let id = between(&text, "<UploadId>", "</UploadId>").map(str::to_owned);
        shared.with_crc.lock().unwrap().extend(id);
    }
    like_minio(answer, has_crc)
}

/// Takes out what names a checksum or its algorithm.
fn drop_checksums(head: &mut Head, keys: Option<&Credentials>) {
    let is_checksum = |name: &&HeaderName| {
        let name = name.as_str();
        name.starts_with("x-amz-checksum-")
            || name == "x-amz-sdk-checksum-algorithm"
            || name == "x-ms-content-crc64"
    };
    let names: Vec<_> = head.headers.keys().filter(is_checksum).cloned().collect();
    for name in &names {
        head.headers.remove(name);
    }
    if let Some(keys) = keys.filter(|_| !names.is_empty()) {
        sign_again(head, keys);
    }
}

/// The code and the elements in which MinIO differs.
fn like_minio(answer: Response<Bytes>, has_crc: bool) -> Response<Bytes> {
    let text = String::from_utf8_lossy(answer.body());
    let odd = if text.contains("<Code>BadDigest<") && text.contains("CRC64NVME") {
        text.replacen("BadDigest", "XAmzContentChecksumMismatch", 1)
    } else if text.contains("<CompleteMultipartUploadResult") {
        let odd = without(&text, "ChecksumType");
        match has_crc {
            true => odd,
            false => without(&odd, "ChecksumCRC64NVME"),
        }
    } else {
        return answer;
    };
    let mut answer = answer.map(|_| odd.into());
    answer.headers_mut().remove(CONTENT_LENGTH);
    answer
}

fn without(xml: &str, element: &str) -> String {
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    match between(xml, &begin, &end) {
        Some(inner) => xml.replacen(&format!("{begin}{inner}{end}"), "", 1),
        None => xml.to_owned(),
    }
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    rest.split_once(end).map(|(inner, _)| inner)
}

// === impl Shared ===

impl Shared {
    /// The status and the code with which the request is refused, if it is.
    fn refusal(&self, call: &Call, head: &Head, body: &[u8]) -> Option<(StatusCode, &'static str)> {
        let denied = match &self.habit {
            Habit::MinIo => {
                return Some((StatusCode::BAD_REQUEST, self.invalid(call, head, body)?));
            }
            Habit::DropsChecksums(_) => false,
            Habit::DeniesPuts(directory) => {
                let below = call.key.strip_prefix(directory.as_str());
                head.method == "PUT" && below.is_some_and(|name| name.starts_with('/'))
            }
            Habit::DeniesDeletes => matches!(
                call.plain_name(),
                "DeleteObject" | "DeleteObjects" | "DeleteBlob"
            ),
        };
        denied.then_some((StatusCode::FORBIDDEN, "AccessDenied"))
    }

    /// The code with which MinIO refuses a part, or a complete call.
    fn invalid(&self, call: &Call, head: &Head, body: &[u8]) -> Option<&'static str> {
        let named = head.headers.contains_key(CRC64NVME);
        match (call.plain_name(), self.has_crc(head)) {
            ("UploadPart", true) if !named => Some("InvalidArgument"),
            ("UploadPart", false) if named => Some("InvalidRequest"),
            ("CompleteMultipartUpload", true) => {
                let text = String::from_utf8_lossy(body);
                let mut parts = text.split("<Part>").skip(1);
                let is_bare = |part: &str| !part.contains("<ChecksumCRC64NVME>");
                parts.any(is_bare).then_some("InvalidPart")
            }
            _ => None,
        }
    }

    /// Whether the upload that the request names was created with CRC64NVME.
    fn has_crc(&self, head: &Head) -> bool {
        let query = head.uri.query().unwrap_or_default();
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        let id = pairs.find(|(name, _)| name == "uploadId");
        id.is_some_and(|(_, id)| self.with_crc.lock().unwrap().contains(&*id))
    }
}
