//! `serve`: runs the gateway.

use std::path::PathBuf;

use tokio::sync::oneshot;

use super::{
    error::{CliError, chain},
    output,
    signals::Signals,
};
use crate::{
    config::{self, FILE_VARIABLE, Flags},
    serve::Server,
    telemetry,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file, in TOML
    #[arg(long, value_name = "FILE", env = FILE_VARIABLE)]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    /// Print the effective configuration without its secrets, and exit
    #[arg(long)]
    print_config: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let config = config::from_process(arguments.config.as_deref(), &arguments.flags)?;
    if arguments.print_config {
        return output::data(config.to_toml().trim_end());
    }
    let log = telemetry::init(&config.log).map_err(CliError::Serve)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        settings = %config.to_json(),
        "the gateway starts"
    );
    let stop =
        stop_signal().map_err(|error| CliError::input_output("listen for signals", error))?;
    let server = Server::bind(&config).await.map_err(CliError::Serve)?;
    let server = server.with_log(log);
    let announcement = server.announcement();
    for line in
        announcement.map_err(|error| CliError::input_output("print the listen addresses", error))?
    {
        // Also if its reader has closed standard output: a gateway does not end in silence.
        output::data(line).map_err(|error| CliError::failed(chain(&error)))?;
    }
    server.run(stop).await.map_err(CliError::Serve)
}

/// Completes at the first SIGINT or SIGTERM, or Ctrl-C on Windows. A second one ends the process at once, whatever runs: all
/// state is in the stores, and clients send again what was not acknowledged.
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut signals = Signals::of_server()?;
    let (first, stopped) = oneshot::channel();
    tokio::spawn(async move {
        signals.received().await;
        // The receiver was dropped if the server has stopped by itself.
        let _ = first.send(());
        signals.received().await;
        tracing::warn!("a second signal: the process ends at once");
        std::process::exit(1);
    });
    Ok(async {
        // The sender is not dropped before it has sent: its task runs until the process exits.
        let _ = stopped.await;
    })
}
