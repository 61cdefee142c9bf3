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

use super::{S3Store, fault::fault};

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
            .map_err(|error| fault("list the multipart uploads", error))?;
        let now = time.0.get().copied().ok_or_else(|| {
            Error::store_unavailable("list the multipart uploads: the response has no Date")
        })?;
        let next = output
            .next_key_marker
            .filter(|_| output.is_truncated == Some(true))
            // A store that ignores the marker would return the same page forever.
            .filter(|next| after.is_none_or(|after| *next.as_str() > *after));
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

fn open_session(listed: MultipartUpload) -> Option<OpenSession> {
    Some(OpenSession {
        initiated_at: timestamp(&listed.initiated?)?,
        key: listed.key?,
        id: listed.upload_id?,
    })
}

fn timestamp(time: &DateTime) -> Option<Timestamp> {
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
