//! The sessions that were begun and not ended, with their age by the store's own clock.

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

/// Keeps the time that the store's answer carries, which the SDK does not pass on.
#[derive(Debug, Clone, Default)]
struct AnswerTime(Arc<OnceLock<Timestamp>>);

// === impl S3Store ===

impl S3Store {
    /// See [`MultipartStore::list_sessions`](upload_gateway_core::blobs::MultipartStore::list_sessions).
    pub(super) async fn session_page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<SessionPage> {
        let time = AnswerTime::default();
        let output = self
            .client
            .list_multipart_uploads()
            .bucket(&self.bucket)
            .prefix(prefix)
            // Without the session's name: some stores refuse that of one that has ended since.
            .set_key_marker(after.map(str::to_owned))
            .customize()
            .interceptor(time.clone())
            .send()
            .await
            .map_err(|error| fault("list the multipart uploads", error))?;
        let now = time.0.get().copied().ok_or_else(|| {
            Error::fault("list the multipart uploads: the store does not tell its time")
        })?;
        let next = output
            .next_key_marker
            .filter(|_| output.is_truncated == Some(true))
            // A store that does not know the marker would be asked for ever.
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

// === impl AnswerTime ===

impl Intercept for AnswerTime {
    fn name(&self) -> &'static str {
        "AnswerTime"
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
            // There is one answer: nothing is retried.
            let _ = self.0.set(now);
        }
        Ok(())
    }
}
