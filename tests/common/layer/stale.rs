//! The state before the last change, made of the present one.

use axum::http::{HeaderValue, Response, header};
use bytes::Bytes;

/// Headers of an object's MD5.
const DIGESTS: [&str; 2] = ["content-md5", "x-ms-blob-content-md5"];

/// Headers of an object that are not the same for an earlier one, with the earlier value.
const EARLIER: [(&str, &str); 6] = [
    ("etag", "\"0123456789abcdef0123456789abcdef\""),
    ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ("x-amz-meta-uploadid", OTHER_UPLOAD),
    ("x-ms-meta-uploadid", OTHER_UPLOAD),
    ("x-amz-meta-uploadmd5", "0123456789abcdef0123456789abcdef"),
    ("x-ms-meta-uploadmd5", "0123456789abcdef0123456789abcdef"),
];

const OTHER_UPLOAD: &str = "uploads-0123456789abcdef-0123456789abcdef0123456789abcdef";

/// What a replica that has missed the last change lists; `None` if there is nothing that it can have missed.
pub(super) fn before(name: &str, truth: &Response<Bytes>) -> Option<Response<Bytes>> {
    if truth.status() != 200 {
        return None;
    }
    let list = String::from_utf8_lossy(truth.body());
    let older = match name {
        "ListParts" => without_last(&list, "Part"),
        "ListObjectsV2" => without_all(&list, "Contents").map(|list| {
            let count = list.find("<KeyCount>").zip(list.find("</KeyCount>"));
            count.map_or(list.clone(), |(from, to)| {
                format!("{}<KeyCount>0{}", &list[..from], &list[to..])
            })
        }),
        "ListMultipartUploads" => without_all(&list, "Upload"),
        "GetBlockList" => before_block(&list),
        _ => None,
    }?;
    let mut stale = Response::new(Bytes::from(older));
    *stale.headers_mut() = truth.headers().clone();
    stale.headers_mut().remove(header::CONTENT_LENGTH);
    stale.headers_mut().remove("x-ms-blob-content-length");
    Some(stale)
}

/// What a replica answers that still has the object of another upload.
pub(super) fn older(truth: &Response<Bytes>) -> Response<Bytes> {
    let other: Bytes = truth.body().iter().map(|byte| !byte).collect();
    let mut older = Response::new(other);
    *older.status_mut() = truth.status();
    let mut headers = truth.headers().clone();
    for name in DIGESTS {
        headers.remove(name);
    }
    for (name, value) in EARLIER {
        if let Some(header) = headers.get_mut(name) {
            *header = HeaderValue::from_static(value);
        }
    }
    *older.headers_mut() = headers;
    older
}

/// Before the commit, all blocks were uncommitted; before the last block, it was missing.
fn before_block(list: &str) -> Option<String> {
    let committed = list.split_once("<CommittedBlocks>");
    let committed = committed.and_then(|(_, rest)| rest.split_once("</CommittedBlocks>"));
    match committed {
        Some((blocks, _)) if !blocks.is_empty() => Some(format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList><CommittedBlocks></CommittedBlocks>\
             <UncommittedBlocks>{blocks}</UncommittedBlocks></BlockList>"
        )),
        _ => without_last(list, "Block"),
    }
}

fn without_last(list: &str, element: &str) -> Option<String> {
    let end = format!("</{element}>");
    let from = list.rfind(&format!("<{element}>"))?;
    let to = from + list[from..].find(&end)? + end.len();
    Some(format!("{}{}", &list[..from], &list[to..]))
}

fn without_all(list: &str, element: &str) -> Option<String> {
    let mut list = without_last(list, element)?;
    while let Some(shorter) = without_last(&list, element) {
        list = shorter;
    }
    Some(list)
}
