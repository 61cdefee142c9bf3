//! `limits`: shows what uploads to a storage must respect.

use serde_json::{Map, Value, json};
use upload_gateway_client::proto::v1::Limits;

use super::{error::CliError, human, output, server::Server, storages::kind};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The storage [default: that of the profile, otherwise the gateway's]
    #[arg(value_name = "STORAGE", default_value = "", hide_default_value = true)]
    storage: String,
    #[command(flatten)]
    server: Server,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// What the number of a limit counts.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Bytes,
    BytesPerSecond,
    Seconds,
    Count,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let client = arguments.server.client().await?;
    let storage = arguments.server.storage(&arguments.storage)?;
    let limits = client.limits(&storage).await?;
    if arguments.json {
        return output::data(record(&limits));
    }
    for (name, value) in lines(&limits) {
        output::data(format_args!("{name:<32} {value}"))?;
    }
    Ok(())
}

fn record(limits: &Limits) -> Value {
    let numbers = |numbers: Vec<(&str, i64, Unit)>| -> Map<String, Value> {
        let numbers = numbers.into_iter();
        numbers
            .map(|(name, number, _)| (name.into(), number.into()))
            .collect()
    };
    let mut record = numbers(gateway(limits));
    record.insert("storage_id".into(), limits.storage_id.clone().into());
    record.insert("residence".into(), kind(limits.residence()).into());
    let per_owner = limits.per_owner.as_ref().map(|_| numbers(owner(limits)));
    record.insert("per_owner".into(), json!(per_owner));
    record.into()
}

fn lines(limits: &Limits) -> Vec<(String, String)> {
    let shown = |prefix: &str, numbers: Vec<(&str, i64, Unit)>| -> Vec<(String, String)> {
        let numbers = numbers.into_iter();
        let shown = numbers.map(|(name, number, unit)| {
            let value = match unit {
                Unit::Bytes => human::size(number),
                Unit::BytesPerSecond if number == 0 => "any".into(),
                Unit::BytesPerSecond => format!("{}/s", human::size(number)),
                Unit::Seconds => human::duration(number),
                Unit::Count => number.to_string(),
            };
            (format!("{prefix}{name}"), value)
        });
        shown.collect()
    };
    let storage = ("storage_id".to_owned(), limits.storage_id.clone());
    let kind = ("residence".to_owned(), kind(limits.residence()).to_owned());
    let gateway = shown("", gateway(limits));
    let owner = shown("per_owner.", owner(limits));
    [storage, kind]
        .into_iter()
        .chain(gateway)
        .chain(owner)
        .collect()
}

fn gateway(limits: &Limits) -> Vec<(&'static str, i64, Unit)> {
    vec![
        ("max_file_size", limits.max_file_size, Unit::Bytes),
        (
            "max_unknown_file_size",
            limits.max_unknown_file_size,
            Unit::Bytes,
        ),
        ("part_size", limits.part_size, Unit::Bytes),
        (
            "max_single_put_size",
            limits.max_single_put_size,
            Unit::Bytes,
        ),
        ("max_message_size", limits.max_message_size, Unit::Bytes),
        (
            "preferred_chunk_size",
            limits.preferred_chunk_size,
            Unit::Bytes,
        ),
        (
            "idle_timeout_seconds",
            limits.idle_timeout_seconds,
            Unit::Seconds,
        ),
        ("expiry_seconds", limits.expiry_seconds, Unit::Seconds),
        ("min_rate", limits.min_rate, Unit::BytesPerSecond),
        ("min_rate_seconds", limits.min_rate_seconds, Unit::Seconds),
        (
            "max_connections",
            limits.max_connections.into(),
            Unit::Count,
        ),
        (
            "max_calls_per_connection",
            limits.max_calls_per_connection.into(),
            Unit::Count,
        ),
        ("max_calls", limits.max_calls.into(), Unit::Count),
        ("max_downloads", limits.max_downloads.into(), Unit::Count),
        ("max_lists", limits.max_lists.into(), Unit::Count),
        ("max_watches", limits.max_watches.into(), Unit::Count),
        ("max_open_uploads", limits.max_open_uploads, Unit::Count),
        ("max_tags", limits.max_tags.into(), Unit::Count),
        ("max_tag_size", limits.max_tag_size.into(), Unit::Bytes),
    ]
}

/// Nothing without authentication.
fn owner(limits: &Limits) -> Vec<(&'static str, i64, Unit)> {
    let Some(owner) = &limits.per_owner else {
        return Vec::new();
    };
    vec![
        ("max_open_uploads", owner.max_open_uploads, Unit::Count),
        ("max_streams", owner.max_streams.into(), Unit::Count),
        ("max_lists", owner.max_lists.into(), Unit::Count),
        ("max_watches", owner.max_watches.into(), Unit::Count),
        ("max_downloads", owner.max_downloads.into(), Unit::Count),
    ]
}
