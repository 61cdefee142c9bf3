//! How blobs are stored: their properties, metadata, tags and tiers.

use axum::http::{HeaderMap, HeaderName, request::Parts as Head};
use bytes::Bytes;

use super::{
    Committed, MemoryAzure, NO_BLOB, Outcome, Refused, etag,
    request::{Query, header},
    response, set,
};

/// The headers of a request that set properties, and those of the blob.
const PROPERTIES: [(&str, &str); 5] = [
    ("x-ms-blob-content-type", "content-type"),
    ("x-ms-blob-content-md5", "content-md5"),
    ("x-ms-blob-cache-control", "cache-control"),
    ("x-ms-blob-content-disposition", "content-disposition"),
    ("x-ms-blob-content-encoding", "content-encoding"),
];

const METADATA: &str = "x-ms-meta-";
const TIER: &str = "x-ms-access-tier";
const SCOPE: &str = "x-ms-encryption-scope";

/// The headers of a new blob that say how it is stored, besides media type and MD5.
pub(super) fn placed(head: &Head, headers: &mut HeaderMap) {
    copy(head, headers, &PROPERTIES[2..]);
    copy(head, headers, &[(TIER, TIER), (SCOPE, SCOPE)]);
    copy_metadata(head, headers);
}

/// The tags of a new blob, as a query.
pub(super) fn tags(head: &Head) -> String {
    header(head, "x-ms-tags").to_owned()
}

/// Refuses what the signature does not allow: tags without `t`, and another scope than `ses`.
pub(super) fn check(head: &Head, query: &Query) -> Result<(), Refused> {
    let has_tags = !header(head, "x-ms-tags").is_empty();
    if has_tags && !query.get("sp").contains('t') {
        return Err(Refused(403, "AuthorizationPermissionMismatch"));
    }
    let (scope, given) = (query.get("ses"), header(head, SCOPE));
    match scope.is_empty() || given.is_empty() || given == scope {
        true => Ok(()),
        false => Err(Refused(403, "AuthorizationFailure")),
    }
}

// === impl MemoryAzure ===

impl MemoryAzure {
    /// Set Blob Properties, Set Blob Metadata, Set Blob Tags, Set Blob Tier.
    pub(super) fn change(&self, head: &Head, query: &Query, key: &str, body: &Bytes) -> Outcome {
        let mut blobs = self.blobs.lock().unwrap();
        let blob = blobs.get_mut(key).and_then(|blob| blob.committed.as_mut());
        let blob = blob.ok_or(NO_BLOB)?;
        let expected = header(head, "if-match");
        if !expected.is_empty() && expected != blob.etag {
            return Err(Refused(412, "ConditionNotMet"));
        }
        let comp = query.get("comp");
        if blob.is_archived() && matches!(comp, "properties" | "metadata") {
            return Err(Refused(409, "BlobArchived"));
        }
        let status = match comp {
            "properties" => {
                for (_, name) in PROPERTIES {
                    blob.headers.remove(name);
                }
                copy(head, &mut blob.headers, &PROPERTIES);
                blob.etag = etag();
                200
            }
            "metadata" => {
                let names: Vec<HeaderName> = blob.headers.keys().cloned().collect();
                for name in names {
                    if name.as_str().starts_with(METADATA) {
                        blob.headers.remove(name);
                    }
                }
                copy_metadata(head, &mut blob.headers);
                blob.etag = etag();
                200
            }
            "tags" => {
                blob.tags = from_xml(&String::from_utf8_lossy(body));
                204
            }
            _ => {
                copy(head, &mut blob.headers, &[(TIER, TIER)]);
                200
            }
        };
        let mut headers = HeaderMap::new();
        set(&mut headers, "etag", &blob.etag);
        Ok(response(status, headers, Bytes::new()))
    }

    /// Get Blob Tags.
    pub(super) fn get_tags(&self, query: &Query, key: &str) -> Outcome {
        if !query.get("sp").contains('t') {
            return Err(Refused(403, "AuthorizationPermissionMismatch"));
        }
        let blobs = self.blobs.lock().unwrap();
        let blob = blobs.get(key).and_then(|blob| blob.committed.as_ref());
        let xml = to_xml(&blob.ok_or(NO_BLOB)?.tags);
        let mut headers = HeaderMap::new();
        set(&mut headers, "content-type", "application/xml");
        Ok(response(200, headers, xml.into()))
    }

    /// A header of a blob.
    pub fn header(&self, key: &str, name: &str) -> Option<String> {
        let blobs = self.blobs.lock().unwrap();
        let value = blobs.get(key)?.committed.as_ref()?.headers.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    }

    /// The tags of a blob, as a query.
    pub fn tags(&self, key: &str) -> Option<String> {
        let blobs = self.blobs.lock().unwrap();
        Some(blobs.get(key)?.committed.as_ref()?.tags.clone())
    }
}

// === impl Committed ===

impl Committed {
    /// Whether it cannot be read.
    pub(super) fn is_archived(&self) -> bool {
        self.headers.get(TIER).is_some_and(|tier| tier == "Archive")
    }
}

fn copy(head: &Head, headers: &mut HeaderMap, names: &[(&'static str, &'static str)]) {
    for (from, to) in names {
        if let Some(value) = head.headers.get(*from) {
            headers.insert(*to, value.clone());
        }
    }
}

fn copy_metadata(head: &Head, headers: &mut HeaderMap) {
    let metadata = head.headers.iter();
    for (name, value) in metadata.filter(|(name, _)| name.as_str().starts_with(METADATA)) {
        headers.insert(name.clone(), value.clone());
    }
}

fn to_xml(tags: &str) -> String {
    let tags = url::form_urlencoded::parse(tags.as_bytes());
    let tags: String = tags
        .map(|(key, value)| format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>"))
        .collect();
    format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><Tags><TagSet>{tags}</TagSet></Tags>")
}

fn from_xml(xml: &str) -> String {
    let texts: Vec<&str> = xml
        .split('<')
        .filter_map(|element| element.split_once('>'))
        .filter(|(name, _)| matches!(*name, "Key" | "Value"))
        .map(|(_, text)| text)
        .collect();
    let pairs = texts.chunks(2).map(|pair| (pair[0], pair[1]));
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}
