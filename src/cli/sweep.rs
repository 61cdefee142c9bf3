//! `sweep`: gives up expired uploads and ends what was left behind, once.

use std::path::PathBuf;

use upload_gateway_core::gateway::SweepReport;

use super::{CliError, output};
use crate::{
    config::{self, FILE_VARIABLE, Flags},
    serve::{self, ServeError},
    state::redb::OpenError,
    telemetry,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration, in TOML
    #[arg(long, value_name = "FILE", env = FILE_VARIABLE)]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    /// Change nothing, and tell what would be done
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
            "no storage is configured: the gateway that has the embedded store sweeps by itself",
        ));
    }
    telemetry::init(&config.log).map_err(CliError::Serve)?;
    let swept = Box::pin(serve::sweep_once(&config, arguments.dry_run)).await;
    let report = swept.map_err(explained)?.ok_or_else(|| {
        CliError::failed("a replica sweeps at this moment; nothing was done here")
    })?;
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
            "not all could be swept up; the log says what and why",
        )),
    }
}

fn lines(report: &SweepReport) -> [(&'static str, u64); 7] {
    [
        ("uploads and sessions examined", report.examined),
        ("expired uploads given up", report.expired),
        ("expired uploads found complete", report.completed),
        ("commits finished", report.finished_commits),
        ("aborted uploads cleared for good", report.cleared),
        ("sessions without an upload ended", report.aborted_sessions),
        ("failures", report.failures),
    ]
}

/// A running gateway has the embedded state to itself.
fn explained(error: ServeError) -> CliError {
    match error.downcast_ref() {
        Some(OpenError::Locked { .. }) => {
            CliError::failed(format!("{error}: while it runs it sweeps by itself"))
        }
        _ => CliError::Serve(error),
    }
}
