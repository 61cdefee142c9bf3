//! The command line. Data goes to standard output, all other output to standard error.

mod api_key;
mod demo;
mod doctor;
mod error;
mod get;
mod health;
mod interrupt;
mod list;
mod output;
mod principal;
mod progress;
mod put;
mod records;
mod remove;
mod serve;
mod server;
mod status;
mod sweep;
mod token;
mod url;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::error::{CliError, chain};

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 failed, 2 invalid usage, 64 invalid configuration.
Every flag of `serve` is also an environment variable, UPLOAD_GATEWAY_GRPC_LISTEN, and a key of the file, grpc_listen.";

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
    /// Upload a file, and resume until it is stored
    #[command(after_help = AFTER_HELP)]
    Put(put::Arguments),
    /// List uploads, newest first
    Ls(list::Arguments),
    /// Show one upload
    Status(status::Arguments),
    /// Download the file of a finished upload, and resume by itself
    Get(get::Arguments),
    /// Print a link that downloads a finished upload
    Url(url::Arguments),
    /// Abort an open upload, or delete the file of a complete one
    Rm(remove::Arguments),
    /// Ask a gateway whether it can serve, for health checks of containers
    Health(health::Arguments),
    /// Check every configured store, and advise how to fix what is wrong
    Doctor(doctor::Arguments),
    /// Expire uploads and delete what is orphaned in the stores, once; `serve` does so by itself
    #[command(after_help = AFTER_HELP)]
    Sweep(sweep::Arguments),
    /// Change records without a gateway
    #[command(after_help = AFTER_HELP)]
    Records(records::Arguments),
    /// Make an API key, and the table that lets the gateway accept it
    ApiKey(api_key::Arguments),
    /// Make a token for development, and the table that lets the gateway accept it
    Token(token::Arguments),
    /// Upload, kill the gateway during the stream, resume, compare digests
    Demo,
}

/// Runs the command of the process's arguments. The exit code is 0 if it is done, 1 if it failed, 2 for invalid usage, and 64
/// for an invalid configuration.
pub fn main() -> ExitCode {
    // Exits with 2 if the usage is invalid.
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return report(&CliError::input_output("start the runtime", error)),
    };
    let result = runtime.block_on(arguments.command.run());
    // A pending read of standard input must not keep the process running.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// Prints the error and its causes to standard error.
fn report(error: &CliError) -> ExitCode {
    output::log(format_args!("error: {}", chain(error)));
    error.exit_code()
}

// === impl Command ===

impl Command {
    async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Serve(arguments) => Box::pin(serve::run(arguments)).await,
            Self::Put(arguments) => Box::pin(put::run(arguments)).await,
            Self::Ls(arguments) => list::run(arguments).await,
            Self::Status(arguments) => status::run(arguments).await,
            Self::Get(arguments) => get::run(arguments).await,
            Self::Url(arguments) => url::run(arguments).await,
            Self::Rm(arguments) => remove::run(arguments).await,
            Self::Health(arguments) => health::run(arguments).await,
            Self::Doctor(arguments) => Box::pin(doctor::run(arguments)).await,
            Self::Sweep(arguments) => Box::pin(sweep::run(arguments)).await,
            Self::Records(arguments) => Box::pin(records::run(arguments)).await,
            Self::ApiKey(arguments) => api_key::run(arguments),
            Self::Token(arguments) => token::run(&arguments),
            Self::Demo => Box::pin(demo::run()).await,
        }
    }
}
