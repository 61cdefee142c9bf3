//! `doctor`: checks the configuration against every service that it names, and prints what is wrong and how to fix it.

mod advice;
mod bucket_rules;
mod callers;
mod clock;
mod cors;
mod etags;
mod integrity;
mod memory;
mod probe;
mod redis;
mod report;
mod signed_urls;
mod state;
mod step;
mod storage;

use std::path::PathBuf;

use self::{
    callers::Callers,
    report::{Check, Fix, Report},
};
use super::error::{CliError, chain};
use crate::{
    config::{self, Config, FILE_VARIABLE, Flags},
    serve,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file, in TOML
    #[arg(long, value_name = "FILE", env = FILE_VARIABLE)]
    config: Option<PathBuf>,
    /// Print one JSON document with all results
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    callers: Callers,
    #[command(flatten)]
    flags: Flags,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let config = config::from_process(arguments.config.as_deref(), &arguments.flags)?;
    let mut report = Report::new(arguments.json);
    report.add([memory::of_process(&config.limits)])?;
    let has_services = config.redis_url.is_some() || !config.storage.is_empty();
    if has_services {
        report.add(state::check(&config).await)?;
        report.add([check_record_keys(&config)])?;
    }
    for storage in &config.storage {
        report.add(Box::pin(storage::check(storage, &config)).await)?;
    }
    // Without its state store, the embedded storage cannot be opened.
    if config.storage.is_empty() && !report.has_failed() {
        check_embedded(&config, !has_services, &mut report).await?;
    }
    report.add(arguments.callers.check().await)?;
    report.end()
}

/// Checks the storage of a configuration without storages, which is embedded, and the state store beside it.
async fn check_embedded(
    config: &Config,
    with_state: bool,
    report: &mut Report,
) -> Result<(), CliError> {
    let backends = match serve::connect(config).await {
        Ok(backends) => backends,
        Err(error) => {
            let failed = Check::failed("embedded stores", "open", chain(error.as_ref()));
            return report.add([failed.with(state::fix(config))]);
        }
    };
    if with_state {
        report.add([state::check_write(config, backends.state.as_ref()).await])?;
    }
    for storage in backends.storages.iter() {
        report.add(storage::check_embedded(storage).await)?;
    }
    backends.stop().await;
    Ok(())
}

/// Files survive the loss of Redis only if the stores keep their records.
fn check_record_keys(config: &Config) -> Check {
    const KEY: &str = "records.key";
    let name = "seal what the stores keep of records";
    match (config.redis_url.is_some(), config.records.key.len()) {
        (true, 0) => Check::failed(
            KEY,
            name,
            "it has no keys: if Redis loses records, their files are not found any more",
        )
        .with(Fix::key(
            KEY,
            "add a [[records.key]] with `openssl rand -base64 32`, the same on every replica, and keep it as long as the files",
        )),
        (false, 0) => Check::ok(KEY, name, "the key is in data_dir"),
        (_, count) => Check::ok(KEY, name, format!("keys: {count}")),
    }
}
