//! Why a command failed, and the exit code for it.

use std::{error::Error as StdError, io, process::ExitCode};

use upload_gateway_client::ClientError;

use crate::config::ConfigError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The configuration is invalid.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// A call to the gateway failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No server answers at the address of the gateway.
    #[error(
        "no gateway answers at {server}; --server or UPLOAD_GATEWAY_SERVER names its address{hint}"
    )]
    NoGateway {
        /// The URL.
        server: String,
        /// What else the command can do; begins with a comma.
        hint: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The gateway did not start, or stopped by itself.
    #[error(transparent)]
    Serve(Box<dyn StdError + Send + Sync>),
    /// Local input or output failed.
    #[error("{action}")]
    InputOutput {
        /// The action that failed, beginning with a verb.
        action: String,
        /// The cause.
        source: io::Error,
    },
    /// A signal ended the command.
    #[error("interrupted by {0}")]
    Interrupted(&'static str),
    /// Another failure.
    #[error("{0}")]
    Failed(String),
    /// The arguments cannot be combined.
    #[error("{0}")]
    Usage(&'static str),
}

/// Standard output was closed by its reader: the exit code of programs that SIGPIPE ends.
const CLOSED_OUTPUT: u8 = 128 + 13;

/// Invalid usage: the exit code of clap, too.
const INVALID_USAGE: u8 = 2;

/// An invalid configuration: EX_USAGE of `sysexits.h`.
const INVALID_CONFIGURATION: u8 = 64;

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

    /// Whether the reader of standard output wants no more of it, as in `… | head -1`. That is not reported.
    pub(super) fn is_closed_output(&self) -> bool {
        matches!(self, Self::InputOutput { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code of a command that failed with it.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(INVALID_CONFIGURATION),
            Self::Usage(_) => ExitCode::from(INVALID_USAGE),
            error if error.is_closed_output() => ExitCode::from(CLOSED_OUTPUT),
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
