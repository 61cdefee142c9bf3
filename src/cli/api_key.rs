//! `api-key`: makes a key, and the table that lets the gateway accept it.

use super::{error::CliError, output, principal::Principal};
use crate::auth::{self, ApiKeyConfig};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The key is printed to standard output, and the table for the configuration to standard error.
The gateway needs only the digest, from which the key cannot be computed.

    upload-gateway api-key --id signage --tenant acme --subject signage 2>> config.toml > signage.key")]
pub(super) struct Arguments {
    /// The public part of the key: letters, digits, `-` and `_`
    #[arg(long)]
    id: String,
    #[command(flatten)]
    principal: Principal,
}

pub(super) fn run(arguments: Arguments) -> Result<(), CliError> {
    let made = auth::generate_api_key(&arguments.id);
    let (key, sha256) = made.map_err(|invalid| CliError::failed(invalid.to_string()))?;
    let table = ApiKeyConfig {
        id: arguments.id,
        sha256: Some(sha256),
        sha256_file: None,
        tenant: arguments.principal.tenant,
        subject: arguments.principal.subject,
        roles: arguments.principal.roles,
    };
    let checked = table.validate();
    checked.map_err(|invalid| CliError::failed(invalid.to_string()))?;
    for line in table.to_toml().lines() {
        output::log(line);
    }
    output::data(key)
}
