//! Azure's blob protocol in memory, for tests that need many stores or change what is stored behind the gateway's back.
//!
//! Block blobs only: Put Blob, Put Block, Put Block From URL from the same account, Put Block List, Get Block List, Get Blob, Get Blob Properties, Delete Blob,
//! List Blobs, what sets properties, metadata, tags and tiers, and the calls on the container. Service signatures must be made with the account's key; times and
//! permissions in them are not checked, except that `sp=c` does not replace a blob. Account signatures are accepted.

mod copied;
mod placement;
mod request;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use axum::{
    body::{Body, to_bytes},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
        request::Parts as Head,
    },
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::{net::TcpListener, task::JoinHandle};
use upload_gateway_core::upload::{Crc64Nvme, Md5};

use self::request::{Query, check_digest, header, named_blocks, range};

/// The account. It has one container.
pub const ACCOUNT: &str = "devstoreaccount1";

/// A key in base64.
pub const ACCOUNT_KEY: &str = "a2V5IG9mIHRoZSB0ZXN0IGFjY291bnQ=";

/// An account in memory.
#[derive(Debug)]
pub struct MemoryAzure {
    container: String,
    /// The key in base64.
    key: Mutex<String>,
    blobs: Mutex<BTreeMap<String, Blob>>,
}

/// A server for one account; it stops when dropped.
#[derive(Debug)]
pub struct MemoryAzureServer {
    /// The account.
    pub azure: Arc<MemoryAzure>,
    /// `http://127.0.0.1:PORT/ACCOUNT`.
    pub endpoint: String,
    task: JoinHandle<()>,
}

/// What is stored under a name.
#[derive(Debug, Clone, Default)]
struct Blob {
    committed: Option<Committed>,
    /// By id; in the order in which Azure lists them.
    uncommitted: BTreeMap<String, Bytes>,
}

#[derive(Debug, Clone)]
struct Committed {
    content: Bytes,
    /// Ids and sizes; empty for a blob that was put whole.
    blocks: Vec<(String, Bytes)>,
    etag: String,
    modified: SystemTime,
    /// `content-type`, `content-md5`, `x-ms-meta-…`, and what else says how it is stored.
    headers: HeaderMap,
    /// The tags, as a query.
    tags: String,
}

/// An error with Azure's code.
struct Refused(u16, &'static str);

type Outcome = Result<Response<Bytes>, Refused>;

const NO_BLOB: Refused = Refused(404, "BlobNotFound");

// === impl MemoryAzure ===

impl MemoryAzure {
    /// An account with an empty container.
    pub fn new(container: &str) -> Self {
        Self {
            container: container.into(),
            key: Mutex::new(ACCOUNT_KEY.into()),
            blobs: Mutex::default(),
        }
    }

    /// Accepts from now on only signatures made with this key, in base64.
    pub fn replace_key(&self, key: &str) {
        *self.key.lock().unwrap() = key.into();
    }

    /// Serves the account on a free port.
    pub async fn serve(self) -> MemoryAzureServer {
        let azure = Arc::new(self);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        MemoryAzureServer {
            endpoint: format!("http://{address}/{ACCOUNT}"),
            task: tokio::spawn(serve(listener, Arc::clone(&azure))),
            azure,
        }
    }

    /// The content of a blob.
    pub fn content(&self, key: &str) -> Option<Bytes> {
        let blobs = self.blobs.lock().unwrap();
        Some(blobs.get(key)?.committed.as_ref()?.content.clone())
    }

    /// Removes everything under a name, as Azure does with uncommitted blocks after a week.
    pub fn remove(&self, key: &str) {
        self.blobs.lock().unwrap().remove(key);
    }

    /// Answers one request.
    pub fn answer(&self, head: &Head, body: &Bytes) -> Response<Bytes> {
        let query = Query::of(head);
        let answered = self
            .authorize(head, &query)
            .and_then(|key| self.dispatch(head, &query, &key, body));
        let mut response = answered.unwrap_or_else(|refused| refused.answer(head));
        let headers = response.headers_mut();
        set(headers, "x-ms-version", query.get("sv"));
        set(headers, "x-ms-request-id", "00000000-0000-0000-0000-0000");
        response
    }

    /// The decoded key of the blob; empty for the container.
    fn authorize(&self, head: &Head, query: &Query) -> Result<String, Refused> {
        let path = percent_decode_str(head.uri.path()).decode_utf8_lossy();
        let path = path.strip_prefix(&format!("/{ACCOUNT}/"));
        let path = path.ok_or(Refused(404, "ResourceNotFound"))?;
        let (container, key) = path.split_once('/').unwrap_or((path, ""));
        let secret = self.key.lock().unwrap().clone();
        let signature = query.signature(&secret, container, key);
        if query.get("ss").is_empty() && signature != query.get("sig") {
            return Err(Refused(403, "AuthenticationFailed"));
        }
        let creates = key.is_empty() && head.method == Method::PUT;
        if container != self.container && !creates {
            return Err(Refused(404, "ContainerNotFound"));
        }
        Ok(key.to_owned())
    }

    fn dispatch(&self, head: &Head, query: &Query, key: &str, body: &Bytes) -> Outcome {
        let comp = query.get("comp");
        placement::check(head, query)?;
        match (&head.method, key.is_empty(), comp) {
            (&Method::PUT, true, "") => Ok(response(201, HeaderMap::new(), Bytes::new())),
            (&Method::GET, true, "list") => Ok(self.list(query)),
            (&Method::GET | &Method::HEAD, true, "") => {
                Ok(response(200, HeaderMap::new(), Bytes::new()))
            }
            (&Method::PUT, false, "") => self.put(head, query, key, body),
            (&Method::PUT, false, "block") if head.headers.contains_key(copied::SOURCE) => {
                let block = self.copied(head)?;
                self.put_block(head, query, key, &block)
            }
            (&Method::PUT, false, "block") => self.put_block(head, query, key, body),
            (&Method::PUT, false, "blocklist") => self.put_block_list(head, key, body),
            (&Method::PUT, false, "properties" | "metadata" | "tags" | "tier") => {
                self.change(head, query, key, body)
            }
            (&Method::GET, false, "tags") => self.get_tags(query, key),
            (&Method::GET, false, "blocklist") => self.block_list(query, key),
            (&Method::GET | &Method::HEAD, false, "") => self.read(head, key),
            (&Method::DELETE, false, "") => self.delete(key),
            _ => Err(Refused(400, "UnsupportedHttpVerb")),
        }
    }

    fn put(&self, head: &Head, query: &Query, key: &str, body: &Bytes) -> Outcome {
        check_digest(head, body)?;
        let mut blobs = self.blobs.lock().unwrap();
        let exists = blobs.get(key).is_some_and(|blob| blob.committed.is_some());
        if exists && query.get("sp") == "c" {
            return Err(Refused(403, "AuthorizationPermissionMismatch"));
        }
        if exists && header(head, "if-none-match") == "*" {
            return Err(Refused(409, "BlobAlreadyExists"));
        }
        let committed = Committed::new(head, Vec::new(), body.clone(), Some(Md5::of(body)));
        let answer = committed.created(head);
        blobs.insert(
            key.to_owned(),
            Blob {
                committed: Some(committed),
                uncommitted: BTreeMap::new(),
            },
        );
        Ok(answer)
    }

    fn put_block(&self, head: &Head, query: &Query, key: &str, body: &Bytes) -> Outcome {
        check_digest(head, body)?;
        let id = query.get("blockid");
        if BASE64_STANDARD.decode(id).is_err() {
            return Err(Refused(400, "InvalidQueryParameterValue"));
        }
        let mut blobs = self.blobs.lock().unwrap();
        let blob = blobs.entry(key.to_owned()).or_default();
        if blob.uncommitted.keys().any(|other| other.len() != id.len()) {
            return Err(Refused(400, "InvalidBlobOrBlock"));
        }
        blob.uncommitted.insert(id.to_owned(), body.clone());
        let mut headers = HeaderMap::new();
        let compared = ["content-md5", "x-ms-source-content-md5"].map(|name| header(head, name));
        match compared.into_iter().find(|md5| !md5.is_empty()) {
            Some(md5) => set(&mut headers, "content-md5", md5),
            None => {
                let crc64 = Crc64Nvme::of(body).to_azure();
                set(&mut headers, "x-ms-content-crc64", &crc64);
            }
        }
        Ok(response(201, headers, Bytes::new()))
    }

    fn put_block_list(&self, head: &Head, key: &str, body: &Bytes) -> Outcome {
        let mut blobs = self.blobs.lock().unwrap();
        let empty = Blob::default();
        let blob = blobs.get(key).unwrap_or(&empty);
        let committed = blob.committed.iter().flat_map(|blob| &blob.blocks);
        let committed: BTreeMap<&String, &Bytes> =
            committed.map(|(id, block)| (id, block)).collect();
        let mut blocks = Vec::new();
        for (list, id) in named_blocks(&String::from_utf8_lossy(body)) {
            let uncommitted = blob.uncommitted.get(&id);
            let found = match list.as_str() {
                "Committed" => committed.get(&id).copied(),
                "Uncommitted" => uncommitted,
                _ => uncommitted.or(committed.get(&id).copied()),
            };
            let block = found.ok_or(Refused(400, "InvalidBlockList"))?.clone();
            blocks.push((id, block));
        }
        let content: Vec<&[u8]> = blocks.iter().map(|(_, block)| &**block).collect();
        let content = Bytes::from(content.concat());
        let committed = Committed::new(head, blocks, content, None);
        let answer = committed.created(head);
        blobs.insert(
            key.to_owned(),
            Blob {
                committed: Some(committed),
                uncommitted: BTreeMap::new(),
            },
        );
        Ok(answer)
    }

    fn block_list(&self, query: &Query, key: &str) -> Outcome {
        let blobs = self.blobs.lock().unwrap();
        let blob = blobs.get(key).ok_or(NO_BLOB)?;
        if blob.committed.as_ref().is_some_and(Committed::is_archived) {
            return Err(Refused(409, "BlobArchived"));
        }
        let asked = query.get("blocklisttype");
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
        let mut list = |name: &str, blocks: Vec<(&String, &Bytes)>| {
            let _ = write!(xml, "<{name}>");
            for (id, block) in blocks {
                let size = block.len();
                let _ = write!(xml, "<Block><Name>{id}</Name><Size>{size}</Size></Block>");
            }
            let _ = write!(xml, "</{name}>");
        };
        if asked != "uncommitted" {
            let blocks = blob.committed.iter().flat_map(|blob| &blob.blocks);
            list(
                "CommittedBlocks",
                blocks.map(|(id, block)| (id, block)).collect(),
            );
        }
        if matches!(asked, "all" | "uncommitted") {
            list("UncommittedBlocks", blob.uncommitted.iter().collect());
        }
        xml.push_str("</BlockList>");
        let mut headers = HeaderMap::new();
        set(&mut headers, "content-type", "application/xml");
        if let Some(committed) = &blob.committed {
            set(&mut headers, "etag", &committed.etag);
            let size = committed.content.len().to_string();
            set(&mut headers, "x-ms-blob-content-length", &size);
        }
        Ok(response(200, headers, xml.into()))
    }

    fn read(&self, head: &Head, key: &str) -> Outcome {
        let blobs = self.blobs.lock().unwrap();
        let committed = blobs.get(key).and_then(|blob| blob.committed.as_ref());
        let committed = committed.ok_or(NO_BLOB)?;
        let expected = header(head, "if-match");
        if !expected.is_empty() && expected != committed.etag {
            return Err(Refused(412, "ConditionNotMet"));
        }
        if head.method == Method::GET && committed.is_archived() {
            return Err(Refused(409, "BlobArchived"));
        }
        let mut headers = committed.headers.clone();
        set(&mut headers, "etag", &committed.etag);
        set(
            &mut headers,
            "last-modified",
            &http_date(committed.modified),
        );
        set(&mut headers, "x-ms-blob-type", "BlockBlob");
        set(&mut headers, "accept-ranges", "bytes");
        let size = committed.content.len();
        let Some(range) = range(head, size)? else {
            // The answer to HEAD has the length, too.
            set(&mut headers, "content-length", &size.to_string());
            return Ok(response(200, headers, committed.content.clone()));
        };
        if let Some(md5) = headers.remove("content-md5") {
            headers.insert("x-ms-blob-content-md5", md5);
        }
        let (start, last) = (range.start, range.end - 1);
        set(
            &mut headers,
            "content-range",
            &format!("bytes {start}-{last}/{size}"),
        );
        Ok(response(206, headers, committed.content.slice(range)))
    }

    fn delete(&self, key: &str) -> Outcome {
        let mut blobs = self.blobs.lock().unwrap();
        if blobs.get(key).is_none_or(|blob| blob.committed.is_none()) {
            return Err(NO_BLOB);
        }
        blobs.remove(key);
        Ok(response(202, HeaderMap::new(), Bytes::new()))
    }

    fn list(&self, query: &Query) -> Response<Bytes> {
        let container = &self.container;
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"http://127.0.0.1/\" \
             ContainerName=\"{container}\"><Blobs>"
        );
        let limit = query.get("maxresults").parse().unwrap_or(5_000);
        let blobs = self.blobs.lock().unwrap();
        let committed = blobs
            .iter()
            .filter_map(|(key, blob)| Some((key, blob.committed.as_ref()?)))
            .filter(|(key, _)| key.starts_with(query.get("prefix")));
        for (key, blob) in committed.take(limit) {
            let (key, size) = (
                key.replace('&', "&amp;").replace('<', "&lt;"),
                blob.content.len(),
            );
            let (etag, modified) = (&blob.etag, http_date(blob.modified));
            let _ = write!(
                xml,
                "<Blob><Name>{key}</Name><Properties><Last-Modified>{modified}</Last-Modified><Etag>{etag}</Etag>\
                 <Content-Length>{size}</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob>"
            );
        }
        xml.push_str("</Blobs><NextMarker /></EnumerationResults>");
        let mut headers = HeaderMap::new();
        set(&mut headers, "content-type", "application/xml");
        response(200, headers, xml.into())
    }
}

impl Drop for MemoryAzureServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Committed ===

impl Committed {
    fn new(head: &Head, blocks: Vec<(String, Bytes)>, content: Bytes, md5: Option<Md5>) -> Self {
        let mut headers = HeaderMap::new();
        let mime = ["x-ms-blob-content-type", "content-type"].map(|name| header(head, name));
        let mime = mime.into_iter().find(|mime| !mime.is_empty());
        set(
            &mut headers,
            "content-type",
            mime.unwrap_or("application/octet-stream"),
        );
        let given = header(head, "x-ms-blob-content-md5").to_owned();
        let md5 = md5.map(|md5| md5.to_string()).unwrap_or_default();
        let md5 = if given.is_empty() { md5 } else { given };
        if !md5.is_empty() {
            set(&mut headers, "content-md5", &md5);
        }
        placement::placed(head, &mut headers);
        Self {
            content,
            blocks,
            etag: etag(),
            tags: placement::tags(head),
            modified: SystemTime::now(),
            headers,
        }
    }

    /// The answer to its put or commit. That to a put names the digest that was compared.
    fn created(&self, head: &Head) -> Response<Bytes> {
        let mut headers = HeaderMap::new();
        for name in ["content-md5", "x-ms-content-crc64"] {
            match header(head, name) {
                "" => {}
                digest => set(&mut headers, name, digest),
            }
        }
        set(&mut headers, "etag", &self.etag);
        set(&mut headers, "last-modified", &http_date(self.modified));
        response(201, headers, Bytes::new())
    }
}

// === impl Refused ===

impl Refused {
    fn answer(self, head: &Head) -> Response<Bytes> {
        let Self(status, code) = self;
        let mut headers = HeaderMap::new();
        set(&mut headers, "x-ms-error-code", code);
        let mut body = Bytes::new();
        if head.method != Method::HEAD {
            set(&mut headers, "content-type", "application/xml");
            body = format!(
                "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
            )
            .into();
        }
        response(status, headers, body)
    }
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    let value = HeaderValue::from_str(value).unwrap();
    headers.insert(HeaderName::from_static(name), value);
}

fn etag() -> String {
    format!("\"0x{:016X}\"", rand::random::<u64>())
}

fn http_date(time: SystemTime) -> String {
    azure_core::time::to_rfc7231(&time.into())
}

fn response(status: u16, headers: HeaderMap, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = headers;
    response
}

async fn serve(listener: TcpListener, azure: Arc<MemoryAzure>) {
    while let Ok((stream, _)) = listener.accept().await {
        let azure = Arc::clone(&azure);
        tokio::spawn(async move {
            let service = service_fn(|request: Request<hyper::body::Incoming>| {
                let azure = Arc::clone(&azure);
                async move {
                    let (head, body) = request.into_parts();
                    let body = to_bytes(Body::new(body), usize::MAX)
                        .await
                        .unwrap_or_default();
                    Ok::<_, Infallible>(azure.answer(&head, &body).map(Body::from))
                }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        });
    }
}
