//! `sweep`: expires uploads and deletes what is orphaned in the stores, once.

use std::path::PathBuf;

use upload_gateway_core::gateway::SweepReport;

use super::{error::CliError, output};
use crate::{
    config::{self, FILE_VARIABLE, Flags},
    serve::{self, ServeError},
    state::redb::OpenError,
    telemetry,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file, in TOML
    #[arg(long, value_name = "FILE", env = FILE_VARIABLE)]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    /// Change nothing, and print what would be done
    #[arg(long)]
    dry_run: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let config = config::from_process(arguments.config.as_deref(), &arguments.flags)?;
    if config.redis_url.is_some() && config.storage.is_empty() {
        return Err(CliError::failed(
            "no storage is configured: the gateway with the embedded store sweeps it by itself",
        ));
    }
    telemetry::init(&config.log).map_err(CliError::Serve)?;
    let swept = Box::pin(serve::sweep_once(&config, arguments.dry_run)).await;
    let report = swept
        .map_err(explained)?
        .ok_or_else(|| CliError::failed("another replica sweeps right now; nothing was done"))?;
    if arguments.json {
        output::data(serde_json::json!(report))?;
    } else {
        for (name, count) in lines(&report) {
            output::data(format_args!("{count:>8}  {name}"))?;
        }
    }
    match report.failures {
        0 => Ok(()),
        _ => Err(CliError::failed(
            "not everything could be swept; the log names each failure and its cause",
        )),
    }
}

fn lines(report: &SweepReport) -> [(&'static str, u64); 9] {
    [
        ("uploads and sessions examined", report.examined),
        ("uploads expired", report.expired),
        ("expired uploads found complete", report.completed),
        ("commits finished", report.finished_commits),
        ("expired files deleted", report.expired_files),
        ("aborted uploads deleted", report.cleared),
        ("orphaned sessions aborted", report.aborted_sessions),
        ("records removed to make room", report.removed_records),
        ("failures", report.failures),
    ]
}

/// Adds to the error of a locked embedded state store that its gateway sweeps.
fn explained(error: ServeError) -> CliError {
    match error.downcast_ref() {
        Some(OpenError::Locked { .. }) => {
            CliError::failed(format!("{error}: it sweeps while it runs"))
        }
        _ => CliError::Serve(error),
    }
}
