//! `keep`: changes how long a file is kept.

use std::time::Duration;

use super::{
    error::CliError,
    find::{ID_HELP, find_id},
    human, output,
    server::Server,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[arg(value_name = "ID", help = ID_HELP)]
    upload_id: String,
    /// For how long from now on, such as 12h or 30d [default: for ever, or as long as the storage keeps files]
    #[arg(long, value_name = "TIME", value_parser = human::parse_duration)]
    expire_after: Option<Duration>,
    #[command(flatten)]
    server: Server,
    /// Print the record as a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let client = arguments.server.client().await?;
    let upload_id = find_id(&client, &arguments.upload_id).await?;
    let upload = client.keep(&upload_id, arguments.expire_after).await?;
    if arguments.json {
        return output::data(output::record(&upload));
    }
    match upload.expires_at {
        Some(time) => output::data(format_args!("{upload_id} expires at {time}")),
        None => output::data(format_args!("{upload_id} does not expire")),
    }
}
