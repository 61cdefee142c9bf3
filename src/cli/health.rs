//! `health`: asks a gateway whether it can serve, for the health check of a container, which has no other HTTP client.

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    http::Uri,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

use super::{
    error::{CliError, chain},
    output,
};

/// How long the gateway may take to answer.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The URL to ask; the gateway's `operations_listen` has it without TLS
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:9090/readyz")]
    url: Uri,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let url = arguments.url;
    let answer = timeout(TIME_LIMIT, ask(url.clone())).await;
    let (is_healthy, text) = answer
        .unwrap_or_else(|_| Err(format!("no answer within {} s", TIME_LIMIT.as_secs())))
        .map_err(|problem| CliError::failed(format!("{url}: {problem}")))?;
    output::data(text.trim_end())?;
    match is_healthy {
        true => Ok(()),
        false => Err(CliError::failed(format!("{url}: the gateway is not ready"))),
    }
}

/// Whether the status of the answer is a success, and its text.
async fn ask(url: Uri) -> Result<(bool, String), String> {
    let client: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.get(url).await.map_err(|error| chain(&error))?;
    let is_healthy = answer.status().is_success();
    let body = to_bytes(Body::new(answer.into_body()), MAX_ANSWER).await;
    let body = body.map_err(|error| chain(&error))?;
    Ok((is_healthy, String::from_utf8_lossy(&body).into_owned()))
}
