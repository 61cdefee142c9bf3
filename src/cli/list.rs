//! `ls`: lists uploads.

use clap::ValueEnum;
use prost_types::Timestamp;
use serde_json::Value;
use upload_gateway_client::proto::v1::{ListUploadsRequest, Phase};

use super::{error::CliError, output, server::Server};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    server: Server,
    /// Only uploads in this phase
    #[arg(long)]
    phase: Option<PhaseName>,
    /// Only uploads with this text in the file name
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    name: String,
    /// Only uploads whose file name begins with this text, ordered by name
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    name_prefix: String,
    /// Only uploads with this tag; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only uploads in this storage
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    storage: String,
    /// Only files of this media type: image/png, or image/*
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "",
        hide_default_value = true
    )]
    mime: String,
    /// Only uploads that were created at this time or later: 2026-01-31, or 2026-01-31T08:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only uploads that were created before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Uploads of this owner. Another owner needs the role support or admin
    #[arg(
        long,
        value_name = "SUBJECT",
        default_value = "",
        hide_default_value = true
    )]
    owner: String,
    /// Uploads of all owners in the tenant. Needs the role support or admin
    #[arg(long, conflicts_with = "owner")]
    all_owners: bool,
    /// The tenant, by default that of the caller. Another one needs the role operator
    #[arg(
        long,
        value_name = "TENANT",
        default_value = "",
        hide_default_value = true
    )]
    tenant: String,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PhaseName {
    Open,
    Committing,
    Complete,
    Aborted,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let client = arguments.server.client().await?;
    let phase = arguments.phase.map_or(Phase::Unspecified, Phase::from);
    let mut records: Vec<Value> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListUploadsRequest {
            page_size: 0,
            page_token,
            phase: phase.into(),
            owner: arguments.owner.clone(),
            all_owners: arguments.all_owners,
            tenant: arguments.tenant.clone(),
            storage_id: arguments.storage.clone(),
            tags: arguments.tags.clone(),
            name_prefix: arguments.name_prefix.clone(),
            name_contains: arguments.name.clone(),
            file_mime: arguments.mime.clone(),
            created_after: arguments.since,
            created_before: arguments.until,
        };
        let page = client.list(request).await?;
        for upload in &page.uploads {
            if arguments.json {
                records.push(output::record(upload));
                continue;
            }
            let file = upload.file.clone().unwrap_or_default();
            let committed = output::size(upload.committed_size);
            let size = file.file_size.map_or("?".into(), output::size);
            let updated = upload
                .updated_at
                .map(|time| time.to_string())
                .unwrap_or_default();
            output::data(format_args!(
                "{}  {:10}  {:>12} of {:>12}  {:20}  {}",
                upload.upload_id,
                output::phase(upload),
                committed,
                size,
                updated,
                file.file_name,
            ))?;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if arguments.json {
        output::data(Value::Array(records))?;
    }
    Ok(())
}

// === impl PhaseName ===

impl From<PhaseName> for Phase {
    fn from(name: PhaseName) -> Self {
        match name {
            PhaseName::Open => Self::Open,
            PhaseName::Committing => Self::Committing,
            PhaseName::Complete => Self::Complete,
            PhaseName::Aborted => Self::Aborted,
        }
    }
}
