//! The source of Put Block From URL.

use axum::http::request::Parts as Head;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use upload_gateway_core::upload::Md5;
use url::Url;

use super::{
    ACCOUNT, MemoryAzure, Refused,
    request::{Query, bytes_of, header},
};

/// The header that names the source.
pub(super) const SOURCE: &str = "x-ms-copy-source";

/// Azure cannot read the source.
const UNREADABLE: Refused = Refused(403, "CannotVerifyCopySource");

// === impl MemoryAzure ===

impl MemoryAzure {
    /// The bytes that the request copies. The signature of the source must allow to read this one blob.
    pub(super) fn copied(&self, head: &Head) -> Result<Bytes, Refused> {
        let source: Url = header(head, SOURCE).parse().map_err(|_| UNREADABLE)?;
        let query = Query::parse(source.query().unwrap_or_default());
        let path = percent_decode_str(source.path()).decode_utf8_lossy();
        let container = format!("/{ACCOUNT}/{}/", self.container);
        let key = path.strip_prefix(&container).ok_or(UNREADABLE)?;
        let secret = self.key.lock().unwrap().clone();
        let signature = query.signature(&secret, &self.container, key);
        let allows = (query.get("sp"), query.get("sr")) == ("r", "b");
        if signature != query.get("sig") || !allows {
            return Err(UNREADABLE);
        }
        let blobs = self.blobs.lock().unwrap();
        let blob = blobs.get(key).and_then(|blob| blob.committed.as_ref());
        let blob = blob.ok_or(Refused(404, "CannotVerifyCopySource"))?;
        let expected = header(head, "x-ms-source-if-match");
        if !expected.is_empty() && expected != blob.etag {
            return Err(Refused(412, "SourceConditionNotMet"));
        }
        let range = header(head, "x-ms-source-range").strip_prefix("bytes=");
        let bytes = match bytes_of(range, blob.content.len())? {
            Some(range) => blob.content.slice(range),
            None => blob.content.clone(),
        };
        let given = header(head, "x-ms-source-content-md5");
        if !given.is_empty() && given != Md5::of(&bytes).to_string() {
            return Err(Refused(400, "Md5Mismatch"));
        }
        Ok(bytes)
    }
}
