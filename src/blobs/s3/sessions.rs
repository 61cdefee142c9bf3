//! Lists the multipart uploads that are neither completed nor aborted, with their age by the store's clock.

use std::sync::{Arc, OnceLock};

use aws_sdk_s3::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::BeforeDeserializationInterceptorContextRef,
    },
    error::BoxError,
    primitives::{DateTime, DateTimeFormat},
    types::MultipartUpload,
};
use upload_gateway_core::{
    blobs::{OpenSession, SessionPage},
    error::{Error, Result},
    upload::Timestamp,
};

use super::{
    S3Store,
    fault::{fault, page_without_progress},
};

const ACTION: &str = "list the multipart uploads";

/// Keeps the `Date` of the store's response, which the SDK does not return.
#[derive(Debug, Clone, Default)]
struct ResponseTime(Arc<OnceLock<Timestamp>>);

// === impl S3Store ===

impl S3Store {
    /// See [`MultipartStore::list_sessions`](upload_gateway_core::blobs::MultipartStore::list_sessions).
    pub(super) async fn session_page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<SessionPage> {
        let time = ResponseTime::default();
        let output = self
            .client
            .list_multipart_uploads()
            .bucket(&self.bucket)
            .prefix(prefix)
            // No upload id marker: some stores refuse the id of a multipart upload that has ended since.
            .set_key_marker(after.map(str::to_owned))
            .customize()
            .interceptor(time.clone())
            .send()
            .await
            .map_err(|error| fault(ACTION, error))?;
        let now = time.0.get().copied().ok_or_else(|| {
            Error::store_unavailable(format!("{ACTION}: the response has no Date"))
        })?;
        let is_truncated = output.is_truncated == Some(true);
        let next = next_key(is_truncated, output.next_key_marker, after)?;
        Ok(SessionPage {
            sessions: output
                .uploads
                .unwrap_or_default()
                .into_iter()
                .filter_map(open_session)
                .collect(),
            now,
            next,
        })
    }
}

/// The key after which the page after this one starts, which was asked for with `after`. `None` if it is the last page.
///
/// # Errors
/// `Unavailable` if the next page would not continue: a store that ignores the marker would return the same page
/// forever.
fn next_key(
    is_truncated: bool,
    marker: Option<String>,
    after: Option<&str>,
) -> Result<Option<String>> {
    if !is_truncated {
        return Ok(None);
    }
    marker
        .filter(|next| next.as_str() > after.unwrap_or_default())
        .map(Some)
        .ok_or_else(|| page_without_progress(ACTION))
}

fn open_session(listed: MultipartUpload) -> Option<OpenSession> {
    Some(OpenSession {
        initiated_at: timestamp(&listed.initiated?)?,
        key: listed.key?,
        id: listed.upload_id?,
    })
}

pub(super) fn timestamp(time: &DateTime) -> Option<Timestamp> {
    u64::try_from(time.to_millis().ok()?).ok().map(Timestamp)
}

// === impl ResponseTime ===

impl Intercept for ResponseTime {
    fn name(&self) -> &'static str {
        "ResponseTime"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        if let Some(now) = date.as_ref().and_then(timestamp) {
            // The SDK does not retry, so there is only one response.
            let _ = self.0.set(now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use upload_gateway_core::error::Kind;

    use super::*;

    #[test]
    fn a_page_of_multipart_uploads_continues_after_its_marker() {
        let next = |truncated, marker: &str, after| next_key(truncated, Some(marker.into()), after);
        assert_eq!(next(true, "b", None).unwrap().as_deref(), Some("b"));
        assert_eq!(next(true, "b", Some("a")).unwrap().as_deref(), Some("b"));
        assert_eq!(next(false, "b", Some("a")).unwrap(), None);
    }

    #[test]
    fn a_page_of_multipart_uploads_without_progress_is_a_temporary_error() {
        for (marker, after) in [
            (None, None),
            (Some(""), None),
            (Some("b"), Some("b")),
            (Some("a"), Some("b")),
        ] {
            let error = next_key(true, marker.map(str::to_owned), after).unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable, "{marker:?} {after:?}");
        }
    }
}
