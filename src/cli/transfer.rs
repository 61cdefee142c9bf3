//! `cp` and `mv`: copy a file to a storage, and move it there.

use upload_gateway_client::{Client, proto::v1::Upload};

use super::{
    confirm::{Confirm, Decision},
    error::CliError,
    find::{ID_HELP, find_id},
    follow::{Call, Form, follow},
    output,
    server::Server,
};

#[derive(Debug, clap::Args)]
pub(super) struct Copy {
    #[command(flatten)]
    transfer: Transfer,
}

#[derive(Debug, clap::Args)]
pub(super) struct Move {
    #[command(flatten)]
    transfer: Transfer,
    #[command(flatten)]
    confirm: Confirm,
}

#[derive(Debug, clap::Args)]
struct Transfer {
    #[arg(value_name = "ID", help = ID_HELP)]
    upload_id: String,
    /// The storage of the copy [default: that of the profile, otherwise the gateway's]
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    storage: String,
    #[command(flatten)]
    server: Server,
    /// Print the record of the copy as a JSON object, and no progress
    #[arg(long)]
    json: bool,
}

pub(super) async fn copy(arguments: Copy) -> Result<(), CliError> {
    let transfer = arguments.transfer;
    let client = transfer.server.client().await?;
    let storage = transfer.server.storage(&transfer.storage)?;
    let id = find_id(&client, &transfer.upload_id).await?;
    let copy = follow(&client, Call::Copy(&id, &storage), transfer.form()).await?;
    transfer.show(&copy)
}

pub(super) async fn move_file(arguments: Move) -> Result<(), CliError> {
    let transfer = arguments.transfer;
    let client = transfer.server.client().await?;
    let storage = transfer.server.storage(&transfer.storage)?;
    let id = find_id(&client, &transfer.upload_id).await?;
    let decision = arguments.confirm.decision();
    if decision != Decision::Proceed {
        let action = describe_move(&client, &id, &storage).await?;
        if !decision.allows(&action)? {
            return Ok(());
        }
    }
    let copy = follow(&client, Call::Move(&id, &storage), transfer.form()).await?;
    transfer.show(&copy)
}

/// What a move would do.
async fn describe_move(client: &Client, id: &str, storage: &str) -> Result<String, CliError> {
    let source = client.get(id).await?;
    let target = match storage {
        "" => "the default storage",
        storage => storage,
    };
    let file = output::file(&source);
    let storage = &source.storage_id;
    Ok(format!(
        "copy the file of {file} to {target}, and delete it in {storage}"
    ))
}

// === impl Transfer ===

impl Transfer {
    fn form(&self) -> Form {
        if self.json {
            Form::Silent
        } else {
            Form::People
        }
    }

    fn show(&self, copy: &Upload) -> Result<(), CliError> {
        if self.json {
            return output::data(output::record(copy));
        }
        output::data(&copy.upload_id)
    }
}
