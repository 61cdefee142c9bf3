//! `status`: shows one upload.

use prost_types::Timestamp;
use upload_gateway_client::{
    Crc64Nvme,
    proto::v1::{AbortReason, Upload},
};
use upload_gateway_core::escape::escaped;

use super::{
    error::CliError,
    find::{ID_HELP, find_id},
    human, output,
    server::Server,
    watch,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[arg(value_name = "ID", help = ID_HELP)]
    upload_id: String,
    #[command(flatten)]
    server: Server,
    /// Print a JSON object; with --watch one per line
    #[arg(long)]
    json: bool,
    /// Follow the upload until it is finished, as `watch` does
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let client = arguments.server.client().await?;
    let upload_id = find_id(&client, &arguments.upload_id).await?;
    if arguments.watch {
        return watch::watch(&client, &upload_id, arguments.json).await;
    }
    let upload = client.get(&upload_id).await?;
    if arguments.json {
        return output::data(output::record(&upload));
    }
    for (name, value) in lines(&upload, &human::now()) {
        output::data(format_args!("{name:<10} {}", escaped(&value)))?;
    }
    Ok(())
}

/// What is known of an upload, by name.
fn lines(upload: &Upload, now: &Timestamp) -> Vec<(&'static str, String)> {
    let file = upload.file.clone().unwrap_or_default();
    let size = |bytes: i64| format!("{} ({bytes} bytes)", human::size(bytes));
    let committed = match file.file_size {
        Some(whole) => {
            let percent = human::percent(upload.committed_size, whole);
            format!("{}, {percent}", size(upload.committed_size))
        }
        None => size(upload.committed_size),
    };
    let time = |time: &Timestamp| match time.seconds > now.seconds {
        true => time.to_string(),
        false => format!("{time} ({})", human::age(time, now)),
    };
    let object = upload.object.as_ref();
    let values = [
        ("ID", Some(upload.upload_id.clone())),
        ("Name", Some(file.file_name)),
        ("Phase", Some(output::phase(upload).to_owned())),
        ("Reason", abort_reason(upload)),
        ("Size", file.file_size.map(size)),
        ("Committed", object.is_none().then_some(committed)),
        ("Type", Some(file.file_mime)),
        ("Tags", Some(file.tags.join(", "))),
        ("Path", Some(file.file_path)),
        ("Storage", Some(upload.storage_id.clone())),
        ("Owner", Some(upload.owner.clone())),
        ("Copy of", Some(upload.copy_of.clone())),
        (
            "Object",
            object.map(|object| format!("{}/{}", object.bucket, object.key)),
        ),
        ("MD5", object.map(|object| object.md5.clone())),
        (
            "CRC64NVME",
            object
                .and_then(|object| object.crc64nvme)
                .map(|crc64| Crc64Nvme(crc64).to_string()),
        ),
        ("Created", upload.created_at.as_ref().map(time)),
        ("Updated", upload.updated_at.as_ref().map(time)),
        ("Expires", upload.expires_at.as_ref().map(time)),
        (
            "Changed",
            upload.object_changed_at.as_ref().map(|changed| {
                format!(
                    "something else replaced the object; found at {}",
                    time(changed)
                )
            }),
        ),
    ];
    let values = values.into_iter();
    let known = values.filter_map(|(name, value)| Some((name, value?)));
    known.filter(|(_, value)| !value.is_empty()).collect()
}

/// Why an upload was aborted, "EXPIRED".
fn abort_reason(upload: &Upload) -> Option<String> {
    let reason = upload.abort_reason();
    let name = reason.as_str_name();
    let name = name.strip_prefix("ABORT_REASON_").unwrap_or(name);
    (reason != AbortReason::Unspecified).then(|| name.to_owned())
}
