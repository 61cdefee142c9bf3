//! `doctor`: checks every configured store, and prints what is wrong and how to fix it.
//!
//! A storage is healthy if a probe object and a session with one part can be written, read back and deleted. Nothing of them
//! remains if the credentials permit deleting.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures::TryStreamExt;
use upload_gateway_core::{
    blobs::{BlobStore, NewObject, NewPart, Put, Session},
    error::{Error, Kind, Result},
    state::StateStore,
    upload::{Md5, UploadId, WriterTag, policy},
};

use super::{
    error::{CliError, chain},
    output,
};
use crate::{
    config::{self, Config, FILE_VARIABLE, Flags},
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

/// Prints the results, and counts the failures.
#[derive(Debug, Default)]
struct Report {
    failures: AtomicUsize,
}

const PROBE: &[u8] = b"written by upload-gateway doctor; safe to delete";

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let config = config::from_process(arguments.config.as_deref(), &arguments.flags)?;
    let report = Report::default();
    if config.storage.is_empty() {
        check_embedded(&config, &report).await?;
    } else {
        let name = state_name(&config);
        match serve::connect_state(&config).await {
            Ok(state) => check_state(&name, state.as_ref(), &config, &report).await?,
            Err(error) => {
                report.failed(&name, "connect", &chain(error.as_ref()), fix_state(&config))?
            }
        }
        for storage in &config.storage {
            let options = &storage.options;
            let name = format!("storage {}", options.id);
            match serve::connect_storage(storage).await {
                Ok(store) => check_storage(&name, store.as_ref(), &options.prefix, &report).await?,
                Err(error) => {
                    report.failed(
                        &name,
                        "connect",
                        &chain(error.as_ref()),
                        storage.store.settings().advice(),
                    )?;
                }
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
        let name = format!("storage {}", storage.id);
        check_storage(&name, storage.store.as_ref(), &storage.prefix, report).await?;
    }
    backends.stop().await;
    Ok(())
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

async fn check_storage(
    name: &str,
    store: &dyn BlobStore,
    prefix: &str,
    report: &Report,
) -> Result<(), CliError> {
    let upload_id = UploadId::generate(None);
    let object = NewObject {
        size: u64::try_from(PROBE.len()).ok(),
        key: policy::object_key(prefix, &upload_id, "doctor-probe.txt"),
        mime: "text/plain".into(),
        md5: Some(Md5::of(PROBE)),
        upload_id,
    };
    let failed =
        |step, error: &Error| report.failed(name, step, &chain(error), fix_call(step, error));
    if let Err(error) = store.check().await {
        return failed("find the bucket or container", &error);
    }
    report.good(name, "the bucket or container exists")?;
    if let Err((step, error)) = probe_object(store, &object).await {
        failed(step, &error)?;
    } else {
        report.good(name, "an object was written, read back and deleted")?;
    }
    match probe_session(store, prefix, &object).await {
        Err((step, error)) => failed(step, &error),
        Ok(()) => report.good(name, "a part was written, listed and aborted"),
    }
}

async fn probe_object(
    store: &dyn BlobStore,
    object: &NewObject,
) -> Result<(), (&'static str, Error)> {
    let at = |step| move |error| (step, error);
    let put = store.put_object(object, Bytes::from_static(PROBE)).await;
    if put.map_err(at("write an object"))? == Put::Exists {
        return Err((
            "write an object",
            Error::fault("an object of a new random key exists already"),
        ));
    }
    let read = async {
        let chunks: Vec<Bytes> = store.read(&object.key, None).await?.try_collect().await?;
        if chunks.concat() != PROBE {
            return Err(Error::fault(
                "the store returned other bytes than were written",
            ));
        }
        Ok(())
    };
    let read = read.await.map_err(at("read an object"));
    let compared = compare_entity_tag(store, object).await;
    let compared = compared.map_err(at("compare the entity tag"));
    let deleted = store.delete(&object.key).await;
    read.and(compared)
        .and(deleted.map_err(at("delete an object")))
}

/// Checks that the entity tag is an MD5, if the storage is configured so.
async fn compare_entity_tag(store: &dyn BlobStore, object: &NewObject) -> Result<(), Error> {
    let found = store.head(&object.key).await?;
    let found = found.ok_or_else(|| Error::fault("the store does not find the object"))?;
    if found.has_digests && found.md5.is_some() && found.md5 != object.md5 {
        let problem = format!("{} is not the MD5 of the object", found.etag);
        return Err(Error::fault(problem));
    }
    Ok(())
}

async fn probe_session(
    store: &dyn BlobStore,
    prefix: &str,
    object: &NewObject,
) -> Result<(), (&'static str, Error)> {
    let at = |step| move |error| (step, error);
    let id = store
        .begin(object)
        .await
        .map_err(at("create a multipart upload"))?;
    let session = Session {
        key: &object.key,
        id: &id,
    };
    let part = NewPart {
        number: 1,
        writer: WriterTag::random(),
        md5: Md5::of(PROBE),
        body: Bytes::from_static(PROBE),
    };
    let put = store
        .put_part(&session, part)
        .await
        .map_err(at("write a part"));
    let listed = store.list_parts(&session).await.map_err(at("list parts"));
    let aborted = store
        .abort(&session)
        .await
        .map_err(at("abort a multipart upload"));
    let swept = policy::object_key_prefix(prefix);
    let sessions = store
        .list_sessions(&swept, None)
        .await
        .map_err(at("list multipart uploads"));
    put?;
    if listed?.is_none_or(|parts| parts.len() != 1) {
        return Err((
            "list parts",
            Error::fault("the store does not list the part that it accepted"),
        ));
    }
    aborted?;
    sessions.map(drop)
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

fn fix_call(step: &str, error: &Error) -> &'static str {
    match (error.kind(), step) {
        (Kind::DataLoss, _) | (_, "compare the entity tag") => {
            "the store's entity tags are not MD5s: set etags = \"opaque\" for the storage"
        }
        (Kind::Unavailable | Kind::ResourceExhausted, _) if error.operator_code().is_none() => {
            "the store is unreachable or overloaded: check endpoint, name resolution, firewall and TLS"
        }
        (_, "find the bucket or container") => {
            "check the name, the region and the credentials. S3: s3:ListBucket; Azure: role Storage Blob Data Contributor"
        }
        (_, "read an object") => "allow s3:GetObject (Azure: role Storage Blob Data Contributor)",
        (_, "delete an object") => {
            "allow s3:DeleteObject (Azure: role Storage Blob Data Contributor)"
        }
        (_, "list parts") => {
            "allow s3:ListMultipartUploadParts (Azure: role Storage Blob Data Contributor)"
        }
        (_, "list multipart uploads") => {
            "allow s3:ListBucketMultipartUploads: the sweeper needs it to find orphaned multipart uploads"
        }
        (_, "abort a multipart upload") => {
            "allow s3:AbortMultipartUpload (Azure: role Storage Blob Data Contributor)"
        }
        _ => {
            "allow s3:PutObject (Azure: role Storage Blob Data Contributor); check the store's answer"
        }
    }
}

fn describe(error: &ServeError) -> String {
    chain(error.as_ref())
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
}
