//! The credentials of a bucket: cached once for the SDK and for the signer, and fetched again on demand.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_credential_types::{
    Credentials,
    provider::{
        self, ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future,
    },
};
use upload_gateway_core::{
    error::{Error, Result},
    upload::Timestamp,
};

use super::fault::{NO_CREDENTIALS, lacks_credentials};
use crate::blobs::{
    renewed::{Expiring, Renewed},
    secret_file::SecretFile,
};

/// How long before their end credentials are renewed. An instance profile offers new credentials 5 minutes before the
/// old ones expire, other providers at any time.
const RENEW_EARLY: Duration = Duration::from_secs(15 * 60);

/// Credentials from a provider. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct CachedCredentials(Arc<Cache>);

#[derive(Debug)]
struct Cache {
    provider: SharedCredentialsProvider,
    renewed: Renewed<Credentials>,
}

/// Keys of the configuration. Those that are in files are read again whenever credentials are fetched.
#[derive(Debug)]
pub(super) struct KeyPair {
    pub(super) id: SecretFile,
    pub(super) secret: SecretFile,
}

// === impl KeyPair ===

impl ProvideCredentials for KeyPair {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let (id, secret) = (self.id.read().await, self.secret.read().await);
            Ok(Credentials::from_keys(id.expose(), secret.expose(), None))
        })
    }
}

// === impl CachedCredentials ===

impl CachedCredentials {
    pub(super) fn new(provider: SharedCredentialsProvider) -> Self {
        Self(Arc::new(Cache {
            provider,
            renewed: Renewed::new(RENEW_EARLY),
        }))
    }

    /// Valid credentials, and when they expire.
    ///
    /// # Errors
    /// `Unavailable` if the provider does not answer, or has none.
    pub(super) async fn get(&self, now: Timestamp) -> Result<Expiring<Credentials>> {
        let fetch = async {
            let found = self.0.provider.provide_credentials().await;
            let credentials = found.map_err(|error| {
                if lacks_credentials(&error) {
                    Error::for_operator(NO_CREDENTIALS, error)
                } else {
                    Error::store_unavailable(error)
                }
            })?;
            Ok(Expiring {
                expires_at: credentials.expiry().map_or(Timestamp::never(), timestamp),
                value: credentials,
            })
        };
        self.0.renewed.get(now, fetch).await
    }

    /// The next request fetches them again.
    pub(super) fn forget(&self) {
        self.0.renewed.forget();
    }

    /// When the latest ones expire.
    pub(super) fn expire_at(&self) -> Option<Timestamp> {
        self.0.renewed.expires_at()
    }
}

impl ProvideCredentials for CachedCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let found = self.get(timestamp(SystemTime::now())).await;
            let found: provider::Result = found
                .map(|expiring| expiring.value)
                .map_err(CredentialsError::provider_error);
            found
        })
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.unwrap_or_default().as_millis();
    Timestamp(u64::try_from(millis).unwrap_or(u64::MAX))
}
