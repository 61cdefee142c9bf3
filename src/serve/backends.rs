//! From the configuration to the state store and the storages.

use std::{sync::Arc, time::Duration};

use upload_gateway_core::{
    blobs::BlobStore,
    decorate::Decorated,
    faults::Faults,
    gateway::{Storage, Storages},
    state::StateStore,
    upload::PART_SIZE,
};

use super::ServeError;
use crate::{
    blobs::{
        azure::{AzureConfig, AzureStore},
        s3::{Profile, S3Config, S3Store},
    },
    config::{self, Config, RedisMode, S3Profile, StorageConfig, StoreConfig},
    embedded_s3::{EmbeddedS3, EmbeddedS3Config},
    state::{redb::Redb, redis},
};

/// The id of the storage that exists when none is configured.
const EMBEDDED_ID: &str = "embedded";

/// The stores a gateway works with.
#[derive(Debug)]
pub struct Backends {
    /// Where the records live.
    pub state: Arc<dyn StateStore>,
    /// Where the files go.
    pub storages: Storages,
    embedded: Option<(EmbeddedS3, config::Embedded)>,
}

/// Connects everything that `config` names, and starts the embedded S3 when it names no storage.
///
/// # Errors
/// A state store that is out of reach or unfit; an embedded store that cannot start. Storages are contacted when they are
/// first used: their health is told by the server.
pub async fn connect(config: &Config) -> Result<Backends, ServeError> {
    let state = connect_state(config).await?;
    let Some(default) = config.default_storage() else {
        return embedded(config, state).await;
    };
    let mut storages = Vec::new();
    for storage in &config.storage {
        let store = connect_storage(storage).await?;
        let part_size = storage.part_size.0;
        storages.push(
            Storage::new(&storage.id, store, &storage.prefix, part_size).with_filters(
                storage.ext_filter.iter().cloned(),
                storage.mime_filter.iter().cloned(),
            ),
        );
    }
    let storages = Storages::new(storages, &default.id)?;
    Ok(Backends {
        state,
        storages,
        embedded: None,
    })
}

/// Connects the state store alone.
///
/// # Errors
/// It is out of reach or unfit.
pub async fn connect_state(config: &Config) -> Result<Arc<dyn StateStore>, ServeError> {
    let Some(url) = &config.redis_url else {
        return Ok(Arc::new(
            Redb::open(config.data_dir.join("state.redb")).await?,
        ));
    };
    let urls = [url]
        .into_iter()
        .chain(&config.redis.nodes)
        .map(|url| url.expose().to_owned())
        .collect();
    let mode = match config.redis.mode {
        RedisMode::Single => redis::RedisMode::Single,
        RedisMode::Cluster => redis::RedisMode::Cluster,
        RedisMode::Sentinel => redis::RedisMode::Sentinel {
            service_name: config.redis.service_name.clone().unwrap_or_default(),
            sentinel_password: None,
        },
    };
    let settings = redis::RedisConfig {
        urls,
        mode,
        key_prefix: config.redis.key_prefix.clone(),
        authority_file: config.redis.ca_file.clone(),
        allow_eviction: config.redis.allow_eviction,
        wait_replicas: config.redis.wait_replicas,
        wait_timeout: Duration::from_millis(config.redis.wait_milliseconds),
        ..redis::RedisConfig::default()
    };
    Ok(Arc::new(redis::Redis::connect(&settings).await?))
}

/// Makes the adapter of one configured storage.
///
/// # Errors
/// Settings the adapter cannot work with. The storage itself is not contacted.
pub async fn connect_storage(storage: &StorageConfig) -> Result<Arc<dyn BlobStore>, ServeError> {
    let public_endpoint = storage.public_endpoint.as_ref();
    let public_endpoint = public_endpoint.map(|endpoint| endpoint.url().clone());
    Ok(match &storage.store {
        StoreConfig::S3(s3) => Arc::new(
            S3Store::connect(S3Config {
                region: s3.region.clone(),
                endpoint: s3.endpoint.as_ref().map(|endpoint| endpoint.url().clone()),
                public_endpoint,
                profile: match s3.profile {
                    S3Profile::Aws => Profile::Aws,
                    S3Profile::Compatible => Profile::Compatible,
                    S3Profile::EqualParts => Profile::EqualParts,
                },
                access_key_id: s3.access_key_id.clone(),
                secret_access_key: s3
                    .secret_access_key
                    .as_ref()
                    .map(|secret| secret.expose().into()),
                acl: s3.acl.clone(),
                ..S3Config::new(&s3.bucket)
            })
            .await?,
        ),
        StoreConfig::Azure(azure) => Arc::new(AzureStore::connect(AzureConfig {
            endpoint: Some(azure.endpoint.url().clone()),
            public_endpoint,
            account_key: azure.account_key.as_ref().map(|key| key.expose().into()),
            ..AzureConfig::new(&azure.account, &azure.container)
        })?),
    })
}

/// The S3 adapter, pointed at the S3 inside the process.
async fn embedded(config: &Config, state: Arc<dyn StateStore>) -> Result<Backends, ServeError> {
    let settings = &config.embedded;
    let server = EmbeddedS3::start(EmbeddedS3Config {
        directory: config.data_dir.join("blobs"),
        listen: settings.s3_listen,
        bucket: settings.bucket.clone(),
        access_key_id: settings.access_key_id.clone(),
        secret_access_key: settings.secret_access_key.expose().to_owned(),
    })
    .await
    .map_err(|error| format!("start the embedded S3: {error}"))?;
    let store = S3Store::connect(S3Config {
        region: Some("us-east-1".into()),
        endpoint: Some(server.endpoint().parse()?),
        profile: Profile::Compatible,
        access_key_id: Some(settings.access_key_id.clone()),
        secret_access_key: Some(settings.secret_access_key.expose().into()),
        ..S3Config::new(&settings.bucket)
    });
    let storage = Storage::new(EMBEDDED_ID, Arc::new(store.await?), "", PART_SIZE);
    let storages = Storages::new(vec![storage], EMBEDDED_ID)?;
    Ok(Backends {
        state,
        storages,
        embedded: Some((server, settings.clone())),
    })
}

// === impl Backends ===

impl Backends {
    /// The same stores, which fail as their callers ask.
    pub(super) fn with_faults(self) -> Self {
        Self {
            state: Arc::new(Decorated::new(self.state, Faults)),
            storages: self
                .storages
                .with_stores(|store| Arc::new(Decorated::new(store, Faults))),
            ..self
        }
    }

    /// Where the embedded S3 is and how it is entered, if it runs.
    pub(super) fn embedded_line(&self) -> Option<String> {
        let (server, settings) = self.embedded.as_ref()?;
        Some(format!(
            "embedded s3 at {} bucket={} access_key_id={} secret_access_key={}",
            server.endpoint(),
            settings.bucket,
            settings.access_key_id,
            settings.secret_access_key.expose()
        ))
    }

    /// Stops what runs inside the process.
    pub async fn stop(self) {
        if let Some((server, _)) = self.embedded {
            server.stop().await;
        }
    }
}
