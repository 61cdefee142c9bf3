//! `rm`: aborts open uploads, or deletes the files of complete ones.

use upload_gateway_client::{
    Client,
    proto::v1::{Phase, Upload},
};

use super::{
    confirm::{Confirm, Decision},
    error::{CliError, chain},
    find::{ID_HELP, find_ids},
    output,
    server::Server,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[arg(value_name = "ID", required = true, help = ID_HELP)]
    upload_ids: Vec<String>,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    confirm: Confirm,
    /// Print a JSON object for each upload, one per line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let client = arguments.server.client().await?;
    let ids = find_ids(&client, &arguments.upload_ids).await?;
    let mut failed = 0;
    for id in &ids {
        let done = arguments.remove(&client, id).await;
        if let Err(error) = done {
            // With one id it is the error of the command.
            if ids.len() == 1 {
                return Err(error);
            }
            output::log(format_args!("{id}: {}", chain(&error)));
            failed += 1;
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError::failed(format!(
            "{failed} of {} were not removed",
            ids.len()
        ))),
    }
}

// === impl Arguments ===

impl Arguments {
    async fn remove(&self, client: &Client, id: &str) -> Result<(), CliError> {
        let decision = self.confirm.decision();
        if decision != Decision::Proceed {
            let action = action(&client.get(id).await?);
            if !decision.allows(&action)? {
                return Ok(());
            }
        }
        let upload = client.delete(id).await?;
        if self.json {
            return output::data(output::record(&upload));
        }
        output::log(format_args!(
            "{} {}",
            upload.upload_id,
            output::phase(&upload)
        ));
        Ok(())
    }
}

/// What the call does to this upload.
fn action(upload: &Upload) -> String {
    let file = output::file(upload);
    match upload.phase() {
        Phase::Complete => format!("delete the file of {file}"),
        _ => format!("abort the upload of {file}"),
    }
}
