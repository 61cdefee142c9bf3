//! The user delegation key: what signatures are made with where there is no account key.

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

/// How long a key is asked for. Azure gives 7 days at most, counted by its own clock.
const LIFETIME: Duration = Duration::from_secs(6 * 24 * 60 * 60);

/// How long before its end a key is fetched anew: after a day, so that no upload's signature is cut short.
const RENEW_EARLY: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// Fetches keys from Azure and keeps the last.
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

    /// A key that is valid.
    ///
    /// # Errors
    /// `Unavailable` when the store or Entra ID does not answer; `Internal` when they refuse.
    pub(super) async fn key(&self, now: Timestamp) -> Result<Expiring<Arc<DelegationKey>>> {
        self.key.get(now, self.fetch(now)).await
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

#[cfg(test)]
mod tests {
    #![allow(
        elided_lifetimes_in_paths,
        reason = "the traits elide them, and async_trait wants the same signature"
    )]

    use std::sync::Mutex;

    use async_trait::async_trait;
    use azure_core::{
        credentials::{AccessToken, TokenRequestOptions},
        http::{
            AsyncRawResponse, Body, HttpClient, Request, RetryOptions, StatusCode, Transport,
            headers::Headers,
        },
    };

    use super::*;
    use crate::blobs::azure::{
        AzureConfig, AzureStore,
        sign::{BlobSigner, SigningKey},
    };
    use upload_gateway_core::{
        blobs::{
            Session,
            sign::{Signer, ToSign},
        },
        error::Kind,
        upload::Md5,
    };

    const DAY: u64 = 24 * 60 * 60 * 1_000;

    /// 2025-11-26, 02:05:20.
    const NOW: Timestamp = Timestamp(1_764_122_720_000);

    /// Azure's answer to the request for a key, or none. The emulator speaks to identities over TLS only.
    #[derive(Debug, Default)]
    struct Azure {
        requests: Mutex<Vec<String>>,
        away: Mutex<bool>,
    }

    #[derive(Debug)]
    struct Identity;

    #[async_trait]
    impl HttpClient for Azure {
        async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
            let Body::Bytes(body) = request.body() else {
                panic!("the request has a body");
            };
            let body = String::from_utf8_lossy(body);
            let seen = format!("{} {} {body}", request.method(), request.url());
            self.requests.lock().unwrap().push(seen);
            let element = |name| {
                let (_, rest) = body.split_once(&format!("<{name}>")).unwrap();
                rest.split_once('<').unwrap().0
            };
            let key = format!(
                "<?xml version=\"1.0\" encoding=\"utf-8\"?><UserDelegationKey><SignedOid>oid</SignedOid>\
                 <SignedTid>tid</SignedTid><SignedStart>{}</SignedStart><SignedExpiry>{}</SignedExpiry>\
                 <SignedService>b</SignedService><SignedVersion>2025-11-05</SignedVersion>\
                 <Value>aHVzaA==</Value></UserDelegationKey>",
                element("Start"),
                element("Expiry")
            );
            let status = match *self.away.lock().unwrap() {
                true => StatusCode::ServiceUnavailable,
                false => StatusCode::Ok,
            };
            Ok(AsyncRawResponse::from_bytes(status, Headers::new(), key))
        }
    }

    #[async_trait]
    impl TokenCredential for Identity {
        async fn get_token(
            &self,
            _scopes: &[&str],
            _options: Option<TokenRequestOptions<'_>>,
        ) -> azure_core::Result<AccessToken> {
            let forever = OffsetDateTime::now_utc() + Duration::from_secs(3_600);
            Ok(AccessToken::new("token", forever))
        }
    }

    fn store(azure: &Arc<Azure>) -> AzureStore {
        let config = AzureConfig {
            account_key: Some("bm90IHVzZWQ=".into()),
            ..AzureConfig::new("account", "media")
        };
        let mut store = AzureStore::connect(config).unwrap();
        let options = ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::clone(azure) as Arc<dyn HttpClient>)),
            ..ClientOptions::default()
        };
        let endpoint = "https://account.blob.core.windows.net".parse().unwrap();
        store.signer = Arc::new(BlobSigner {
            account: "account".into(),
            container: "media".into(),
            public_url: "https://files.example/media".parse().unwrap(),
            key: SigningKey::Delegation(
                Delegation::new(endpoint, Arc::new(Identity), options).unwrap(),
            ),
        });
        store
    }

    fn part() -> ToSign<'static> {
        ToSign::PutPart {
            session: Session {
                key: "a b",
                id: "any",
            },
            number: 1,
            size: 5 << 20,
            md5: Md5::of(b"part"),
        }
    }

    #[tokio::test]
    async fn a_key_signs_for_a_day_and_binds_the_part() {
        let azure = Arc::new(Azure::default());
        let store = store(&azure);
        let signed = store.sign(&part(), &NOW).await.unwrap();
        let start = "https://files.example/media/a%20b?sv=";
        assert!(signed.url.starts_with(start), "{}", signed.url);
        for parameter in [
            "st=2025-11-26T02:00:20Z",
            "se=2025-11-26T02:10:40Z",
            "sp=cw",
            "spr=https",
            "skoid=oid",
            "ske=2025-12-02T02:05:20Z",
            "srq=blockid,comp",
            "srh=content-md5",
            "comp=block",
            "blockid=MDAwMDAx",
        ] {
            let mut pairs = signed.url.split(['?', '&']);
            assert!(
                pairs.any(|pair| pair == parameter),
                "{parameter}: {}",
                signed.url
            );
        }
        let later = Timestamp(NOW.0 + DAY - 1);
        store.sign(&part(), &later).await.unwrap();
        {
            let requests = azure.requests.lock().unwrap();
            assert_eq!(requests.len(), 1, "{requests:?}");
            let query = "/?comp=userdelegationkey&restype=service";
            assert!(requests[0].contains(query), "{requests:?}");
        }
        store.sign(&part(), &Timestamp(NOW.0 + DAY)).await.unwrap();
        assert_eq!(azure.requests.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn azure_may_be_away_while_the_key_lasts() {
        let azure = Arc::new(Azure::default());
        let store = store(&azure);
        store.sign(&part(), &NOW).await.unwrap();
        *azure.away.lock().unwrap() = true;
        let last = Timestamp(NOW.0 + 6 * DAY - 60_000);
        let signed = store.sign(&part(), &last).await.unwrap();
        let end = "&se=2025-12-02T02:05:20Z&";
        assert!(signed.url.contains(end), "{}", signed.url);

        let after = Timestamp(NOW.0 + 6 * DAY);
        let error = store.sign(&part(), &after).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        *azure.away.lock().unwrap() = false;
        store.sign(&part(), &after).await.unwrap();
    }

    #[tokio::test]
    async fn the_key_is_not_printed() {
        let delegation = store(&Arc::new(Azure::default()));
        let SigningKey::Delegation(delegation) = &delegation.signer.key else {
            panic!("the store has a user delegation key");
        };
        let key = delegation.key(NOW).await.unwrap();
        assert!(!format!("{key:?}").contains("aHVzaA"), "{key:?}");
    }
}
