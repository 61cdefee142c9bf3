//! `doctor`: checks every configured store, and prints what is wrong and how to fix it.
//!
//! A storage is healthy if an object and an object of two parts can be written, read back and deleted, and if pages of the
//! configured origins may send files to it. The ETags of the objects show which value of `etags` is right. Nothing of them
//! remains if the credentials permit deleting.

mod cors;
mod etags;
mod memory;
mod probe;
mod step;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use upload_gateway_core::{
    blobs::BlobStore,
    error::Result,
    state::StateStore,
    upload::{PART_SIZE, Placement},
};

use self::{
    etags::{Etags, Finding},
    probe::{Checked, Probe},
    step::{Failed, Step},
};
use super::{
    error::{CliError, chain},
    output,
};
use crate::{
    config::{self, Config, FILE_VARIABLE, Flags, StorageConfig},
    serve::{self, ServeError},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file, in TOML
    #[arg(long, value_name = "FILE", env = FILE_VARIABLE)]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

/// A connected storage.
struct Storage<'a> {
    /// Its name in the report.
    name: String,
    store: Arc<dyn BlobStore>,
    /// The same store, which compares ETags.
    comparing: Arc<dyn BlobStore>,
    prefix: &'a str,
    placement: Placement,
    part_size: u64,
    /// Whether ETags are configured to be compared with MD5s, if that can be configured.
    compares_etags: Option<bool>,
}

/// Prints the results, and counts the failures.
#[derive(Debug, Default)]
struct Report {
    failures: AtomicUsize,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let config = config::from_process(arguments.config.as_deref(), &arguments.flags)?;
    let report = Report::default();
    if config.storage.is_empty() {
        check_embedded(&config, &report).await?;
    } else {
        let name = state_name(&config);
        match serve::connect_state(&config).await {
            Ok(state) => {
                check_state(&name, state.as_ref(), &config, &report).await?;
                memory::check(&name, state.as_ref(), &config.records, &report).await?;
            }
            Err(error) => {
                report.failed(&name, "connect", &chain(error.as_ref()), fix_state(&config))?
            }
        }
        check_record_keys(&config, &report)?;
        for storage in &config.storage {
            match Storage::connect(storage).await {
                Ok(connected) => {
                    check_storage(&connected, &report).await?;
                    let origins = &config.rest.cors_origins;
                    cors::check(storage, connected.store.as_ref(), origins, &report).await?;
                }
                Err(error) => report.failed(
                    &format!("storage {}", storage.options.id),
                    "connect",
                    &chain(&error),
                    storage.store.settings().advice(),
                )?,
            }
        }
    }
    match report.failures.into_inner() {
        0 => Ok(()),
        1 => Err(CliError::failed("1 check failed")),
        failures => Err(CliError::failed(format!("{failures} checks failed"))),
    }
}

/// Checks the stores of a configuration without storages: they are embedded.
async fn check_embedded(config: &Config, report: &Report) -> Result<(), CliError> {
    let backends = match serve::connect(config).await {
        Ok(backends) => backends,
        Err(error) => {
            return report.failed(
                "embedded stores",
                "open",
                &describe(&error),
                fix_state(config),
            );
        }
    };
    check_state(&state_name(config), backends.state.as_ref(), config, report).await?;
    for storage in backends.storages.iter() {
        let embedded = Storage {
            name: format!("storage {}", storage.id),
            store: Arc::clone(&storage.store),
            comparing: Arc::clone(&storage.store),
            prefix: &storage.prefix,
            placement: storage.placement.clone(),
            part_size: PART_SIZE,
            compares_etags: None,
        };
        check_storage(&embedded, report).await?;
    }
    backends.stop().await;
    Ok(())
}

/// Files survive the loss of Redis only if the stores keep their records.
fn check_record_keys(config: &Config, report: &Report) -> Result<(), CliError> {
    match (config.redis_url.is_some(), config.records.key.len()) {
        (true, 0) => report.failed(
            "records.key",
            "seal what the stores keep of records",
            "it has no keys: if Redis loses records, their files are not found any more",
            "add a [[records.key]] with `openssl rand -base64 32`, the same on every replica, and keep it as long as the files",
        ),
        (false, 0) => report.good("records.key", "the key is in data_dir"),
        (_, count) => report.good("records.key", &format!("keys: {count}")),
    }
}

async fn check_state(
    name: &str,
    state: &dyn StateStore,
    config: &Config,
    report: &Report,
) -> Result<(), CliError> {
    match state.check().await {
        Ok(()) => report.good(name, "available and writable"),
        Err(error) => report.failed(name, "write", &chain(&error), fix_state(config)),
    }
}

async fn check_storage(checked: &Storage<'_>, report: &Report) -> Result<(), CliError> {
    let name = &checked.name;
    let (store, probe) = (checked.store.as_ref(), checked.probe());
    if let Err(error) = store.check().await {
        return report.failed_step(name, &Step::FindBucket.failed(error));
    }
    report.good(name, "the bucket or container exists")?;
    let mut etags = Etags::default();
    match probe.object().await {
        Ok(Checked::Good(found)) => {
            etags.extend(found);
            report.good(name, "an object was written, read back and deleted")?;
        }
        Ok(Checked::Skipped) => report.good(
            name,
            "the store has no conditional put (If-None-Match): small files are put as one part",
        )?,
        Err(failures) => report.failed_steps(name, &failures)?,
    }
    match probe.parts().await {
        Ok(Checked::Good(found)) => {
            etags.extend(found);
            let what = "an object was made of two parts, read back and deleted";
            report.good(name, what)?;
        }
        Ok(Checked::Skipped) => {}
        Err(failures) => report.failed_steps(name, &failures)?,
    }
    match probe.abort().await {
        Ok(()) => report.good(name, "a multipart upload was created and aborted")?,
        Err(failed) => report.failed_step(name, &failed)?,
    }
    match (checked.compares_etags, etags.finding()) {
        (Some(compares), Some(finding)) => check_etags(name, compares, &finding, report),
        _ => Ok(()),
    }
}

/// Names the right value of `etags`, and says if the configured one is wrong. `compares` is whether it is `md5`.
fn check_etags(
    name: &str,
    compares: bool,
    finding: &Finding,
    report: &Report,
) -> Result<(), CliError> {
    match (finding, compares) {
        (Finding::Md5s, true) => report.good(name, "the ETags are MD5s: etags = \"md5\" is right"),
        (Finding::Md5s, false) => report.warn(
            name,
            "the ETags are MD5s, and etags is \"opaque\"",
            "set etags = \"md5\" for the storage, so that the gateway notices damaged parts",
        ),
        (Finding::Harmless(why), _) => {
            let configured = if compares { "md5" } else { "opaque" };
            report.good(
                name,
                &format!("the ETags are not MD5s, and {why}: etags = \"{configured}\" is right"),
            )
        }
        (Finding::Misleading(_), false) => report.good(
            name,
            "the ETags look like MD5s and are not: etags = \"opaque\" is right",
        ),
        (Finding::Misleading(example), true) => report.failed(
            name,
            "compare the ETags with the MD5s",
            &format!("the ETags look like MD5s and are not: {example}"),
            "set etags = \"opaque\" for the storage; with \"md5\" the gateway takes its uploads for damaged",
        ),
    }
}

fn state_name(config: &Config) -> String {
    match &config.redis_url {
        Some(url) => format!("state in {url}"),
        None => format!("state in {}", config.data_dir.display()),
    }
}

fn fix_state(config: &Config) -> &'static str {
    match config.redis_url {
        Some(_) => {
            "check that Redis runs at redis_url, that its password and redis.mode are correct, and that it does not evict \
             keys (CONFIG SET maxmemory-policy noeviction)"
        }
        None => {
            "check that data_dir is writable and that no gateway uses it: `upload-gateway ls` calls a running gateway"
        }
    }
}

fn describe(error: &ServeError) -> String {
    chain(error.as_ref())
}

// === impl Storage ===

impl<'a> Storage<'a> {
    async fn connect(storage: &'a StorageConfig) -> Result<Self> {
        let (options, settings) = (&storage.options, storage.store.settings());
        Ok(Self {
            name: format!("storage {}", options.id),
            store: settings.connect_comparing_etags(false).await?,
            comparing: settings.connect_comparing_etags(true).await?,
            prefix: &options.prefix,
            placement: storage.placement(),
            part_size: settings.min_part_size(),
            compares_etags: settings.compares_etags(),
        })
    }

    fn probe(&self) -> Probe<'_> {
        Probe {
            store: self.store.as_ref(),
            comparing: self.comparing.as_ref(),
            prefix: self.prefix,
            placement: &self.placement,
            part_size: self.part_size,
        }
    }
}

// === impl Report ===

impl Report {
    fn good(&self, name: &str, what: &str) -> Result<(), CliError> {
        output::data(format_args!("ok    {name}: {what}"))
    }

    fn failed(&self, name: &str, step: &str, problem: &str, advice: &str) -> Result<(), CliError> {
        self.failures.fetch_add(1, Ordering::Relaxed);
        output::data(format_args!("FAIL  {name}: {step}: {problem}"))?;
        output::data(format_args!("      {advice}"))
    }

    fn failed_step(&self, name: &str, failed: &Failed) -> Result<(), CliError> {
        let (step, problem) = (failed.step.to_string(), chain(&failed.error));
        self.failed(name, &step, &problem, &failed.advice())
    }

    fn failed_steps(&self, name: &str, failures: &[Failed]) -> Result<(), CliError> {
        failures
            .iter()
            .try_for_each(|failed| self.failed_step(name, failed))
    }

    fn warn(&self, name: &str, problem: &str, advice: &str) -> Result<(), CliError> {
        output::data(format_args!("WARN  {name}: {problem}"))?;
        output::data(format_args!("      {advice}"))
    }
}
