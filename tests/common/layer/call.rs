//! The names of calls, as S3 and Azure document them.

use axum::http::{Method, Response, request::Parts as Head};
use bytes::Bytes;
use percent_encoding::percent_decode_str;

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Protocol {
    S3,
    Azure,
}

/// One request to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// The store's name of the call. `signed ` precedes it if a client sent it with a signature of the gateway.
    pub(crate) name: String,
    /// The key of the object; empty for a call on the bucket or container.
    pub(crate) key: String,
}

// === impl Protocol ===

impl Protocol {
    /// The names of the calls that make an object of parts, and that describe it.
    pub(crate) fn commit_and_head(self) -> (&'static str, &'static str) {
        match self {
            Self::S3 => ("CompleteMultipartUpload", "HeadObject"),
            Self::Azure => ("PutBlockList", "GetBlobProperties"),
        }
    }

    /// Reads what a request asks for.
    pub(crate) fn call(self, head: &Head, signed: bool) -> Call {
        let path = percent_decode_str(head.uri.path()).decode_utf8_lossy();
        let mut path = path.trim_start_matches('/');
        if self == Self::Azure {
            path = path.split_once('/').map_or("", |(_account, path)| path);
        }
        let key = path.split_once('/').map_or("", |(_bucket, key)| key);
        let query = head.uri.query().unwrap_or_default();
        let query: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
        let value = |name: &str| {
            let found = query.iter().find(|(found, _)| found == name);
            found.map(|(_, value)| &**value)
        };
        let name = match self {
            Self::S3 => s3_name(&head.method, key, value),
            Self::Azure => azure_name(&head.method, key, value("comp").unwrap_or_default()),
        };
        let name = match name {
            Some(name) if signed => format!("signed {name}"),
            Some(name) => name.to_owned(),
            None => format!("{} {}", head.method, head.uri),
        };
        Call {
            name,
            key: key.to_owned(),
        }
    }
}

// === impl Call ===

impl Call {
    /// The name without `signed `.
    pub(crate) fn plain_name(&self) -> &str {
        plain(&self.name)
    }

    /// Whether this answer is an object, or what it is like.
    pub(crate) fn finds(&self, answer: &Response<Bytes>) -> bool {
        let reads = matches!(
            self.plain_name(),
            "HeadObject" | "GetObject" | "GetBlobProperties" | "GetBlob"
        );
        reads && answer.status().is_success()
    }

    /// Whether it destroys an object or a session.
    pub(crate) fn destroys(&self) -> bool {
        matches!(
            self.plain_name(),
            "DeleteObject" | "DeleteObjects" | "AbortMultipartUpload" | "DeleteBlob"
        )
    }
}

/// A name without `signed `.
pub(crate) fn plain(name: &str) -> &str {
    name.strip_prefix("signed ").unwrap_or(name)
}

fn s3_name<'a>(
    method: &Method,
    key: &str,
    query: impl Fn(&str) -> Option<&'a str>,
) -> Option<&'static str> {
    let has = |name| query(name).is_some();
    Some(match (method.as_str(), key.is_empty()) {
        ("HEAD", true) => "HeadBucket",
        ("GET", true) if has("uploads") => "ListMultipartUploads",
        ("GET", true) if query("list-type") == Some("2") => "ListObjectsV2",
        ("POST", true) if has("delete") => "DeleteObjects",
        ("HEAD", false) => "HeadObject",
        ("GET", false) if has("uploadId") => "ListParts",
        ("GET", false) => "GetObject",
        ("PUT", false) if has("partNumber") => "UploadPart",
        ("PUT", false) => "PutObject",
        ("POST", false) if has("uploads") => "CreateMultipartUpload",
        ("POST", false) if has("uploadId") => "CompleteMultipartUpload",
        ("DELETE", false) if has("uploadId") => "AbortMultipartUpload",
        ("DELETE", false) => "DeleteObject",
        _ => return None,
    })
}

fn azure_name(method: &Method, key: &str, comp: &str) -> Option<&'static str> {
    Some(match (method.as_str(), key.is_empty(), comp) {
        ("GET", true, "list") => "ListBlobs",
        ("GET" | "HEAD", true, "") => "GetContainerProperties",
        ("HEAD", false, "") => "GetBlobProperties",
        ("GET", false, "") => "GetBlob",
        ("GET", false, "blocklist") => "GetBlockList",
        ("PUT", false, "") => "PutBlob",
        ("PUT", false, "block") => "PutBlock",
        ("PUT", false, "blocklist") => "PutBlockList",
        ("DELETE", false, "") => "DeleteBlob",
        _ => return None,
    })
}
