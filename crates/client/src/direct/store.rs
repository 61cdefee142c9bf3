//! Sends signed requests to the store.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::{Method, Response, header::CONTENT_LENGTH};
use tokio::{sync::watch, time::timeout};

use crate::{
    error::{ClientError, StoreRefusal},
    proto::v1::Signature,
};

/// How long a connection may take to be established.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request may make no progress, neither in its body nor in the response. A whole request has no time limit:
/// parts are large and connections can be slow.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The size of the frames of a body in bytes.
const FRAME_SIZE: usize = 64 * 1024;

/// The maximum number of bytes that are read of a response. Stores answer signed requests with a short document.
const MAX_RESPONSE_SIZE: usize = 64 * 1024;

/// An HTTP client for signed requests.
#[derive(Debug)]
pub(super) struct Store {
    /// Uses the proxy that the environment names.
    http: reqwest::Client,
    /// Uses no proxy.
    local: reqwest::Client,
    idle_timeout: Duration,
}

/// A body in memory that reports how much of it was sent.
struct Metered {
    rest: Bytes,
    sent: watch::Sender<u64>,
}

// === impl Store ===

impl Store {
    pub(super) fn new() -> Result<Self, ClientError> {
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                // A signature is valid for one URL only.
                .redirect(reqwest::redirect::Policy::none())
        };
        let build = |builder: reqwest::ClientBuilder| {
            let built = builder.build();
            built.map_err(|error| StoreRefusal::no_response(describe(error)))
        };
        Ok(Self {
            http: build(builder())?,
            local: build(builder().no_proxy())?,
            idle_timeout: IDLE_TIMEOUT,
        })
    }

    /// Sends one request and returns the text of the response. `on_sent` gets the number of bytes that were sent since the
    /// last call.
    pub(super) async fn send(
        &self,
        signed: &Signature,
        body: Bytes,
        mut on_sent: impl FnMut(u64) + Send,
    ) -> Result<String, StoreRefusal> {
        let method = Method::from_bytes(signed.verb.as_bytes()).map_err(|_| {
            StoreRefusal::no_response(format!("{:?} is not an HTTP method", signed.verb))
        })?;
        let (sent, mut moved) = watch::channel(0);
        // A proxy cannot reach a store on this machine, and must not see the files for it.
        let http = match is_loopback(&signed.url) {
            true => &self.local,
            false => &self.http,
        };
        let mut request = http
            .request(method, &signed.url)
            .header(CONTENT_LENGTH, body.len());
        for (name, value) in &signed.headers {
            request = request.header(name, value);
        }
        let metered = Metered {
            rest: body,
            sent: sent.clone(),
        };
        let request = request.body(reqwest::Body::wrap(metered));
        let mut exchange = pin!(async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            let text = read(response, &sent).await?;
            Ok((status, text))
        });
        let mut reported = 0;
        loop {
            tokio::select! {
                response = &mut exchange => {
                    let (status, text) = response
                        .map_err(|error| StoreRefusal::no_response(describe(error)))?;
                    return check(status, text);
                }
                change = timeout(self.idle_timeout, moved.changed()) => {
                    if change.is_err() {
                        let seconds = self.idle_timeout.as_secs_f32();
                        return Err(StoreRefusal::no_response(format!("no progress for {seconds} s")));
                    }
                    let now = *moved.borrow_and_update();
                    on_sent(now - reported);
                    reported = now;
                }
            }
        }
    }
}

/// The text of an element without attributes, in the short XML documents that stores answer with.
pub(super) fn element(document: &str, name: &str) -> Option<String> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let mut text = text.trim().to_owned();
    for (entity, character) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        // The last one, so that its result is not replaced again.
        ("&amp;", "&"),
    ] {
        text = text.replace(entity, character);
    }
    Some(text)
}

/// Whether the URL is one of this machine.
fn is_loopback(url: &str) -> bool {
    let url = reqwest::Url::parse(url).ok();
    let host = url.as_ref().and_then(|url| url.host_str());
    let host = host.unwrap_or_default().trim_end_matches('.');
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

async fn read(mut response: Response, moved: &watch::Sender<u64>) -> reqwest::Result<String> {
    let mut text = Vec::new();
    while text.len() < MAX_RESPONSE_SIZE
        && let Some(chunk) = response.chunk().await?
    {
        moved.send_modify(|_| ());
        text.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// S3 may answer CompleteMultipartUpload with status 200 and an error in the body.
fn check(status: u16, text: String) -> Result<String, StoreRefusal> {
    if (200..300).contains(&status) && !text.contains("<Error>") {
        return Ok(text);
    }
    let message = element(&text, "Message").unwrap_or_default();
    Err(StoreRefusal {
        status: Some(status),
        code: element(&text, "Code").unwrap_or_default(),
        // The next lines of Azure's message are a request id and the time.
        message: message.lines().next().unwrap_or_default().to_owned(),
    })
}

/// The innermost cause, without the URL: it lets its readers write to the store.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

// === impl Metered ===

impl Body for Metered {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let size = FRAME_SIZE.min(self.rest.len());
        let frame = self.rest.split_to(size);
        self.sent.send_modify(|sent| *sent += size as u64);
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_a_resumable_failure() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let signed = Signature {
            verb: "PUT".into(),
            url: format!("http://{}/?secret", listener.local_addr().unwrap()),
            ..Signature::default()
        };
        let store = Store {
            idle_timeout: Duration::from_millis(50),
            ..Store::new().unwrap()
        };
        let mut sent = 0;
        let body = Bytes::from_static(b"bytes");
        let refusal = store.send(&signed, body, |more| sent += more).await;
        let refusal = ClientError::from(refusal.unwrap_err());
        assert!(refusal.is_resumable());
        let text = refusal.to_string();
        assert!(text.contains("no progress for 0.05 s"), "{text}");
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(sent, 5);
    }

    #[test]
    fn an_error_in_the_body_of_a_success_is_a_failure() {
        let text = "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code><Message>again &amp; again</Message></Error>";
        let refusal = check(200, text.into()).unwrap_err();
        assert_eq!(refusal.code, "InternalError");
        assert_eq!(refusal.message, "again & again");
        assert!(ClientError::from(refusal).is_resumable());
        assert!(check(200, "<CompleteMultipartUploadResult/>".into()).is_ok());
        assert!(check(201, String::new()).is_ok());
    }

    #[test]
    fn permanent_errors_of_the_store_are_not_retried() {
        for (status, is_retried) in [
            (400, false),
            (404, false),
            (412, false),
            (429, true),
            (503, true),
        ] {
            let refusal = check(status, String::new()).unwrap_err();
            assert_eq!(
                ClientError::from(refusal).is_resumable(),
                is_retried,
                "{status}"
            );
        }
    }

    #[test]
    fn an_element_is_found_and_its_entities_are_decoded() {
        let text = "<Result xmlns=\"s3\"><UploadId>a&amp;lt;b&lt;</UploadId></Result>";
        assert_eq!(element(text, "UploadId").unwrap(), "a&lt;b<");
        assert_eq!(element(text, "Code"), None);
    }
}
