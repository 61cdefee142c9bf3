//! tusd and rustus, servers of the tus protocol, and a client of it that only sends: <https://tus.io/protocols/resumable-upload>.

use std::{convert::Infallible, process::Command};

use axum::{
    body::Body,
    http::{Method, Request, Response, StatusCode, header, request},
};
use futures::stream;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use upload_gateway_core::upload::PART_SIZE;

use crate::{
    Result,
    common::{self, Server},
    payload::Payload,
    process::Process,
    store::Store,
};

/// The size of a piece of a body: the chunks that the gateway prefers.
const PIECE: u64 = 256 * 1024;

/// A running server with its defaults on a store, and connections to it.
#[derive(Debug)]
pub(super) struct Tus {
    process: Process,
    /// The URL of new uploads.
    uploads: String,
    http: Client<HttpConnector, Body>,
}

impl Tus {
    /// tusd. `None`: it is not installed.
    pub(super) fn tusd(store: &Store) -> Result<Option<Self>> {
        let Some(program) = common::find("tusd") else {
            return Ok(None);
        };
        let [access_key, secret_key] = store.credentials();
        let server = Server::start(|port, directory| {
            let mut command = Command::new(&program);
            command
                .env_clear()
                .env("AWS_ACCESS_KEY_ID", access_key)
                .env("AWS_SECRET_ACCESS_KEY", secret_key)
                .env("AWS_REGION", "us-east-1")
                // It writes each part into a file before it sends it.
                .env("TMPDIR", directory)
                .args(["-host", "127.0.0.1", "-port", &port.to_string()])
                .args([
                    "-s3-bucket",
                    &store.bucket,
                    "-s3-endpoint",
                    store.endpoint(),
                ]);
            command
        });
        Ok(Some(Self::at(server)))
    }

    /// rustus, which keeps a file on its disk until the last byte and then sends it to the store.
    ///
    /// # Errors
    /// It is not installed.
    pub(super) fn rustus(store: &Store) -> Result<Self> {
        let program = common::find("rustus")
            .ok_or("rustus is not installed; run tests/backends/install bench rustus")?;
        let [access_key, secret_key] = store.credentials();
        let server = Server::start(|port, directory| {
            let mut command = Command::new(&program);
            command
                .env_clear()
                .args(["--host", "127.0.0.1", "--port", &port.to_string()])
                .args(["--storage", "hybrid-s3", "--s3-force-path-style"])
                .args(["--s3-region", "us-east-1", "--s3-bucket", &store.bucket])
                .args(["--s3-url", store.endpoint()])
                .args(["--s3-access-key", access_key, "--s3-secret-key", secret_key])
                .arg("--data-dir")
                .arg(directory)
                .arg("--info-dir")
                .arg(directory);
            command
        });
        Ok(Self::at(server))
    }

    fn at(server: Server) -> Self {
        let process = Process::new(server);
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            uploads: format!("http://127.0.0.1:{}/files/", process.port()),
            process,
            http: Client::builder(TokioExecutor::new()).build(connector),
        }
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// Sends a file, in one request if it fits one part, and returns the keys of the objects that it is now.
    pub(super) async fn send(&self, payload: &Payload, size: u64) -> Result<Vec<String>> {
        let create = request(Method::POST, &self.uploads).header("upload-length", size);
        let is_small = size <= PART_SIZE;
        let created = match is_small {
            true => self.send_bytes(create, payload, size).await,
            false => self.call(create.body(Body::empty())?).await,
        }?;
        let location = expect(&created, StatusCode::CREATED, header::LOCATION)?;
        if is_small {
            let offset = expect(&created, StatusCode::CREATED, "upload-offset")?;
            check(offset, size)?;
        } else {
            let append = request(Method::PATCH, location).header("upload-offset", 0);
            let appended = self.send_bytes(append, payload, size).await?;
            check(
                expect(&appended, StatusCode::NO_CONTENT, "upload-offset")?,
                size,
            )?;
        }
        let id = location.rsplit('/').next().unwrap_or_default();
        let key = id.split('+').next().unwrap_or_default();
        Ok(vec![key.to_owned(), format!("{key}.info")])
    }

    async fn send_bytes(
        &self,
        request: request::Builder,
        payload: &Payload,
        size: u64,
    ) -> Result<Response<Incoming>> {
        let pieces = payload.pieces(size, PIECE);
        let pieces = pieces.map(|(_, bytes)| Ok::<_, Infallible>(bytes));
        let request = request
            .header(header::CONTENT_TYPE, "application/offset+octet-stream")
            .header(header::CONTENT_LENGTH, size);
        self.call(request.body(Body::from_stream(stream::iter(pieces)))?)
            .await
    }

    async fn call(&self, request: Request<Body>) -> Result<Response<Incoming>> {
        Ok(self.http.request(request).await?)
    }
}

fn request(method: Method, url: &str) -> request::Builder {
    Request::builder()
        .method(method)
        .uri(url)
        .header("tus-resumable", "1.0.0")
}

/// The header `name` of an answer with this status.
fn expect(
    answer: &Response<Incoming>,
    status: StatusCode,
    name: impl header::AsHeaderName,
) -> Result<&str> {
    if answer.status() != status {
        return Err(format!("the server of tus answered {}", answer.status()).into());
    }
    let value = answer.headers().get(name).ok_or("a header is missing")?;
    Ok(value.to_str()?)
}

fn check(offset: &str, size: u64) -> Result<()> {
    match offset.parse() == Ok(size) {
        true => Ok(()),
        false => Err(format!("the server of tus stored {offset} bytes of {size}").into()),
    }
}
