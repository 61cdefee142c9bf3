//! `url`: prints a link that downloads a finished upload.

use serde_json::json;

use super::{
    error::CliError,
    find::{ID_HELP, find_id},
    output,
    server::Server,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[arg(value_name = "ID", help = ID_HELP)]
    upload_id: String,
    #[command(flatten)]
    server: Server,
    /// How long the link is valid, at most 1440
    #[arg(long, value_name = "N", default_value_t = 1440, value_parser = clap::value_parser!(i32).range(1..=1440))]
    minutes: i32,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let client = arguments.server.client().await?;
    let upload_id = find_id(&client, &arguments.upload_id).await?;
    let request = client.sign_download(&upload_id, arguments.minutes).await?;
    if arguments.json {
        return output::data(json!({
            "upload_id": upload_id,
            "url": request.url,
            "minutes": arguments.minutes,
        }));
    }
    output::data(request.url)
}
