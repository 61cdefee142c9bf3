//! The gateway that a command calls.

use upload_gateway_client::{Client, ClientError, ConnectError};

use super::error::CliError;
use crate::config::SERVER_VARIABLE;

/// The gateway of a `serve` on this machine.
const DEFAULT: &str = "http://127.0.0.1:50051";

/// The gateway that a command calls.
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// The URL of the gateway
    #[arg(long, value_name = "URL", env = SERVER_VARIABLE, default_value = DEFAULT)]
    server: String,
}

// === impl Server ===

impl Server {
    /// A client of the gateway.
    ///
    /// # Errors
    /// What is wrong with the server at the address, if a gateway does not answer there.
    pub(super) async fn client(&self) -> Result<Client, CliError> {
        let client = Client::connect(&self.server)?;
        match client.check_connection().await {
            Ok(()) => Ok(client),
            Err(error) => Err(with_advice(error, "")),
        }
    }

    /// The same for a command that retries. If `waits`, a server may also start later.
    pub(super) async fn retrying_client(&self, waits: bool) -> Result<Client, CliError> {
        let client = Client::connect(&self.server)?;
        match client.check_connection().await {
            Ok(()) => Ok(client),
            Err(ClientError::Connect(ConnectError::NoServer { .. })) if waits => Ok(client),
            Err(error) => Err(with_advice(error, ", --wait waits for it")),
        }
    }

    /// The URL, if it is not the default one.
    pub(super) fn given(&self) -> Option<&str> {
        Some(self.server.as_str()).filter(|server| *server != DEFAULT)
    }
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
