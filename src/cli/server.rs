//! The gateway that a command calls.

use std::{fs, path::PathBuf};

use upload_gateway_client::{Client, ClientError, ConnectError, ConnectOptions};

use super::error::CliError;
use crate::config::SERVER_VARIABLE;

/// The gateway of a `serve` on this machine.
const DEFAULT: &str = "http://127.0.0.1:50051";

/// The gateway that a command calls, and what is presented to it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Server {
    /// The URL of the gateway
    #[arg(long, value_name = "URL", env = SERVER_VARIABLE, default_value = DEFAULT)]
    server: String,
    /// A file with certificates of authorities, in PEM, besides those of the system
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A file with a client certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// A file with the private key of the client certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// A file with a token; it is read again for each try
    #[arg(long, value_name = "FILE", conflicts_with = "api_key_file")]
    token_file: Option<PathBuf>,
    /// A file with an API key; it is read again for each try
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

// === impl Server ===

impl Server {
    /// A client of the gateway.
    ///
    /// # Errors
    /// What is wrong with the server at the address, if a gateway does not answer there.
    pub(super) async fn client(&self) -> Result<Client, CliError> {
        let client = self.connect()?;
        match client.check_connection().await {
            Ok(()) => Ok(client),
            Err(error) => Err(with_advice(error, "")),
        }
    }

    /// The same for a command that retries. If `waits`, a server may also start later.
    pub(super) async fn retrying_client(&self, waits: bool) -> Result<Client, CliError> {
        let client = self.connect()?;
        match client.check_connection().await {
            Ok(()) => Ok(client),
            Err(ClientError::Connect(ConnectError::NoServer { .. })) if waits => Ok(client),
            Err(error) => Err(with_advice(error, ", --wait waits for it")),
        }
    }

    /// The options that repeat this connection, as words of a command.
    pub(super) fn words(&self) -> Vec<String> {
        let server = Some(self.server.as_str()).filter(|server| *server != DEFAULT);
        let server = server.map(|server| ["--server".to_owned(), server.to_owned()]);
        let files = [
            ("--ca", &self.ca),
            ("--cert", &self.cert),
            ("--key", &self.key),
            ("--token-file", &self.token_file),
            ("--api-key-file", &self.api_key_file),
        ];
        let files = files.into_iter().filter_map(|(option, file)| {
            let file = file.as_ref()?.to_string_lossy();
            Some([option.to_owned(), file.into_owned()])
        });
        server.into_iter().chain(files).flatten().collect()
    }

    fn connect(&self) -> Result<Client, CliError> {
        let options = ConnectOptions {
            authorities: read(self.ca.as_ref())?,
            certificate: read(self.cert.as_ref())?,
            key: read(self.key.as_ref())?,
            token_file: self.token_file.clone(),
            api_key_file: self.api_key_file.clone(),
        };
        Ok(Client::connect_with(&self.server, &options)?)
    }
}

fn read(path: Option<&PathBuf>) -> Result<Option<String>, CliError> {
    let Some(path) = path else { return Ok(None) };
    let text = fs::read_to_string(path);
    text.map(Some)
        .map_err(|error| CliError::input_output(format!("read {}", path.display()), error))
}

/// The error with the options that help.
fn with_advice(error: ClientError, hint: &'static str) -> CliError {
    match error {
        ClientError::Connect(ConnectError::NoServer { server, source }) => CliError::NoGateway {
            server,
            hint,
            source,
        },
        error => error.into(),
    }
}
