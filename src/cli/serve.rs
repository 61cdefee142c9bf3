//! `serve`: runs the gateway.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, output};
use crate::{
    config::{self, FILE_VARIABLE, Flags},
    serve::Server,
    telemetry,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration, in TOML
    #[arg(long, value_name = "FILE", env = FILE_VARIABLE)]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    /// Print the effective configuration without its secrets, and stop
    #[arg(long)]
    print_config: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let config = config::from_process(arguments.config.as_deref(), &arguments.flags)?;
    if arguments.print_config {
        return output::data(config.to_toml().trim_end());
    }
    telemetry::init(&config.log).map_err(CliError::Serve)?;
    let stop =
        stop_signal().map_err(|error| CliError::input_output("listen for signals", error))?;
    let server = Server::bind(&config).await.map_err(CliError::Serve)?;
    let announcement = server.announcement();
    for line in announcement.map_err(|error| CliError::input_output("name the listeners", error))? {
        output::data(line)?;
    }
    server.run(stop).await.map_err(CliError::Serve)
}

/// Ends with SIGINT or SIGTERM; they are listened for from now on.
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
