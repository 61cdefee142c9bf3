//! The transport as the HTTP client of the AWS SDK.
//!
//! The SDK gives the client two of its time-outs: the connect time-out, and the read time-out, which is used here as the
//! longest time in which no byte moves. Its operation time-out limits a whole request.

use std::{future::poll_fn, path::Path, pin::pin, time::Duration};

use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::{
    Config,
    config::{
        Builder, HttpClient, RuntimeComponents,
        http::{HttpRequest, HttpResponse},
    },
    primitives::SdkBody,
};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    result::ConnectorError,
};
use bytes::{Bytes, BytesMut};
use hyper::{Request, body::Body};
use upload_gateway_core::blobs::{CONNECT_TIMEOUT, OPERATION_TIMEOUT};

use crate::{
    blobs::transport::{SendError, Timeouts, Transport},
    certificates::PemError,
};

/// The transport of all requests of a storage.
#[derive(Debug, Clone)]
pub(crate) struct SdkClient(Transport);

/// The transport with the time-outs of some requests.
#[derive(Debug)]
struct Connector {
    transport: Transport,
    timeouts: Timeouts,
}

/// The time-outs of a request: no byte moves for `silence`, or it takes longer than `total`.
pub(super) fn timeouts(silence: Duration, total: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(silence)
        .operation_timeout(total)
        .build()
}

/// A configuration that changes only the time-outs.
pub(super) fn config_with(silence: Duration, total: Duration) -> Builder {
    Config::builder().timeout_config(timeouts(silence, total))
}

// === impl SdkClient ===

impl SdkClient {
    /// As [`Transport::new`].
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, PemError> {
        Transport::new(ca_file).map(Self)
    }
}

impl HttpClient for SdkClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector {
            transport: self.0.clone(),
            timeouts: Timeouts {
                connect: settings.connect_timeout().unwrap_or(CONNECT_TIMEOUT),
                silence: settings.read_timeout().unwrap_or(OPERATION_TIMEOUT),
            },
        })
    }
}

// === impl Connector ===

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (transport, timeouts) = (self.transport.clone(), self.timeouts);
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|error| ConnectorError::user(error.into()))?;
            let (head, body) = request.into_parts();
            let body = in_memory(body).await?;
            let answer = transport
                .send(Request::from_parts(head, body), timeouts)
                .await;
            let answer = answer.map_err(connector_error)?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// The bytes of a body. Adapters only send bodies that are in memory: then this copies nothing.
async fn in_memory(body: SdkBody) -> Result<Bytes, ConnectorError> {
    let mut body = pin!(body);
    let mut whole = Bytes::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let Ok(data) = frame.map_err(ConnectorError::user)?.into_data() else {
            continue;
        };
        if whole.is_empty() {
            whole = data;
        } else {
            let mut both = BytesMut::from(whole);
            both.extend_from_slice(&data);
            whole = both.freeze();
        }
    }
    Ok(whole)
}

fn connector_error(error: SendError) -> ConnectorError {
    if error.is_timeout() {
        ConnectorError::timeout(error.into())
    } else {
        ConnectorError::io(error.into())
    }
}
