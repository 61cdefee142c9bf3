//! `storages`: lists where files can go.

use prost_types::Duration;
use serde_json::{Value, json};
use upload_gateway_client::proto::v1::{Residence, Storage};

use super::{
    error::CliError,
    human, output,
    server::Server,
    table::{Column, Layout},
};

const COLUMNS: [Column; 5] = [
    Column::left("ID", 0),
    Column::left("KIND", 0),
    Column::right("MAX SIZE", 1),
    Column::left("KEPT FOR", 2),
    Column::left("ACCEPTS", 0),
];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    server: Server,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let client = arguments.server.client().await?;
    let storages = client.storages().await?;
    if arguments.json {
        return output::data(storages.iter().map(record).collect::<Value>());
    }
    let rows: Vec<_> = storages.iter().map(row).collect();
    let layout = Layout::new(&COLUMNS, &rows, output::width());
    output::data(layout.header())?;
    rows.iter()
        .try_for_each(|row| output::data(layout.line(row)))
}

fn row(storage: &Storage) -> [String; 5] {
    let accepted = [&storage.extensions[..], &storage.mimes[..]].concat();
    let kept = storage.expire_after.as_ref();
    let default = if storage.is_default { " (default)" } else { "" };
    [
        format!("{}{default}", storage.storage_id),
        kind(storage.residence()).to_owned(),
        human::size(storage.max_file_size),
        kept.map_or_else(|| "ever".into(), |time| human::duration(time.seconds)),
        match accepted.is_empty() {
            true => "any file".into(),
            false => accepted.join(", "),
        },
    ]
}

/// A storage as JSON, with the field names of the proto. Times are in seconds.
fn record(storage: &Storage) -> Value {
    let seconds = |time: &Option<Duration>| time.as_ref().map(|time| time.seconds);
    json!({
        "storage_id": storage.storage_id,
        "residence": kind(storage.residence()),
        "is_default": storage.is_default,
        "extensions": storage.extensions,
        "mimes": storage.mimes,
        "max_file_size": storage.max_file_size,
        "expire_after": seconds(&storage.expire_after),
        "max_expire_after": seconds(&storage.max_expire_after),
    })
}

/// The name of a kind of store, "AMAZON_S3".
pub(super) fn kind(residence: Residence) -> &'static str {
    let name = residence.as_str_name();
    name.strip_prefix("RESIDENCE_").unwrap_or(name)
}
