//! The gateway that a command calls.

use upload_gateway_client::Client;

use super::error::CliError;
use crate::config::SERVER_VARIABLE;

/// The gateway that a command calls.
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// The URL of the gateway
    #[arg(long, value_name = "URL", env = SERVER_VARIABLE, default_value = "http://127.0.0.1:50051")]
    server: String,
}

// === impl Server ===

impl Server {
    pub(super) fn client(&self) -> Result<Client, CliError> {
        Ok(Client::connect(&self.server)?)
    }
}
