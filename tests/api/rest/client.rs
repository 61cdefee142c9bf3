//! An HTTP client of the gateway and of the store.

use reqwest::{
    Client, Method, RequestBuilder,
    header::{CONTENT_LENGTH, HeaderMap},
    redirect::Policy,
};
use serde_json::{Value, json};
use upload_gateway_core::upload::{Md5, PART_SIZE};

use super::common::TestGateway;

pub(crate) const BASE: &str = "/api/engine/v2/uploads";

/// An upload that does not exist.
pub(crate) const UNKNOWN: &str = "uploads-0123456789abcdef-0123456789abcdef0123456789abcdef";

pub(crate) struct Http {
    server: String,
    client: Client,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

// === impl Http ===

impl Http {
    pub(crate) fn of(gateway: &TestGateway) -> Self {
        Self {
            server: gateway.http.clone(),
            client: Client::builder().redirect(Policy::none()).build().unwrap(),
        }
    }

    /// A request to `path` below the uploads.
    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method: Method = method.parse().unwrap();
        let url = format!("{}{BASE}{path}", self.server);
        self.client.request(method, url)
    }

    /// A request to `path` of the server.
    pub(crate) fn request_at(&self, method: &str, path: &str) -> RequestBuilder {
        let method: Method = method.parse().unwrap();
        self.client
            .request(method, format!("{}{path}", self.server))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request("GET", path)).await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        answer(self.request(method, path).body(body.to_string())).await
    }

    /// Sends a step's signed request with these bytes; it must succeed.
    pub(crate) async fn deliver(&self, step: &Value, body: Vec<u8>) -> String {
        let signature = &step["signature"];
        let url = signature["url"].as_str().unwrap();
        let method: Method = signature["verb"].as_str().unwrap().parse().unwrap();
        // reqwest sends no Content-Length for an empty body.
        let length = (body.is_empty() && method != Method::GET).then_some(0);
        let mut request = self.client.request(method, url).body(body);
        if let Some(length) = length {
            request = request.header(CONTENT_LENGTH, length);
        }
        for (name, value) in signature["headers"].as_object().unwrap() {
            request = request.header(name, value.as_str().unwrap());
        }
        let answer = answer(request).await;
        assert!(answer.status < 300, "{step}: {answer:?}");
        String::from_utf8(answer.body).unwrap()
    }

    /// Begins the store's session and returns its name; any name if the store has no sessions.
    pub(crate) async fn begin(&self, step: &Value) -> String {
        if step["signature"]["url"] == "" {
            return "MDAwMDAx".into();
        }
        let answer = self.deliver(step, Vec::new()).await;
        let (_, rest) = answer.split_once("<UploadId>").unwrap();
        rest.split_once('<').unwrap().0.into()
    }

    /// Uploads a small file; its id.
    pub(crate) async fn upload(&self, name: &str, bytes: &[u8], more: &Value) -> String {
        let mut file = file(name, bytes);
        let more = more.as_object().unwrap().clone();
        file.as_object_mut().unwrap().extend(more);
        let step = self.call("POST", "", file).await.json();
        let id = text(&step["upload_id"]);
        self.deliver(&step, bytes.to_vec()).await;
        let done = self.call("PUT", &format!("/{id}"), json!({})).await;
        assert_eq!(done.json(), json!({"ok": true}));
        id
    }
}

/// Sends a request.
pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await.unwrap().to_vec(),
    }
}

/// A file as PlaceOS clients describe it: the size is text.
pub(crate) fn file(name: &str, bytes: &[u8]) -> Value {
    json!({
        "file_name": name,
        "file_size": bytes.len().to_string(),
        "file_id": Md5::of(bytes).to_string(),
        "permissions": "none",
        "public": true,
    })
}

/// The bytes of one part, of the size that the gateway dictates.
pub(crate) fn part_of(file: &[u8], part: usize) -> &[u8] {
    let size = usize::try_from(PART_SIZE).unwrap();
    file.chunks(size).nth(part - 1).unwrap()
}

pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}

/// The keys of an object.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

// === impl Answer ===

impl Answer {
    pub(crate) fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// The path of the next page below the uploads.
    pub(crate) fn next(&self) -> Option<String> {
        let (link, relation) = self.header("link").split_once(">; ")?;
        assert_eq!(relation, "rel=\"next\"");
        Some(link.strip_prefix(&format!("<{BASE}")).unwrap().to_owned())
    }

    /// Status and refused parameter.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let body = self.json();
        assert!(!text(&body["error"]).is_empty(), "{self:?}");
        (
            self.status,
            body["parameter"].as_str().unwrap_or_default().to_owned(),
        )
    }
}
