//! The command line. Data goes to standard output, all other output to standard error.

mod api_key;
mod colour;
mod completions;
mod config;
mod confirm;
mod demo;
mod doctor;
mod error;
mod examples;
mod find;
mod follow;
mod get;
mod health;
mod human;
mod interrupt;
mod keep;
mod limits;
mod list;
mod man;
mod output;
mod principal;
mod profile;
mod progress;
mod put;
mod records;
mod remove;
mod serve;
mod server;
mod signals;
mod status;
mod storages;
mod sweep;
mod table;
mod token;
mod transfer;
mod url;
mod watch;

use std::process::ExitCode;

use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::error::{CliError, chain};

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 failed, 2 invalid usage, 64 invalid configuration, 141 standard output closed.
Every flag of `serve` is also an environment variable, UPLOAD_GATEWAY_GRPC_LISTEN, and a key of the file, grpc_listen.";

/// Streams files over gRPC into S3 or Azure Blob, and resumes on any replica.
#[derive(Debug, Parser)]
#[command(name = "upload-gateway", version, about, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Whether output has colours: auto if it is a terminal, TERM is not dumb, and NO_COLOR is not set
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true
    )]
    color: ColorChoice,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    #[command(after_help = AFTER_HELP)]
    Serve(serve::Arguments),
    /// Upload a file, and resume until it is stored
    #[command(after_help = examples::PUT)]
    Put(put::Arguments),
    /// List uploads, newest first
    #[command(after_help = examples::LS)]
    Ls(list::Arguments),
    /// Show one upload
    #[command(after_help = examples::STATUS)]
    Status(status::Arguments),
    /// Follow an upload until it is finished
    #[command(after_help = examples::WATCH)]
    Watch(watch::Arguments),
    /// Download the file of a finished upload, and resume by itself
    #[command(after_help = examples::GET)]
    Get(get::Arguments),
    /// Print a link that downloads a finished upload
    #[command(after_help = examples::URL)]
    Url(url::Arguments),
    /// Copy the file of a finished upload to a storage
    #[command(after_help = examples::CP)]
    Cp(transfer::Copy),
    /// Move the file of a finished upload to a storage
    #[command(after_help = examples::MV)]
    Mv(transfer::Move),
    /// Abort open uploads, or delete the files of complete ones
    #[command(after_help = examples::RM)]
    Rm(remove::Arguments),
    /// Change how long the file of an upload is kept
    #[command(after_help = examples::KEEP)]
    Keep(keep::Arguments),
    /// List the storages to which files can go
    #[command(after_help = examples::STORAGES)]
    Storages(storages::Arguments),
    /// Show the limits that uploads to a storage must respect
    #[command(after_help = examples::LIMITS)]
    Limits(limits::Arguments),
    /// Show and change profiles: named gateways, and what is presented to them
    #[command(after_help = examples::CONFIG)]
    Config(config::Arguments),
    /// Ask a gateway whether it can serve, for health checks of containers
    #[command(after_help = examples::HEALTH)]
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
    /// Print the script that completes commands and options in a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions(completions::Arguments),
    /// Print manual pages
    #[command(after_help = examples::MAN)]
    Man(man::Arguments),
    /// Upload, kill the gateway during the stream, resume, compare digests
    Demo,
}

/// Runs the command of the process's arguments. The exit code is 0 if it is done, 1 if it failed, 2 for invalid usage, 64 for
/// an invalid configuration, and 141 if standard output was closed.
pub fn main() -> ExitCode {
    // Exits with 2 if the usage is invalid.
    let matches = Arguments::command().color(colour::set()).get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return report(&CliError::input_output("start the runtime", error)),
    };
    let code = match runtime.block_on(arguments.command.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    };
    // A pending read of standard input must not keep the process running.
    runtime.shutdown_background();
    code
}

/// Prints the error and its causes to standard error.
fn report(error: &CliError) -> ExitCode {
    if !error.is_closed_output() {
        output::error(&chain(error));
    }
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
            Self::Completions(arguments) => completions::run(&arguments, Arguments::command()),
            Self::Man(arguments) => man::run(&arguments, Arguments::command()),
            Self::Demo => Box::pin(demo::run()).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of the commands that `text` shows.
    fn commands(text: &str) -> Vec<Vec<String>> {
        let lines = text.lines().filter(|line| line.starts_with("  "));
        let commands = lines.filter_map(|line| line.trim().strip_prefix("upload-gateway "));
        let words = commands.map(|line| {
            // What follows is of the shell.
            let command = line.split(['>', '|']).next().unwrap();
            let words = command.trim_end_matches(" 2").split_whitespace();
            words
                .map(|word| word.trim_matches('\'').to_owned())
                .collect()
        });
        words.collect()
    }

    #[test]
    fn every_example_is_valid() {
        let program = Arguments::command();
        program.clone().debug_assert();
        for command in program.get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string);
            let examples = commands(&help.unwrap_or_default());
            let name = command.get_name();
            let is_local = ["serve", "doctor", "sweep", "records", "demo"].contains(&name);
            assert!(!examples.is_empty() || is_local, "{name} has no example");
            for words in examples {
                assert_eq!(words[0], name);
                let all = ["upload-gateway".to_owned()]
                    .into_iter()
                    .chain(words.clone());
                let parsed = Arguments::try_parse_from(all);
                assert!(parsed.is_ok(), "{words:?}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn options_of_a_command_are_not_under_the_heading_of_the_connection() {
        let program = Arguments::command();
        let headings = program.get_subcommands().flat_map(|command| {
            let options = command.get_arguments();
            options.map(|option| (option.get_id().as_str(), option.get_help_heading()))
        });
        for (name, heading) in headings {
            let is_of_connection = [
                "server",
                "profile",
                "ca",
                "cert",
                "key",
                "token_file",
                "api_key_file",
            ];
            let expected = is_of_connection.contains(&name);
            assert_eq!(heading == Some("Connection"), expected, "{name}");
        }
    }
}
