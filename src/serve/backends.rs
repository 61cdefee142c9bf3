//! Connects the stores that the configuration names.

use std::sync::Arc;

use upload_gateway_core::{
    blobs::BlobStore,
    decorate::Decorated,
    faults::Faults,
    gateway::{Storage, Storages},
    state::StateStore,
    upload::{Features, PART_SIZE},
};

use super::error::ServeError;
use crate::{
    blobs::{
        StoreSettings,
        s3::{Profile, S3Config},
    },
    config::{Config, CorsOrigin, StorageConfig},
    embedded_s3::{EmbeddedS3, EmbeddedS3Config},
    metrics::{Metrics, Observed},
    state::{
        redb::Redb,
        redis::{FirstContact, Redis, RedisConfig},
    },
    traces::Traced,
    values::REDACTED,
};

/// The id of the storage that exists if none is configured.
const EMBEDDED_ID: &str = "embedded";

/// The stores of a gateway.
#[derive(Debug)]
pub struct Backends {
    /// The store of the records.
    pub state: Arc<dyn StateStore>,
    /// The stores for files.
    pub storages: Storages,
    embedded: Option<(EmbeddedS3, EmbeddedS3Config)>,
}

/// Connects all stores that `config` names, and starts the embedded S3 if it names no storage. The embedded S3 lets pages
/// of the HTTP API call it, so `config.http_listen` must name the bound port.
///
/// # Errors
/// The state store is unavailable or unsuitable, an embedded store cannot start, or an adapter refuses its configuration.
/// Storages are not contacted before their first use: the readiness of the server reports their state.
pub async fn connect(config: &Config) -> Result<Backends, ServeError> {
    with_state(config, connect_state(config).await?).await
}

/// As [`connect`], for a server, which can wait for Redis: if it is unavailable, its calls fail until a check reaches it.
///
/// # Errors
/// As [`connect`], but not if Redis is unavailable.
pub(super) async fn begin(config: &Config) -> Result<Backends, ServeError> {
    let state = match redis_config(config) {
        Some(redis) => FirstContact::begin(&redis).await?,
        None => connect_state(config).await?,
    };
    with_state(config, state).await
}

/// Connects the storages of `config`, beside this state store.
async fn with_state(config: &Config, state: Arc<dyn StateStore>) -> Result<Backends, ServeError> {
    if config.storage.is_empty() {
        return embedded(config, state).await;
    }
    let mut storages = Vec::new();
    for storage in &config.storage {
        let store = connect_storage(storage).await?;
        let options = &storage.options;
        let storage = Storage::new(&options.id, store, &options.prefix, options.part_size.0)
            .with_filters(
                options.ext_filter.iter().cloned(),
                options.mime_filter.iter().cloned(),
            )
            .with_key(options.key_template())
            .with_expiry(options.expiry())
            .with_placement(storage.placement(), options.require_encryption)
            .with_integrity(options.integrity)
            .with_max_file_size(options.max_file_size.map(|size| size.0))
            .with_tenants(
                options.tenants.clone(),
                options.default && !options.tenants.is_empty(),
            );
        storages.push(storage);
    }
    let default = config.default_storage();
    let default = default.map_or("", |storage| storage.options.id.as_str());
    let storages = Storages::new(storages, default)?;
    Ok(Backends {
        state,
        storages,
        embedded: None,
    })
}

/// Connects only the state store.
///
/// # Errors
/// It is unavailable or unsuitable.
pub async fn connect_state(config: &Config) -> Result<Arc<dyn StateStore>, ServeError> {
    let Some(redis) = redis_config(config) else {
        return Ok(Arc::new(
            Redb::open(config.data_dir.join("state.redb")).await?,
        ));
    };
    Ok(Arc::new(Redis::connect(&redis).await?))
}

/// How to reach Redis. `None`: the state is embedded.
pub(crate) fn redis_config(config: &Config) -> Option<RedisConfig> {
    Some(RedisConfig {
        url: config.redis_url.clone()?,
        url_file: config.redis_url_file.clone(),
        ..config.redis.clone()
    })
}

/// Prepares the adapter of one storage. The store itself is not contacted.
///
/// # Errors
/// The adapter refuses its configuration.
pub async fn connect_storage(storage: &StorageConfig) -> Result<Arc<dyn BlobStore>, ServeError> {
    Ok(storage.store.settings().connect().await?)
}

/// Starts the embedded S3 and connects the S3 adapter to it.
async fn embedded(config: &Config, state: Arc<dyn StateStore>) -> Result<Backends, ServeError> {
    let server_config = EmbeddedS3Config {
        directory: config.data_dir.join("blobs"),
        cors_origins: browser_origins(config),
        ..config.embedded.clone()
    };
    let server = EmbeddedS3::start(server_config.clone())
        .await
        .map_err(|error| format!("start the embedded S3: {error}"))?;
    let client_config = S3Config {
        region: Some("us-east-1".into()),
        endpoint: Some(server.endpoint().parse()?),
        profile: Some(Profile::Compatible),
        access_key_id: Some(server_config.access_key_id.clone()),
        secret_access_key: Some(server_config.secret_access_key.clone()),
        features: Features::NONE,
        ..S3Config::new(&server_config.bucket)
    };
    let store = client_config.connect().await?;
    let storage = Storage::new(EMBEDDED_ID, store, "", PART_SIZE);
    let storages = Storages::new(vec![storage], EMBEDDED_ID)?;
    Ok(Backends {
        state,
        storages,
        embedded: Some((server, server_config)),
    })
}

/// The origins of the HTTP API's own pages, and those of other pages that may call it.
fn browser_origins(config: &Config) -> Vec<CorsOrigin> {
    let port = config.http_listen.port();
    let own = [
        format!("http://{}", config.http_listen),
        format!("http://localhost:{port}"),
    ];
    let own = own.iter().filter_map(|url| CorsOrigin::of(url));
    own.chain(config.rest.cors_origins.clone()).collect()
}

// === impl Backends ===

impl Backends {
    /// The same stores, with the faults that calls ask for.
    pub(super) fn with_faults(self) -> Self {
        Self {
            state: Arc::new(Decorated::new(self.state, Faults)),
            storages: self
                .storages
                .with_stores(|_, store| Arc::new(Decorated::new(store, Faults))),
            ..self
        }
    }

    /// The same stores, with each call measured.
    pub(super) fn with_metrics(self, metrics: &Metrics) -> Self {
        let state = Observed::state(metrics);
        Self {
            state: Arc::new(Decorated::new(self.state, state)),
            storages: self.storages.with_stores(|id, store| {
                Arc::new(Decorated::new(store, Observed::storage(metrics, id)))
            }),
            ..self
        }
    }

    /// The same stores, with the calls to them traced.
    pub(super) fn with_traces(self) -> Self {
        Self {
            state: Arc::new(Decorated::new(self.state, Traced::state())),
            storages: self
                .storages
                .with_stores(|id, store| Arc::new(Decorated::new(store, Traced::storage(id)))),
            ..self
        }
    }

    /// The endpoint of the embedded S3, if it runs.
    pub(super) fn embedded_endpoint(&self) -> Option<String> {
        Some(self.embedded.as_ref()?.0.endpoint())
    }

    /// The address and the keys of the embedded S3, if it runs. A configured secret is redacted.
    pub(super) fn embedded_line(&self) -> Option<String> {
        let (server, config) = self.embedded.as_ref()?;
        let default = EmbeddedS3Config::default().secret_access_key;
        // The default is public. A configured one is a secret.
        let secret = match config.secret_access_key == default {
            true => default.expose().to_owned(),
            false => REDACTED.to_owned(),
        };
        Some(format!(
            "embedded s3 at {} bucket={} access_key_id={} secret_access_key={}",
            server.endpoint(),
            config.bucket,
            config.access_key_id,
            secret
        ))
    }

    /// Stops the embedded S3, if it runs.
    pub async fn stop(self) {
        if let Some((server, _)) = self.embedded {
            server.stop().await;
        }
    }
}
