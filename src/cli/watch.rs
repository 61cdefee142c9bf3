//! `watch`: follows an upload until it is finished.

use upload_gateway_client::Client;

use super::{
    error::CliError,
    find::{ID_HELP, find_id},
    follow::{Call, Form, follow, line},
    output,
    server::Server,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[arg(value_name = "ID", help = ID_HELP)]
    upload_id: String,
    #[command(flatten)]
    server: Server,
    /// Print a JSON object for each change, one per line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let client = arguments.server.client().await?;
    let upload_id = find_id(&client, &arguments.upload_id).await?;
    watch(&client, &upload_id, arguments.json).await
}

/// Shows each change of the upload, and at the end what it has become.
pub(super) async fn watch(client: &Client, upload_id: &str, json: bool) -> Result<(), CliError> {
    let form = if json { Form::Json } else { Form::People };
    let upload = follow(client, Call::Watch(upload_id), form).await?;
    match json {
        true => Ok(()),
        false => output::data(line(&upload)),
    }
}
