//! Log lines on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat};

/// Sends log lines to standard error, as `log` configures. A process can call it once.
///
/// # Errors
/// The filter is invalid, or it is the second call.
pub fn init(log: &Log) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let lines = fmt()
        .with_env_filter(EnvFilter::try_new(&log.filter)?)
        .with_writer(io::stderr);
    match log.format {
        LogFormat::Json => lines.json().try_init(),
        // The default on a terminal: with colours, unless NO_COLOR is set.
        LogFormat::Text if io::stderr().is_terminal() => lines.try_init(),
        LogFormat::Text => lines.with_ansi(false).try_init(),
    }
}
