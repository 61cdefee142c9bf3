//! Whether a gateway answers at the address that its callers use, over gRPC or HTTP.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use upload_gateway_client::{Client, ClientError, ConnectError, ConnectOptions};
use upload_gateway_core::blobs::sign::SignedRequest;

use super::report::{Check, Fix};
use crate::{blobs::send_signed, cli::server::HEADING};

const NAME: &str = "call the gateway";

/// The answer of a gateway to a request for its life.
const ALIVE: &[u8] = b"ok";

/// An address to check.
#[derive(Debug, clap::Args)]
pub(super) struct Callers {
    /// Also call a running gateway at this URL, as its callers do: its gRPC port, or its HTTP port
    #[arg(long, help_heading = HEADING, value_name = "URL")]
    server: Option<String>,
    /// A file with certificates of authorities, in PEM, besides those of the system
    #[arg(long, help_heading = HEADING, value_name = "FILE", requires = "server")]
    ca: Option<PathBuf>,
}

// === impl Callers ===

impl Callers {
    /// Calls the gateway, if an address is given.
    pub(super) async fn check(&self) -> Option<Check> {
        let url = self.server.as_deref()?;
        let subject = format!("gateway at {}", without_password(url));
        Some(match self.call(url).await {
            Ok(protocol) => Check::ok(&subject, NAME, format!("a gateway answers over {protocol}")),
            Err((found, fix)) => Check::failed(&subject, NAME, found).with(fix),
        })
    }

    /// The protocol with which a gateway answers.
    async fn call(&self, url: &str) -> Result<&'static str, (String, Fix)> {
        let authorities = self.ca.as_ref().map(fs::read_to_string).transpose();
        let authorities = authorities
            .map_err(|error| (error.to_string(), Fix::key("--ca", "name a readable file")))?;
        let options = ConnectOptions {
            authorities,
            ..ConnectOptions::default()
        };
        let connected = async {
            let client = Client::connect_with(url, &options)?;
            client.check_connection().await?;
            client.limits("").await.map(drop)
        };
        match connected.await {
            Ok(()) => Ok("gRPC"),
            // A gateway that wants a credential, or that drains.
            Err(ClientError::Refused(refusal)) if refusal.reason.is_some() => Ok("gRPC"),
            Err(ClientError::Connect(ConnectError::HttpPort { .. })) => {
                http(url, self.ca.as_deref()).await
            }
            Err(error) => Err((
                error.to_string().replace(url, &without_password(url)),
                fix(&error),
            )),
        }
    }
}

/// The URL as it may be printed.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

async fn http(url: &str, ca: Option<&Path>) -> Result<&'static str, (String, Fix)> {
    let fix = |key: &str, advice: &str| Fix::key(key, advice);
    let request = SignedRequest {
        verb: "GET",
        url: format!("{}/healthz", url.trim_end_matches('/')),
        ..SignedRequest::default()
    };
    let answer = send_signed(&request, Bytes::new(), ca).await;
    let answer = answer.map_err(|problem| {
        (
            problem.to_string(),
            fix("http_listen", "check the address, and what listens there"),
        )
    })?;
    if answer.status.is_success() && answer.body.trim_ascii() == ALIVE {
        return Ok("HTTP");
    }
    let status = answer.status.as_u16();
    let found =
        format!("the server answers /healthz with status {status}, and not as a gateway does");
    Err((
        found,
        fix(
            "http_hosts",
            "add the host name of the address, or let the address lead to http_listen",
        ),
    ))
}

fn fix(error: &ClientError) -> Fix {
    match error {
        ClientError::Connect(
            ConnectError::UntrustedCertificate { .. } | ConnectError::Tls { .. },
        ) => Fix::key(
            "tls.cert_file",
            "it needs a certificate for the host name of the address, of an authority that callers trust (--ca names one)",
        ),
        ClientError::Connect(ConnectError::NoTls { .. }) => Fix::key(
            "tls.cert_file",
            "set it and tls.key_file, or use an address with http://",
        ),
        ClientError::InvalidServer { .. } | ClientError::Connect(ConnectError::NeedsTls { .. }) => {
            Fix::key("--server", "use an address with https://")
        }
        _ => Fix::key(
            "grpc_listen",
            "check that the gateway runs, and that the address leads to this port through every proxy",
        ),
    }
}
