//! The command line. Data goes to standard output, all other output to standard error.

mod api_key;
mod config;
mod confirm;
mod demo;
mod doctor;
mod error;
mod find;
mod follow;
mod get;
mod health;
mod human;
mod interrupt;
mod keep;
mod limits;
mod list;
mod output;
mod principal;
mod profile;
mod progress;
mod put;
mod records;
mod remove;
mod serve;
mod server;
mod status;
mod storages;
mod sweep;
mod table;
mod token;
mod transfer;
mod url;
mod watch;

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
    /// Follow an upload until it is finished
    Watch(watch::Arguments),
    /// Download the file of a finished upload, and resume by itself
    Get(get::Arguments),
    /// Print a link that downloads a finished upload
    Url(url::Arguments),
    /// Copy the file of a finished upload to a storage
    Cp(transfer::Copy),
    /// Move the file of a finished upload to a storage
    Mv(transfer::Move),
    /// Abort open uploads, or delete the files of complete ones
    Rm(remove::Arguments),
    /// Change how long the file of an upload is kept
    Keep(keep::Arguments),
    /// List the storages to which files can go
    Storages(storages::Arguments),
    /// Show the limits that uploads to a storage must respect
    Limits(limits::Arguments),
    /// Show and change profiles: named gateways, and what is presented to them
    Config(config::Arguments),
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
            Self::Watch(arguments) => watch::run(arguments).await,
            Self::Get(arguments) => get::run(arguments).await,
            Self::Url(arguments) => url::run(arguments).await,
            Self::Cp(arguments) => transfer::copy(arguments).await,
            Self::Mv(arguments) => transfer::move_file(arguments).await,
            Self::Rm(arguments) => remove::run(arguments).await,
            Self::Keep(arguments) => keep::run(arguments).await,
            Self::Storages(arguments) => storages::run(arguments).await,
            Self::Limits(arguments) => limits::run(arguments).await,
            Self::Config(arguments) => config::run(arguments),
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
