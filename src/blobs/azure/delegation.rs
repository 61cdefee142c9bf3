//! The user delegation key, which signs if there is no account key.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use azure_core::{credentials::TokenCredential, http::ClientOptions, time::OffsetDateTime};
use azure_storage_blob::{BlobServiceClient, BlobServiceClientOptions, models::KeyInfo};
use upload_gateway_core::{blobs::sign::system_time, error::Result, upload::Timestamp};
use url::Url;

use super::{
    fault::fault,
    sas::{CLOCK_SKEW, DelegationKey},
};
use crate::blobs::renewed::{Expiring, Renewed};

/// The requested lifetime of a key. Azure allows at most 7 days, by its own clock.
const LIFETIME: Duration = Duration::from_secs(6 * 24 * 60 * 60);

/// How long before its end a key is renewed: after a day, so that the end of a key shortens no signature.
const RENEW_EARLY: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// Fetches keys from Azure and keeps the last one.
pub(super) struct Delegation {
    client: BlobServiceClient,
    key: Renewed<Arc<DelegationKey>>,
}

// === impl Delegation ===

impl Delegation {
    /// Keys of the account whose blobs are at `endpoint`.
    pub(super) fn new(
        endpoint: Url,
        credential: Arc<dyn TokenCredential>,
        client_options: ClientOptions,
    ) -> Result<Self> {
        let options = BlobServiceClientOptions {
            client_options,
            ..BlobServiceClientOptions::default()
        };
        let client = BlobServiceClient::new(endpoint, Some(credential), Some(options))
            .map_err(|error| fault("prepare a client", error))?;
        Ok(Self {
            client,
            key: Renewed::new(RENEW_EARLY),
        })
    }

    /// A valid key.
    ///
    /// # Errors
    /// `Unavailable` if Azure Storage or Entra ID is unavailable; `Internal` if one of them refuses the request.
    pub(super) async fn key(&self, now: Timestamp) -> Result<Expiring<Arc<DelegationKey>>> {
        self.key.get(now, self.fetch(now)).await
    }

    /// The next request fetches a new key.
    pub(super) fn forget(&self) {
        self.key.forget();
    }

    /// When the latest key expires.
    pub(super) fn expires_at(&self) -> Option<Timestamp> {
        self.key.expires_at()
    }

    async fn fetch(&self, now: Timestamp) -> Result<Expiring<Arc<DelegationKey>>> {
        let action = "fetch a user delegation key";
        let now = system_time(now);
        let period = KeyInfo {
            start: Some(OffsetDateTime::from(now - CLOCK_SKEW)),
            expiry: Some(OffsetDateTime::from(now + LIFETIME)),
            ..KeyInfo::default()
        };
        let period = period.try_into().map_err(|error| fault(action, error))?;
        let answer = self.client.get_user_delegation_key(period, None).await;
        let answer = answer.map_err(|error| fault(action, error))?;
        let key: DelegationKey = answer
            .into_body()
            .xml()
            .map_err(|error| fault(action, error))?;
        let end = key.expires_at()?.duration_since(SystemTime::UNIX_EPOCH);
        let end = end.unwrap_or_default().as_millis();
        Ok(Expiring {
            value: Arc::new(key),
            expires_at: Timestamp(u64::try_from(end).unwrap_or(u64::MAX)),
        })
    }
}
