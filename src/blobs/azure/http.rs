//! The transport as the HTTP client of the Azure SDK.

#![allow(
    elided_lifetimes_in_paths,
    reason = "the trait elides them, and async_trait wants the same signature"
)]

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    path::Path,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use azure_core::{
    Error as AzureError,
    error::ErrorKind,
    http::{
        AsyncRawResponse, Body, Context, Request, Transport as AzureTransport,
        headers::{HeaderName, HeaderValue, Headers},
        policies::{Policy, PolicyResult},
    },
};
use bytes::Bytes;
use futures::{AsyncReadExt, StreamExt, stream};
use hyper::{Request as HttpRequest, Response, body::Body as _};
use upload_gateway_core::blobs::OPERATION_TIMEOUT;

use crate::{
    blobs::transport::{Answer, SendError, Timeouts, Transport},
    certificates::PemError,
};

/// Sends requests: the last policy of a pipeline. [`Timeouts`] in the context of a call apply to its requests.
#[derive(Debug)]
struct Sender(Transport);

/// A transport for a client's options. See [`Transport::new`].
pub(super) fn transport(ca_file: Option<&Path>) -> Result<AzureTransport, PemError> {
    let sender = Sender(Transport::new(ca_file)?);
    Ok(AzureTransport::with_policy(Arc::new(sender)))
}

/// Waits for a response, for at most `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    request: impl Future<Output = azure_core::Result<T>> + Send,
) -> azure_core::Result<T> {
    let answer = tokio::time::timeout(limit, request).await;
    answer.unwrap_or_else(|elapsed| Err(AzureError::new(ErrorKind::Io, elapsed)))
}

// === impl Sender ===

#[async_trait]
impl Policy for Sender {
    async fn send(
        &self,
        context: &Context,
        request: &mut Request,
        _: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        let timeouts = context
            .value()
            .copied()
            .unwrap_or_else(|| Timeouts::silence(OPERATION_TIMEOUT));
        let request = http_request(request).await?;
        let answer = self.0.send(request, timeouts).await;
        Ok(raw_response(answer.map_err(azure_error)?))
    }
}

async fn http_request(request: &Request) -> azure_core::Result<HttpRequest<Bytes>> {
    let body = in_memory(request.body().clone()).await?;
    let mut converted = HttpRequest::builder()
        .method(request.method().as_ref())
        .uri(request.url().as_str());
    for (name, value) in request.headers().iter() {
        converted = converted.header(name.as_str(), value.as_str());
    }
    converted
        .body(body)
        .map_err(|error| AzureError::new(ErrorKind::DataConversion, error))
}

/// The bytes of a body. Adapters only send bodies that are in memory; the SDK makes a stream of some.
async fn in_memory(body: Body) -> azure_core::Result<Bytes> {
    match body {
        Body::Bytes(bytes) => Ok(bytes),
        Body::SeekableStream(mut stream) => {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await?;
            Ok(bytes.into())
        }
    }
}

fn raw_response(answer: Response<Answer>) -> AsyncRawResponse {
    let (head, body) = answer.into_parts();
    let headers: HashMap<_, _> = head
        .headers
        .iter()
        .filter_map(|(name, value)| {
            let value = value.to_str().ok()?.to_owned();
            Some((
                HeaderName::from(name.as_str().to_owned()),
                HeaderValue::from(value),
            ))
        })
        .collect();
    let chunks = stream::try_unfold(body, |mut body| async move {
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            // Other frames are trailers.
            if let Ok(data) = frame.map_err(azure_error)?.into_data() {
                return Ok(Some((data, body)));
            }
        }
        Ok(None)
    });
    let status = head.status.as_u16().into();
    AsyncRawResponse::new(status, Headers::from(headers), chunks.boxed())
}

fn azure_error(error: SendError) -> AzureError {
    AzureError::new(ErrorKind::Io, error)
}
