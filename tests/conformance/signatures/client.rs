//! A client without credentials: it sends what was signed, or something slightly different.

use reqwest::{Method, header::HeaderMap};
use upload_gateway_core::blobs::sign::SignedRequest;

/// A store's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Sends a signed request with its own body, or none.
pub(crate) async fn send(request: &SignedRequest) -> Answer {
    let body = request.body.clone().unwrap_or_default();
    send_bytes(request, body.into_bytes()).await
}

/// Sends a signed request with these bytes.
pub(crate) async fn send_bytes(request: &SignedRequest, body: Vec<u8>) -> Answer {
    try_send(request, body).await.unwrap()
}

/// Checks that the store does not accept the signature for this request.
pub(crate) async fn expect_refusal(request: &SignedRequest, body: &[u8]) {
    expect_status(request, body, &[403]).await;
}

/// Checks that the answer has one of these statuses. A store that refuses a request by its head may close the
/// connection without reading the body.
pub(crate) async fn expect_status(request: &SignedRequest, body: &[u8], expected: &[u16]) {
    match try_send(request, body.to_vec()).await {
        Ok(answer) => assert!(
            expected.contains(&answer.status),
            "{request:?} is answered {}: {}",
            answer.status,
            answer.text()
        ),
        Err(error) => assert!(!body.is_empty(), "{request:?}: {error:?}"),
    }
}

async fn try_send(request: &SignedRequest, body: Vec<u8>) -> reqwest::Result<Answer> {
    let method = Method::from_bytes(request.verb.as_bytes()).unwrap();
    let mut builder = reqwest::Client::new().request(method, &request.url);
    for (name, value) in &request.headers {
        builder = builder.header(name.as_ref(), value);
    }
    if request.verb == "PUT" && body.is_empty() {
        // Browsers and curl send this header; reqwest does not by itself.
        builder = builder.header("Content-Length", 0);
    } else if request.verb != "GET" {
        builder = builder.body(body);
    }
    let response = builder.send().await?;
    Ok(Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await?.to_vec(),
    })
}

// === impl Answer ===

impl Answer {
    /// The body, if it is text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Checks that the request succeeded.
    pub(crate) fn expect_success(self) -> Self {
        let status = self.status;
        assert!((200..300).contains(&status), "{status}: {}", self.text());
        self
    }

    /// The content of the first element with this name.
    pub(crate) fn element(&self, name: &str) -> Option<String> {
        let text = self.text();
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        let (value, _) = rest.split_once(&format!("</{name}>"))?;
        Some(value.to_owned())
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}
