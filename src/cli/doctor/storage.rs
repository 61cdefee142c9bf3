//! The checks of one storage.
//!
//! A storage is healthy if an object and an object of two parts can be written, read back and deleted, if signed URLs work, and if
//! pages of the configured origins may send files to it. The ETags of the objects show which value of `etags` is right. Nothing of
//! them remains if the credentials permit deleting.

use std::{sync::Arc, time::SystemTime};

use upload_gateway_core::{
    blobs::BlobStore,
    error::{Error, Result},
    gateway::{IntegrityChoice, Storage as GatewayStorage, compares_crc64},
    upload::{PART_SIZE, Placement},
};

use super::{
    advice::{key, of_failed, of_refusal, of_unreachable},
    bucket_rules, clock, cors,
    etags::{Etags, Finding},
    integrity,
    probe::{CONTENT, Checked, Probe},
    report::{Check, Fix},
    signed_urls,
    step::{Failed, Step},
};
use crate::{
    blobs::{Inspect, StoreSettings, in_words, reach},
    config::{Config, StorageConfig},
};

const ETAGS: &str = "compare the ETags with the MD5s";

/// A connected storage.
struct Storage<'a> {
    id: &'a str,
    /// Its name in the report.
    subject: String,
    store: Arc<dyn BlobStore>,
    /// The same store, which compares ETags.
    comparing: Arc<dyn BlobStore>,
    prefix: &'a str,
    placement: Placement,
    part_size: u64,
    /// Which digest it is configured to get.
    integrity: IntegrityChoice,
    /// Whether ETags are configured to be compared with MD5s, if that can be configured.
    compares_etags: Option<bool>,
}

/// Checks a configured storage.
pub(super) async fn check(storage: &StorageConfig, config: &Config) -> Vec<Check> {
    let settings = storage.store.settings();
    let connected = async {
        let inspect = settings.inspect().await?;
        Ok((inspect, Storage::connect(storage).await?))
    };
    let connected: Result<_> = connected.await;
    let (inspect, connected) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            let id = &storage.options.id;
            let problem = in_words(&error);
            let is_of_key = problem.starts_with("account_key ");
            let name = if is_of_key { "account_key" } else { "endpoint" };
            let failed = Check::failed(&subject(id), "connect", &problem);
            return vec![failed.with(Fix::key(key(id, name), settings.advice()))];
        }
    };
    let (subject, prefix) = (&connected.subject, connected.prefix);
    if let Err(error) = connected.store.check().await {
        return connected.unusable(settings, inspect.as_ref(), error).await;
    }
    let mut checks = connected.probe().await;
    checks.extend(connected.clock(settings, inspect.as_ref()).await);
    let max_age = std::time::Duration::from_secs(config.limits.upload_max_age_seconds);
    checks.extend(bucket_rules::check(subject, inspect.as_ref(), prefix, max_age).await);
    let object = connected.as_probe().new_object(CONTENT);
    let store = connected.store.as_ref();
    checks.push(signed_urls::check(subject, connected.id, settings, store, &object, CONTENT).await);
    checks.extend(cors::check(subject, storage, store, &config.rest.cors_origins).await);
    checks
}

/// Checks the embedded storage.
pub(super) async fn check_embedded(storage: &GatewayStorage) -> Vec<Check> {
    let embedded = Storage {
        id: &storage.id,
        subject: subject(&storage.id),
        store: Arc::clone(&storage.store),
        comparing: Arc::clone(&storage.store),
        prefix: &storage.prefix,
        placement: storage.placement.clone(),
        part_size: PART_SIZE,
        integrity: storage.integrity,
        compares_etags: None,
    };
    match embedded.store.check().await {
        Ok(()) => embedded.probe().await,
        Err(error) => vec![embedded.failed(&Step::FindBucket.failed(error))],
    }
}

fn subject(id: &str) -> String {
    format!("storage {id}")
}

// === impl Storage ===

impl<'a> Storage<'a> {
    async fn connect(storage: &'a StorageConfig) -> Result<Self> {
        let (options, settings) = (&storage.options, storage.store.settings());
        Ok(Self {
            id: &options.id,
            subject: subject(&options.id),
            store: settings.connect_comparing_etags(false).await?,
            comparing: settings.connect_comparing_etags(true).await?,
            prefix: &options.prefix,
            placement: storage.placement(),
            part_size: settings.min_part_size(),
            integrity: options.integrity,
            compares_etags: settings.compares_etags(),
        })
    }

    fn as_probe(&self) -> Probe<'_> {
        Probe {
            store: self.store.as_ref(),
            comparing: self.comparing.as_ref(),
            prefix: self.prefix,
            placement: &self.placement,
            part_size: self.part_size,
        }
    }

    /// Why the bucket cannot be used: nothing answers, or the store refuses it.
    async fn unusable(
        &self,
        settings: &dyn StoreSettings,
        inspect: &dyn Inspect,
        error: Error,
    ) -> Vec<Check> {
        let url = inspect.endpoint();
        let reached = match reach(&url, settings.ca_file()).await {
            Ok(date) => date,
            Err(problem) => {
                let fix =
                    of_unreachable(&problem, &self.key("endpoint"), &url, &self.key("ca_file"));
                let failed = Check::failed(&self.subject, "connect", format!("{url}: {problem}"));
                return vec![failed.with(fix)];
            }
        };
        let failed = Step::FindBucket.failed(error);
        let mut checks = vec![match inspect.refusal().await {
            Some(refusal) => {
                let (found, fix) = of_refusal(&refusal, self.id);
                Check::failed(&self.subject, failed.step.name(), found).with(fix)
            }
            None => self.failed(&failed),
        }];
        checks.extend(reached.map(|date| clock::check(&self.subject, date, SystemTime::now())));
        checks
    }

    /// Writes, reads and deletes objects.
    async fn probe(&self) -> Vec<Check> {
        let (probe, mut etags) = (self.as_probe(), Etags::default());
        let mut checks = vec![self.ok(Step::FindBucket, "the bucket or container exists")];
        match probe.object().await {
            Ok(Checked::Good(found)) => {
                etags.extend(found);
                let what = "an object was written, read back and deleted";
                checks.push(self.ok(Step::PutObject, what));
            }
            Ok(Checked::Skipped) => checks.push(
                Check::warning(
                    &self.subject,
                    Step::PutObject.name(),
                    "the store has no conditional put (If-None-Match): small files are put as one part",
                )
                .with(Fix::key(self.key("endpoint"), "a newer release of the store may have it")),
            ),
            Err(failures) => checks.extend(failures.iter().map(|failed| self.failed(failed))),
        }
        match probe.parts().await {
            Ok(Checked::Good(found)) => {
                etags.extend(found);
                let what = "an object was made of two parts, read back and deleted";
                checks.push(self.ok(Step::Commit, what));
            }
            Ok(Checked::Skipped) => {}
            Err(failures) => checks.extend(failures.iter().map(|failed| self.failed(failed))),
        }
        checks.push(match probe.abort().await {
            Ok(()) => self.ok(Step::Abort, "a multipart upload was created and aborted"),
            Err(failed) => self.failed(&failed),
        });
        let compares = compares_crc64(&*self.store, self.prefix, &self.placement).await;
        let (subject, key) = (&self.subject, self.key("integrity"));
        checks.push(integrity::check(subject, key, self.integrity, compares));
        if let (Some(compares), Some(finding)) = (self.compares_etags, etags.finding()) {
            checks.push(self.etags(compares, &finding));
        }
        checks
    }

    /// Names the right value of `etags`, and says if the configured one is wrong. `compares` is whether it is `md5`.
    fn etags(&self, compares: bool, finding: &Finding) -> Check {
        let ok = |found: String| Check::ok(&self.subject, ETAGS, found);
        match (finding, compares) {
            (Finding::Md5s, true) => ok("the ETags are MD5s: etags = \"md5\" is right".into()),
            (Finding::Md5s, false) => Check::warning(
                &self.subject,
                ETAGS,
                "the ETags are MD5s, and etags is \"opaque\"",
            )
            .with(Fix::set(self.key("etags"), "md5").and("then the gateway notices damaged parts")),
            (Finding::Harmless(why), _) => {
                let configured = if compares { "md5" } else { "opaque" };
                ok(format!(
                    "the ETags are not MD5s, and {why}: etags = \"{configured}\" is right"
                ))
            }
            (Finding::Misleading(_), false) => {
                ok("the ETags look like MD5s and are not: etags = \"opaque\" is right".into())
            }
            (Finding::Misleading(example), true) => Check::failed(
                &self.subject,
                ETAGS,
                format!("the ETags look like MD5s and are not: {example}"),
            )
            .with(
                Fix::set(self.key("etags"), "opaque")
                    .and("with \"md5\" the gateway takes its uploads for damaged"),
            ),
        }
    }

    async fn clock(&self, settings: &dyn StoreSettings, inspect: &dyn Inspect) -> Option<Check> {
        let reached = reach(&inspect.endpoint(), settings.ca_file()).await;
        let date = reached.ok().flatten()?;
        Some(clock::check(&self.subject, date, SystemTime::now()))
    }

    fn key(&self, name: &str) -> String {
        key(self.id, name)
    }

    fn ok(&self, step: Step, found: &str) -> Check {
        Check::ok(&self.subject, step.name(), found)
    }

    fn failed(&self, failed: &Failed) -> Check {
        let (found, fix) = of_failed(failed, self.id);
        Check::failed(&self.subject, failed.step.name(), found).with(fix)
    }
}
