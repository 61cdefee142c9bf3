//! The state store in Redis 7 or newer: a single server, Sentinel or Cluster.
//!
//! Every key starts with [`RedisConfig::key_prefix`]:
//!
//! | key | type | content |
//! |---|---|---|
//! | `upload:{<tag>}:<upload id>` | hash | the header of a record, with the format version of the record (`record.rs`) |
//! | `parts:{<tag>}:<upload id>` | string | its parts, as slots of fixed width (`slot.rs`) |
//! | `claims:{<tag>}:<upload id>` | string | the claims of clients, as slots of fixed width |
//! | `receipts:{<tag>}:<upload id>` | hash | the receipts that a slot has no room for, by part number |
//! | `fingerprints:{<tag>}` | hash | the id of the live upload of each fingerprint |
//! | `owner:<owner>` | sorted set | the uploads of an owner, in the order of a listing |
//! | `tenant:<tenant>` | sorted set | the uploads of a tenant, in the order of a listing |
//! | `index:{<listing>}:<index>` | sorted set | the entries (`entry.rs`) of an index of a listing, by creation or by name |
//! | `live:<owner>` | sorted set | the live uploads of an owner with a tenant, to count them, by the time at which each must have ended |
//! | `due` | sorted set | uploads by the time at which the sweeper must check them, the ended ones after all live ones |
//! | `backfill` | string | which uploads of an earlier release are in the indexes (`backfill.rs`) |
//! | `lease:<name>` | string | the holder of a lease |
//! | `stops` | string | the stops of new uploads |
//! | `integrity:<storage id>` | string | how the store of a storage proves what it receives |
//! | `secret` | string | the deployment's secret |
//! | `format` | string | the version of all keys but those of the records |
//!
//! The tag is [`UploadId::tag`]: all keys of a record and its fingerprint have one hash tag, so that one script can
//! change them on a Cluster. Redis removes records when their time has come
//! ([`removed_at`](upload_gateway_core::state::removed_at)), by default never if they are COMPLETE, and indexes with their
//! longest-lived record; `stops`, `integrity:…`, `secret` and `format` stay. Takeovers are published on the
//! channel `takeovers`. Changes of a record are published on the channel `changes` while a process watches the record:
//! each read for a watcher renews the field `watched` of the record. A record that is not watched publishes nothing, so
//! that one channel is enough in a Cluster, too, whose nodes forward every message to each other.
//!
//! Listings and `due` are hints: a member is checked against its record when it is read. `due` has every upload, also
//! after its end: when the record is gone, the sweeper removes the upload from `due` and from its listings. A COMPLETE one
//! that is kept for ever leaves `due` when its record was made compact.
//!
//! When the server's memory is full, scripts that end an upload, or that the sweeper needs, still run. It removes records of
//! COMPLETE uploads before that (`memory.rs`).

mod backfill;
mod config;
mod connection;
mod due;
mod entries;
mod eviction;
mod first_contact;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../../fuzz/checks/redis.rs"]
pub mod fuzzing;
mod inspection;
mod listing;
mod memory;
mod pages;
mod parts;
mod reach;
mod record;
mod scripts;
mod subscription;
mod writes;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use redis::{FromRedisValue, Script, ToRedisArgs, Value};
use tokio::task::JoinSet;
use upload_gateway_core::{
    error::{Error, Result},
    state::{
        ChangeWatch, Changes, Creation, Cursor, Due, DuePage, Entry, ListPage, ListQuery, Listing,
        ListingStore, Note, NoteStore, Predecessor, RecordStore, ScheduleStore, Selection,
        StateStore, TakeoverWatch, Takeovers, Times, Update,
    },
    upload::{Owner, Secret, Timestamp, Upload, UploadId, WriterTag},
};

use crate::unknown_format::UnknownFormat;

pub(crate) use self::inspection::{Inspection, Problem, Refused, ServerInfo};
pub use self::{
    config::{ConnectError, RedisConfig, RedisMode, RedisUrl},
    first_contact::FirstContact,
};
use self::{
    connection::Link,
    pages::{PAGE, PAGE_TIMEOUT, Page, Pages},
    record::live_removal_time,
    scripts::SCRIPTS,
    subscription::Channel,
    writes::parse_holder,
};

/// The version of the keys that are not records: fingerprints, listings, `due`, leases and the secret. Stored under
/// `format`; [`Redis::connect`] refuses another one.
const FORMAT: &str = "3";

/// How long the key that [`StateStore::check`] writes exists, in milliseconds.
const PROBE_LIFE: u64 = 60_000;

/// The state store in Redis 7 or newer.
///
/// ```no_run
/// # use upload_gateway::state::redis::{Redis, RedisConfig};
/// # async fn connect() -> Result<Redis, Box<dyn std::error::Error>> {
/// let config = RedisConfig {
///     url: "rediss://state.example:6379/0".parse()?,
///     ..RedisConfig::default()
/// };
/// Ok(Redis::connect(&config).await?)
/// # }
/// ```
#[derive(Debug)]
pub struct Redis {
    link: Arc<Link>,
    pages: Pages,
    key_prefix: String,
    takeovers: Takeovers,
    changes: Changes,
    /// The settings of the server are checked when it is first reached.
    allow_eviction: bool,
    /// Follows the channels from the first contact; aborted when the store is dropped.
    subscription: OnceLock<JoinSet<()>>,
}

// === impl Redis ===

impl Redis {
    /// Opens and prepares the store.
    ///
    /// # Errors
    /// Those of both.
    pub async fn connect(config: &RedisConfig) -> Result<Self, ConnectError> {
        let store = Self::open(config).await?;
        store.prepare().await?;
        Ok(store)
    }

    /// Checks the configuration, and sends nothing yet. Before the first use the store must be prepared.
    ///
    /// # Errors
    /// [`ConnectError::Invalid`].
    pub(crate) async fn open(config: &RedisConfig) -> Result<Self, ConnectError> {
        config
            .validate()
            .map_err(|invalid| ConnectError::Invalid(invalid.to_string()))?;
        let link = |config: &RedisConfig| {
            Link::new(config).map_err(|error| ConnectError::Invalid(error.to_string()))
        };
        let for_pages = RedisConfig {
            response_timeout: PAGE_TIMEOUT,
            call_timeout: PAGE_TIMEOUT,
            ..config.clone()
        };
        Ok(Self {
            link: Arc::new(link(config)?),
            pages: Pages::new(link(&for_pages)?),
            key_prefix: config.key_prefix.clone(),
            takeovers: Takeovers::default(),
            changes: Changes::default(),
            allow_eviction: config.allow_eviction,
            subscription: OnceLock::new(),
        })
    }

    /// Connects, and checks that the server does not evict keys (see [`RedisConfig::allow_eviction`]) and that this
    /// build reads the format of its keys.
    ///
    /// # Errors
    /// [`ConnectError::Evicts`] and [`ConnectError::Failed`]. Keys in an unknown format are the latter, caused by an
    /// `Internal` error that names both versions.
    pub(crate) async fn prepare(&self) -> Result<(), ConnectError> {
        self.link.command::<()>(&redis::cmd("PING")).await?;
        self.check_eviction(self.allow_eviction).await?;
        self.check_format().await?;
        self.subscription.get_or_init(|| {
            let follow = subscription::follow(
                Arc::clone(&self.link),
                Channel {
                    name: self.takeovers_channel(),
                    listeners: self.takeovers.clone(),
                },
                Channel {
                    name: self.key("changes"),
                    listeners: self.changes.clone(),
                },
            );
            JoinSet::from_iter([follow])
        });
        Ok(())
    }

    fn record_key(&self, id: &UploadId) -> String {
        self.tagged_key("upload", id)
    }

    /// A key of a record.
    fn tagged_key(&self, name: &str, id: &UploadId) -> String {
        format!("{}{name}:{{{}}}:{id}", self.key_prefix, id.tag())
    }

    fn fingerprints_key(&self, id: &UploadId) -> String {
        format!("{}fingerprints:{{{}}}", self.key_prefix, id.tag())
    }

    fn takeovers_channel(&self) -> String {
        self.key("takeovers")
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.key_prefix)
    }

    /// Refuses a server whose keys have another format than [`FORMAT`]; stores it in a server that has none yet.
    async fn check_format(&self) -> Result<()> {
        let key = self.key("format");
        let found = self.first_value(&key, FORMAT.as_bytes()).await?;
        if found == FORMAT.as_bytes() {
            return Ok(());
        }
        let found = String::from_utf8_lossy(&found);
        let stored = format!("the state in redis (key {key})");
        Err(UnknownFormat::new(stored, Some(&found), FORMAT).into())
    }

    /// The value of `key`, set to `offered` if it had none.
    async fn first_value(&self, key: &str, offered: &[u8]) -> Result<Vec<u8>> {
        let get = redis::cmd("GET").arg(key).to_owned();
        if let Some(value) = self.link.command(&get).await? {
            return Ok(value);
        }
        let offer = redis::cmd("SET").arg(key).arg(offered).arg("NX").to_owned();
        self.link.command::<Value>(&offer).await?;
        self.link.command(&get).await
    }

    /// Runs a script that changes a record and the fingerprints of its tag.
    async fn invoke<T: FromRedisValue>(
        &self,
        script: &Script,
        id: &UploadId,
        arguments: &[impl ToRedisArgs + Sync],
    ) -> Result<T> {
        let mut invocation = self.keyed(script, id);
        invocation.arg(arguments);
        self.link.write(&invocation).await
    }
}

#[async_trait]
impl RecordStore for Redis {
    async fn create(&self, upload: &Upload, max_live: u64) -> Result<Creation> {
        self.create_within(upload, max_live).await
    }

    async fn find_identical(&self, upload: &Upload) -> Result<Option<Upload>> {
        let Some(fingerprint) = &upload.fingerprint else {
            return Ok(None);
        };
        let get = redis::cmd("HGET")
            .arg(self.fingerprints_key(&upload.id))
            .arg(fingerprint.as_str())
            .to_owned();
        let holder: Option<String> = self.link.command(&get).await?;
        let Some(holder) = holder else {
            return Ok(None);
        };
        let known = self.whole(&parse_holder(&holder)?).await?;
        Ok(known.filter(Upload::is_indexed))
    }

    async fn get(&self, id: &UploadId) -> Result<Option<Upload>> {
        self.whole(id).await
    }

    async fn summary(&self, id: &UploadId) -> Result<Option<Upload>> {
        self.read_summary(id).await
    }

    async fn observe(&self, id: &UploadId) -> Result<Option<Upload>> {
        self.read_observed(id).await
    }

    fn watch_changes(&self, id: &UploadId) -> ChangeWatch {
        self.changes.watch(id)
    }

    async fn take_over(
        &self,
        id: &UploadId,
        writer: WriterTag,
        from: Predecessor,
        times: Times,
    ) -> Result<Option<Upload>> {
        let mut arguments = vec![record::writer_text(Some(writer))];
        arguments.extend(times_texts(times));
        arguments.push(match from {
            Predecessor::Any => "*".into(),
            Predecessor::Only(other) => record::writer_text(other),
        });
        arguments.extend([id.to_string(), self.takeovers_channel(), PAGE.to_string()]);
        let first: Page = self.invoke(&SCRIPTS.take_over, id, &arguments).await?;
        let upload = self.whole_from(id, first).await?;
        if let Some(upload) = &upload {
            self.index(upload).await?;
        }
        Ok(upload)
    }

    fn watch_takeovers(&self, id: &UploadId) -> TakeoverWatch {
        self.takeovers.watch(id)
    }

    async fn update(&self, upload: &Upload, writer: Option<WriterTag>) -> Result<Update> {
        self.replace(upload, writer, None).await
    }

    async fn update_untouched(&self, upload: &Upload, seen: Timestamp) -> Result<Update> {
        self.replace(upload, upload.writer, Some(seen)).await
    }

    async fn give(&self, upload: &Upload, owner: &Owner) -> Result<Update> {
        self.give_to(upload, owner).await
    }
}

#[async_trait]
impl ListingStore for Redis {
    async fn list(&self, query: &ListQuery) -> Result<ListPage> {
        self.page(query).await
    }

    async fn count(&self, listing: &Listing) -> Result<u64> {
        self.count_listed(listing).await
    }

    async fn entries(
        &self,
        selection: &Selection,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        self.read_entries(selection, after, limit).await
    }

    async fn count_entries(&self, selection: &Selection) -> Result<u64> {
        self.count_selected(selection).await
    }

    async fn summaries(&self, ids: &[UploadId]) -> Result<Vec<Upload>> {
        let ids: Vec<&UploadId> = ids.iter().collect();
        let summaries = self.read_summaries(&ids).await?;
        Ok(summaries.into_iter().flatten().collect())
    }

    async fn count_live(&self) -> Result<u64> {
        self.count_scheduled_live().await
    }
}

#[async_trait]
impl ScheduleStore for Redis {
    async fn due(&self, before: Timestamp, after: Option<&Due>, limit: usize) -> Result<DuePage> {
        self.due_page(before, after, limit).await
    }

    async fn lease(&self, name: &str, holder: &str, lasts: Duration) -> Result<bool> {
        self.set_lease(name, holder, lasts).await
    }

    async fn release(&self, name: &str, holder: &str) -> Result<()> {
        self.set_lease(name, holder, Duration::ZERO).await.map(drop)
    }
}

#[async_trait]
impl NoteStore for Redis {
    async fn note(&self, note: &Note) -> Result<Option<String>> {
        let key = self.key(&note.to_string());
        let get = redis::cmd("GET").arg(key).to_owned();
        self.link.command(&get).await
    }

    async fn replace_note(&self, note: &Note, seen: Option<&str>, text: &str) -> Result<bool> {
        let mut invocation = SCRIPTS.replace.key(self.key(&note.to_string()));
        invocation.arg(seen.unwrap_or_default()).arg(text);
        self.link.script(&invocation).await
    }
}

#[async_trait]
impl StateStore for Redis {
    async fn secret(&self, offered: &Secret) -> Result<Secret> {
        let key = self.key("secret");
        let kept = self.first_value(&key, offered.expose()).await?;
        let bytes = kept
            .try_into()
            .map_err(|_| Error::fault("redis holds a secret that is not 32 bytes long"))?;
        Ok(Secret::new(bytes))
    }

    async fn check(&self) -> Result<()> {
        self.link.command::<()>(&redis::cmd("PING")).await?;
        let probe = redis::cmd("SET")
            .arg(self.key("probe"))
            .arg("")
            .arg(("PX", PROBE_LIFE))
            .to_owned();
        self.link.command(&probe).await
    }

    fn is_usable(&self) -> bool {
        // Connections are replaced.
        true
    }
}

/// The times of a write as script arguments: `updated_at`, `expires_at`, time of removal.
fn times_texts(times: Times) -> [String; 3] {
    [
        times.now.0.to_string(),
        times.expires_at.0.to_string(),
        live_removal_time(times.expires_at).to_string(),
    ]
}
