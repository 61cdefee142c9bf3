//! What a request to Azure says.

use std::{collections::BTreeMap, ops::Range};

use axum::http::request::Parts as Head;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use upload_gateway_core::upload::{Crc64Nvme, Md5};

use super::{ACCOUNT, Refused};

/// The decoded query of a request.
pub(super) struct Query(BTreeMap<String, String>);

// === impl Query ===

impl Query {
    pub(super) fn of(head: &Head) -> Self {
        Self::parse(head.uri.query().unwrap_or_default())
    }

    pub(super) fn parse(query: &str) -> Self {
        Self(
            url::form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |value| value)
    }

    /// The signature that this query must have, made with `secret` in base64.
    /// <https://learn.microsoft.com/rest/api/storageservices/create-service-sas#version-2020-12-06-and-later>
    pub(super) fn signature(&self, secret: &str, container: &str, key: &str) -> String {
        let resource = match self.get("sr") {
            "b" => format!("/blob/{ACCOUNT}/{container}/{key}"),
            _ => format!("/blob/{ACCOUNT}/{container}"),
        };
        let signed = ["sp", "st", "se", "", "si", "sip", "spr", "sv", "sr"]
            .into_iter()
            .chain(["snapshot", "ses", "rscc", "rscd", "rsce", "rscl", "rsct"]);
        let signed: Vec<&str> = signed
            .map(|name| match name {
                "" => resource.as_str(),
                name => self.get(name),
            })
            .collect();
        let secret = BASE64_STANDARD.decode(secret).unwrap();
        let code = Hmac::<Sha256>::new_from_slice(&secret).unwrap();
        let code = code.chain_update(signed.join("\n")).finalize();
        BASE64_STANDARD.encode(code.into_bytes())
    }
}

/// The lists and ids in the body of Put Block List.
pub(super) fn named_blocks(xml: &str) -> impl Iterator<Item = (String, String)> {
    xml.split('<').filter_map(|element| {
        let (list, id) = element.split_once('>')?;
        matches!(list, "Latest" | "Committed" | "Uncommitted")
            .then(|| (list.to_owned(), id.trim().to_owned()))
    })
}

/// Compares the body with the digest in the request. Azure takes only one.
pub(super) fn check_digest(head: &Head, body: &Bytes) -> Result<(), Refused> {
    let (md5, crc64) = (
        header(head, "content-md5"),
        header(head, "x-ms-content-crc64"),
    );
    let stored_md5 = header(head, "x-ms-blob-content-md5");
    let has_md5 = !md5.is_empty() || !stored_md5.is_empty();
    if has_md5 && !crc64.is_empty() {
        return Err(Refused(400, "BothCrc64AndMd5HeaderPresent"));
    }
    if !md5.is_empty() && md5 != Md5::of(body).to_string() {
        return Err(Refused(400, "Md5Mismatch"));
    }
    if !crc64.is_empty() && crc64 != Crc64Nvme::of(body).to_azure() {
        return Err(Refused(400, "Crc64Mismatch"));
    }
    Ok(())
}

/// The bytes that the request asks for; `None` for all.
pub(super) fn range(head: &Head, size: usize) -> Result<Option<Range<usize>>, Refused> {
    let names = ["x-ms-range", "range"].map(|name| header(head, name));
    let range = names
        .into_iter()
        .find_map(|range| range.strip_prefix("bytes="));
    bytes_of(range, size)
}

/// The bytes of such a range as `0-9`, if there is one.
pub(super) fn bytes_of(range: Option<&str>, size: usize) -> Result<Option<Range<usize>>, Refused> {
    let Some(range) = range else {
        return Ok(None);
    };
    let (start, last) = range
        .split_once('-')
        .ok_or(Refused(400, "InvalidHeaderValue"))?;
    let start = start.parse().unwrap_or(0);
    let end = last
        .parse::<usize>()
        .map_or(size, |last| last.saturating_add(1).min(size));
    if start >= end {
        return Err(Refused(416, "InvalidRange"));
    }
    Ok(Some(start..end))
}

pub(super) fn header<'a>(head: &'a Head, name: &str) -> &'a str {
    let value = head.headers.get(name);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
