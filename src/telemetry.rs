//! Log lines on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::{
    Layer, filter::Targets, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt,
};

use crate::config::{Log, LogFormat};

/// Sends log lines to standard error, as `log` configures. A process can call it once.
///
/// # Errors
/// The filter is invalid, or it is the second call.
pub fn init(log: &Log) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter: Targets = log.filter.parse()?;
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match log.format {
        LogFormat::Json => lines.json().boxed(),
        // The default on a terminal: with colours, unless NO_COLOR is set.
        LogFormat::Text if io::stderr().is_terminal() => lines.boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
    };
    Ok(registry().with(filter).with(lines).try_init()?)
}
