//! `url`: prints a link that downloads a finished upload.

use super::{error::CliError, output, server::Server};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The id of the upload
    #[arg(value_name = "ID")]
    upload_id: String,
    #[command(flatten)]
    server: Server,
    /// How long the link is valid, at most 1440
    #[arg(long, value_name = "N", default_value_t = 1440, value_parser = clap::value_parser!(i32).range(1..=1440))]
    minutes: i32,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let client = arguments.server.client().await?;
    let request = client
        .sign_download(&arguments.upload_id, arguments.minutes)
        .await?;
    output::data(request.url)
}
