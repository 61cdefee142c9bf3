//! `status`: shows one upload.

use upload_gateway_client::{ClientError, proto::v1::Upload};

use super::{error::CliError, output, server::Server};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The id of the upload
    #[arg(value_name = "ID")]
    upload_id: String,
    #[command(flatten)]
    server: Server,
    /// Print a JSON object; with --watch one per line
    #[arg(long)]
    json: bool,
    /// Follow the upload until it is finished
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let client = arguments.server.client().await?;
    let mut upload = client.get(&arguments.upload_id).await?;
    if !arguments.watch {
        return show(&upload, arguments.json);
    }
    let mut changes = client.watch(&arguments.upload_id).await?;
    while let Some(progress) = changes.message().await.map_err(ClientError::from)? {
        match progress.upload {
            Some(whole) => upload = whole,
            None => {
                upload.phase = progress.phase;
                upload.committed_size = progress.committed_size;
            }
        }
        if arguments.json {
            output::data(output::record(&upload))?;
        } else {
            let committed = output::size(upload.committed_size);
            output::data(format_args!("{:10}  {committed}", output::phase(&upload)))?;
        }
    }
    Ok(())
}

fn show(upload: &Upload, json: bool) -> Result<(), CliError> {
    let record = output::record(upload);
    if json {
        return output::data(record);
    }
    let Some(fields) = record.as_object() else {
        return Ok(());
    };
    for (name, value) in fields {
        match value {
            serde_json::Value::String(text) => output::data(format_args!("{name:15} {text}"))?,
            serde_json::Value::Null => {}
            value => output::data(format_args!("{name:15} {value}"))?,
        }
    }
    Ok(())
}
