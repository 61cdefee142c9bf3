//! The gateway that a command calls.

use upload_gateway_client::Client;

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
    pub(super) fn client(&self) -> Result<Client, CliError> {
        Ok(Client::connect(&self.server)?)
    }

    /// The URL, if it is not the default one.
    pub(super) fn given(&self) -> Option<&str> {
        Some(self.server.as_str()).filter(|server| *server != DEFAULT)
    }
}
