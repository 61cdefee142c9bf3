//! `records`: changes records without a gateway.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use upload_gateway_core::{
    gateway::{Restore, RestoreReport},
    upload::Owner,
};

use super::{error::CliError, output};
use crate::{
    config::{self, FILE_VARIABLE, Flags},
    serve::{self, ServeError},
    state::redb::OpenError,
    telemetry,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Give uploads that were made without authentication to an owner
    Adopt(Adopt),
    /// Restore records that the state store has lost from what the stores keep of them
    Rebuild(Rebuild),
}

#[derive(Debug, clap::Args)]
struct Rebuild {
    /// The configuration file, in TOML
    #[arg(long, value_name = "FILE", env = FILE_VARIABLE)]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    /// Only files in this storage [default: all storages]
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    storage: Option<String>,
    /// Change nothing, and count what would be restored
    #[arg(long)]
    dry_run: bool,
    /// Also restore records that no key has sealed, without owners: every writer of the bucket can forge them
    #[arg(long)]
    unauthenticated: bool,
    /// Print a JSON object for each storage
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Adopt {
    /// The configuration file, in TOML
    #[arg(long, value_name = "FILE", env = FILE_VARIABLE)]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    /// The tenant of the owner
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    tenant: String,
    /// The subject of the owner, as credentials name it
    #[arg(long, value_name = "SUBJECT", value_parser = NonEmptyStringValueParser::new())]
    owner: String,
    /// Change nothing, and count what would be adopted
    #[arg(long)]
    dry_run: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    match arguments.command {
        Command::Adopt(adopt) => adopt.run().await,
        Command::Rebuild(rebuild) => rebuild.run().await,
    }
}

// === impl Adopt ===

impl Adopt {
    async fn run(self) -> Result<(), CliError> {
        let config = config::from_process(self.config.as_deref(), &self.flags)?;
        telemetry::init(&config.log).map_err(CliError::Serve)?;
        let owner = Owner {
            tenant: self.tenant,
            subject: self.owner,
        };
        let adopted = Box::pin(serve::adopt(&config, &owner, self.dry_run)).await;
        let report = adopted.map_err(explained)?;
        if self.json {
            output::data(serde_json::json!(report))?;
        } else {
            output::data(format_args!("{:>8}  uploads adopted", report.adopted))?;
        }
        match report.busy {
            0 => Ok(()),
            busy => Err(CliError::failed(format!(
                "{busy} uploads changed at the same time; repeat the command"
            ))),
        }
    }
}

// === impl Rebuild ===

impl Rebuild {
    async fn run(self) -> Result<(), CliError> {
        let config = config::from_process(self.config.as_deref(), &self.flags)?;
        telemetry::init(&config.log).map_err(CliError::Serve)?;
        let how = Restore {
            dry_run: self.dry_run,
            unauthenticated: self.unauthenticated,
        };
        let restored = Box::pin(serve::restore(&config, self.storage.as_deref(), how)).await;
        let mut failures = 0;
        for (storage_id, report) in restored.map_err(explained)? {
            let RestoreReport {
                objects,
                restored,
                known,
                foreign,
                failed,
            } = report;
            failures += failed;
            if self.json {
                output::data(serde_json::json!({
                    "storage_id": storage_id,
                    "objects": objects,
                    "restored": restored,
                    "known": known,
                    "foreign": foreign,
                    "failed": failed,
                }))?;
                continue;
            }
            output::data(format_args!("storage {storage_id}"))?;
            for (count, what) in [
                (objects, "objects"),
                (restored, "records restored"),
                (known, "records exist"),
                (foreign, "objects without a record of their own"),
                (failed, "objects that could not be looked at"),
            ] {
                output::data(format_args!("{count:>8}  {what}"))?;
            }
        }
        match failures {
            0 => Ok(()),
            _ => Err(CliError::failed(format!(
                "{failures} objects could not be looked at; the log has their keys"
            ))),
        }
    }
}

/// Adds to the error of a locked embedded state store what to do.
fn explained(error: ServeError) -> CliError {
    match error.downcast_ref() {
        Some(OpenError::Locked { .. }) => {
            CliError::failed(format!("{error}: stop it for the time of this command"))
        }
        _ => CliError::Serve(error),
    }
}
