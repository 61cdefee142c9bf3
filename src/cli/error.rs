//! Why a command failed, and what the process ends with.

use std::{error::Error as StdError, io, process::ExitCode};

use upload_gateway_client::ClientError;

use super::output;
use crate::config::ConfigError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// A key of the configuration is wrong.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// A call of the gateway failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The gateway does not start, or stopped.
    #[error(transparent)]
    Serve(Box<dyn StdError + Send + Sync>),
    /// Reading or writing here failed.
    #[error("{action}")]
    InputOutput {
        /// What was tried, as a verb.
        action: String,
        /// How it failed.
        source: io::Error,
    },
    /// What was to be shown did not hold.
    #[error("{0}")]
    Failed(String),
    /// The arguments do not go together.
    #[error("{0}")]
    Usage(&'static str),
}

/// The command was called wrongly: what clap ends with, too.
const WRONG_USAGE: u8 = 2;

/// The configuration is wrong: EX_USAGE of `sysexits.h`.
const WRONG_CONFIGURATION: u8 = 64;

// === impl CliError ===

impl CliError {
    pub(super) fn input_output(action: impl Into<String>, source: io::Error) -> Self {
        Self::InputOutput {
            action: action.into(),
            source,
        }
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// Says why on standard error.
    pub(super) fn report(&self) -> ExitCode {
        output::log(format_args!("error: {}", chain(self)));
        match self {
            Self::Config(_) => ExitCode::from(WRONG_CONFIGURATION),
            Self::Usage(_) => ExitCode::from(WRONG_USAGE),
            _ => ExitCode::FAILURE,
        }
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}
