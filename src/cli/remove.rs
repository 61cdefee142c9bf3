//! `rm`: aborts an open upload, or deletes the file of a complete one.

use super::{error::CliError, output, server::Server};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The id of the upload
    #[arg(value_name = "ID")]
    upload_id: String,
    #[command(flatten)]
    server: Server,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let upload = arguments
        .server
        .client()
        .await?
        .delete(&arguments.upload_id)
        .await?;
    output::log(format_args!(
        "{} {}",
        upload.upload_id,
        output::phase(&upload)
    ));
    Ok(())
}
