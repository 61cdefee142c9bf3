//! The command line. Data goes to standard output, everything else to standard error.

mod demo;
mod doctor;
mod error;
mod list;
mod output;
mod progress;
mod put;
mod remove;
mod serve;
mod status;
mod sweep;
mod url;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use upload_gateway_client::Client;

use self::error::CliError;
use crate::config::SERVER_VARIABLE;

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 64 wrong configuration.
Every flag of `serve` is also a variable, UPLOAD_GATEWAY_GRPC_LISTEN, and a key of the file, grpc_listen.";

/// Streams files over gRPC into S3 or Azure Blob, and resumes on any replica.
#[derive(Debug, Parser)]
#[command(name = "upload-gateway", version, about, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    #[command(after_help = AFTER_HELP)]
    Serve(serve::Arguments),
    /// Upload a file, resuming until it is there
    #[command(after_help = AFTER_HELP)]
    Put(put::Arguments),
    /// List uploads, newest first
    Ls(list::Arguments),
    /// Show one upload
    Status(status::Arguments),
    /// Print a link that downloads a finished upload
    Url(url::Arguments),
    /// Give an open upload up
    Rm(remove::Arguments),
    /// Check every configured store, and say how to mend what is wrong
    Doctor(doctor::Arguments),
    /// Give up expired uploads and end what was left behind, once; `serve` does so by itself
    #[command(after_help = AFTER_HELP)]
    Sweep(sweep::Arguments),
    /// Upload, kill the gateway in mid-stream, resume, compare digests
    Demo,
}

/// Which gateway a command speaks to.
#[derive(Debug, clap::Args)]
struct Server {
    /// The gateway
    #[arg(long, value_name = "URL", env = SERVER_VARIABLE, default_value = "http://127.0.0.1:50051")]
    server: String,
}

/// Runs the command that the process was started with, and says how it went: 0 done, 1 failed, 2 wrong usage, 64 wrong
/// configuration.
pub fn main() -> ExitCode {
    // Wrong usage ends here, with 2.
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return CliError::input_output("start the runtime", error).report(),
    };
    let result = runtime.block_on(arguments.command.run());
    // A read of standard input that nobody waits for any more must not hold the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

// === impl Command ===

impl Command {
    async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Serve(arguments) => Box::pin(serve::run(arguments)).await,
            Self::Put(arguments) => Box::pin(put::run(arguments)).await,
            Self::Ls(arguments) => list::run(arguments).await,
            Self::Status(arguments) => status::run(arguments).await,
            Self::Url(arguments) => url::run(arguments).await,
            Self::Rm(arguments) => remove::run(arguments).await,
            Self::Doctor(arguments) => Box::pin(doctor::run(arguments)).await,
            Self::Sweep(arguments) => Box::pin(sweep::run(arguments)).await,
            Self::Demo => Box::pin(demo::run()).await,
        }
    }
}

// === impl Server ===

impl Server {
    fn client(&self) -> Result<Client, CliError> {
        Ok(Client::connect(&self.server)?)
    }
}
