//! Signed requests: each has a service SAS for one blob.

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../../../fuzz/checks/azure_signature.rs"]
pub mod fuzzing;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use upload_gateway_core::{
    blobs::{
        NewObject,
        sign::{OPAQUE, SignedRequest, ToSign, system_time},
    },
    error::{Error, Result},
    upload::Timestamp,
};
use url::Url;

use super::{
    account_key::CachedKey,
    block_id::BlockId,
    block_list::block_list,
    delegation::Delegation,
    placement,
    sas::{AccountKey, Answer, DelegationKey, Grant},
};
use crate::blobs::url::{Query, attachment, path};

/// Signs requests to the blobs of a container.
pub(super) struct BlobSigner {
    /// The storage account. Signatures contain it, whatever the host of the URL is.
    pub(super) account: String,
    pub(super) container: String,
    /// The container's URL for clients.
    pub(super) public_url: Url,
    pub(super) key: SigningKey,
}

/// The key that signs.
pub(super) enum SigningKey {
    /// The account's key.
    Account(Arc<CachedKey>),
    /// User delegation keys, fetched with an Entra ID identity.
    Delegation(Box<Delegation>),
}

/// A key that is valid now.
enum Usable {
    Account(AccountKey),
    Delegation(Arc<DelegationKey>),
}

/// A request to sign, and what the signature must allow.
#[derive(Default)]
struct Unsigned<'a> {
    verb: &'static str,
    key: &'a str,
    permissions: &'static str,
    query: Vec<(&'static str, String)>,
    headers: BTreeMap<Cow<'static, str>, String>,
    body: Option<String>,
    scope: Option<&'a str>,
    /// `Content-Disposition` and `Content-Type` of the response.
    answer: Option<(String, &'a str)>,
}

// === impl BlobSigner ===

impl BlobSigner {
    /// The next signature fetches the key again.
    pub(super) fn forget_key(&self) {
        match &self.key {
            SigningKey::Account(key) => key.forget(),
            SigningKey::Delegation(delegation) => delegation.forget(),
        }
    }

    /// See [`Signer::sign`](upload_gateway_core::blobs::sign::Signer::sign). Fetching a key takes at most `timeout`.
    pub(super) async fn sign(
        &self,
        request: &ToSign<'_>,
        now: Timestamp,
        timeout: Duration,
    ) -> Result<SignedRequest> {
        let unsigned = Unsigned::new(request);
        // Blocks need no session, so there is nothing to send.
        if let ToSign::Begin { .. } = request {
            return Ok(unsigned.into_request(String::new()));
        }
        let key = tokio::time::timeout(timeout, self.key(now));
        let (key, expires_at) = key.await.map_err(Error::store_unavailable)??;
        let lifetime = request.lifetime_within(now, expires_at)?;
        let url = self.url(&unsigned, &key, now, lifetime)?;
        Ok(unsigned.into_request(url))
    }

    /// The query of a URL that allows `grant`. Fetching a key takes at most `timeout`.
    pub(super) async fn allow(
        &self,
        grant: &Grant<'_>,
        now: Timestamp,
        timeout: Duration,
    ) -> Result<String> {
        let key = tokio::time::timeout(timeout, self.key(now));
        let (key, _) = key.await.map_err(Error::store_unavailable)??;
        key.sign(&self.account, grant, now)
    }

    /// When the latest key expires; `None` if it does not.
    pub(super) fn key_expires_at(&self) -> Option<Timestamp> {
        match &self.key {
            SigningKey::Account(_) => None,
            SigningKey::Delegation(delegation) => delegation.expires_at(),
        }
    }

    /// A valid key, and when it expires.
    async fn key(&self, now: Timestamp) -> Result<(Usable, Timestamp)> {
        match &self.key {
            SigningKey::Account(key) => Ok((Usable::Account(key.get().await?), Timestamp::never())),
            SigningKey::Delegation(delegation) => {
                let key = delegation.key(now).await?;
                Ok((Usable::Delegation(key.value), key.expires_at))
            }
        }
    }

    fn url(
        &self,
        unsigned: &Unsigned<'_>,
        key: &Usable,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<String> {
        let grant = Grant {
            container: &self.container,
            blob: Some(unsigned.key),
            permissions: unsigned.permissions,
            lifetime,
            https_only: self.public_url.scheme() == "https",
            answer: unsigned
                .answer
                .as_ref()
                .map(|(disposition, mime)| Answer { disposition, mime }),
            query: &unsigned.query,
            headers: &unsigned.bound_headers(),
            scope: unsigned.scope,
        };
        let signature = key.sign(&self.account, &grant, now)?;
        let (container, blob) = (&self.public_url, path(unsigned.key));
        let mut query = Query::from(signature);
        for (name, value) in &unsigned.query {
            query.push(name, value);
        }
        Ok(format!("{container}/{blob}?{}", query.as_str()))
    }
}

// === impl Usable ===

impl Usable {
    fn sign(&self, account: &str, grant: &Grant<'_>, now: Timestamp) -> Result<String> {
        let now = system_time(now);
        match self {
            Self::Account(key) => Ok(key.sign(grant, now)),
            Self::Delegation(key) => key.sign(account, grant, now),
        }
    }
}

// === impl Unsigned ===

impl<'a> Unsigned<'a> {
    fn new(request: &ToSign<'a>) -> Self {
        let opaque = || BTreeMap::from([("Content-Type".into(), OPAQUE.to_owned())]);
        match request {
            ToSign::PutObject { object, .. } => Self::put_object(object),
            ToSign::Begin { object } => Self {
                verb: "PUT",
                headers: BTreeMap::from([
                    ("Content-Type".into(), object.mime.clone()),
                    ("x-ms-blob-content-type".into(), object.mime.clone()),
                ]),
                ..Self::default()
            },
            ToSign::PutPart {
                session,
                number,
                cut,
                md5,
                ..
            } => {
                let block = BlockId::Signed {
                    number: *number,
                    cut: *cut,
                };
                let mut headers = opaque();
                headers.insert("Content-MD5".into(), md5.to_string());
                if let Some(scope) = session.scope {
                    headers.insert("x-ms-encryption-scope".into(), scope.to_owned());
                }
                Self {
                    verb: "PUT",
                    key: session.key,
                    permissions: "cw",
                    query: vec![("comp", "block".into()), ("blockid", block.to_base64())],
                    headers,
                    scope: session.scope,
                    ..Self::default()
                }
            }
            ToSign::ListParts { session } => Self {
                verb: "GET",
                key: session.key,
                permissions: "r",
                query: vec![
                    ("comp", "blocklist".into()),
                    ("blocklisttype", "all".into()),
                ],
                ..Self::default()
            },
            ToSign::Commit {
                session,
                object,
                parts,
            } => {
                let mut headers = opaque();
                headers.extend(stored_headers(object));
                Self {
                    verb: "PUT",
                    key: session.key,
                    permissions: placement::with_tags(object, "cw", "cwt"),
                    query: vec![("comp", "blocklist".into())],
                    headers,
                    body: Some(block_list(parts)),
                    scope: object.placement.encryption_scope(),
                    ..Self::default()
                }
            }
            ToSign::Read {
                verb,
                key,
                file_name,
                mime,
                ..
            } => Self {
                verb: verb.as_str(),
                key,
                permissions: "r",
                answer: Some((attachment(file_name), mime)),
                ..Self::default()
            },
        }
    }

    fn put_object(object: &'a NewObject) -> Self {
        let mut headers = BTreeMap::from([
            ("Content-Type".into(), object.mime.clone()),
            ("x-ms-blob-type".into(), "BlockBlob".to_owned()),
        ]);
        headers.extend(stored_headers(object));
        if let Some(md5) = object.md5 {
            headers.insert("Content-MD5".into(), md5.to_string());
        }
        Self {
            verb: "PUT",
            key: &object.key,
            permissions: placement::with_tags(object, "c", "ct"),
            headers,
            scope: object.placement.encryption_scope(),
            ..Self::default()
        }
    }

    /// The headers that decide what is stored, in lower case.
    fn bound_headers(&self) -> Vec<(String, &str)> {
        let headers = self.headers.iter();
        headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
            .filter(|(name, _)| name == "content-md5" || name.starts_with("x-ms-"))
            .collect()
    }

    fn into_request(self, url: String) -> SignedRequest {
        SignedRequest {
            verb: self.verb,
            url,
            headers: self.headers,
            body: self.body,
        }
    }
}

/// The headers whose values are stored with a blob.
fn stored_headers(object: &NewObject) -> impl Iterator<Item = (Cow<'static, str>, String)> {
    let mime = ("x-ms-blob-content-type".into(), object.mime.clone());
    let md5 = object
        .md5
        .map(|md5| ("x-ms-blob-content-md5".into(), md5.to_string()));
    let metadata = object.metadata();
    let metadata = metadata.map(|(key, value)| (format!("x-ms-meta-{key}").into(), value));
    let placed = placement::signed_headers(&object.placement).into_iter();
    let placed = placed.map(|(name, value)| (name.into(), value));
    [Some(mime), md5]
        .into_iter()
        .flatten()
        .chain(placed)
        .chain(metadata)
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
        credentials::{AccessToken, TokenCredential, TokenRequestOptions},
        http::{
            AsyncRawResponse, Body, ClientOptions, HttpClient, Request, RetryOptions, StatusCode,
            Transport, headers::Headers,
        },
        time::OffsetDateTime,
    };
    use upload_gateway_core::{
        blobs::{Session, sign::Signer},
        error::Kind,
        upload::Md5,
    };

    use super::*;
    use crate::blobs::azure::{AzureConfig, AzureStore};

    const DAY: u64 = 24 * 60 * 60 * 1_000;

    /// 2025-11-26, 02:05:20.
    const NOW: Timestamp = Timestamp(1_764_122_720_000);

    /// Returns a key, or 503 while `down`. Azurite accepts Entra ID tokens over TLS only, so the tests do not use it.
    #[derive(Debug, Default)]
    struct Azure {
        requests: Mutex<Vec<String>>,
        down: Mutex<bool>,
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
            let status = match *self.down.lock().unwrap() {
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
            key: SigningKey::Delegation(Box::new(
                Delegation::new(endpoint, Arc::new(Identity), options).unwrap(),
            )),
        });
        store
    }

    fn part() -> ToSign<'static> {
        ToSign::PutPart {
            session: Session {
                key: "a b",
                id: "any",
                scope: None,
            },
            number: 1,
            cut: 0,
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
    async fn azure_may_be_unavailable_while_the_key_is_valid() {
        let azure = Arc::new(Azure::default());
        let store = store(&azure);
        store.sign(&part(), &NOW).await.unwrap();
        *azure.down.lock().unwrap() = true;
        let last = Timestamp(NOW.0 + 6 * DAY - 60_000);
        let signed = store.sign(&part(), &last).await.unwrap();
        let end = "&se=2025-12-02T02:05:20Z&";
        assert!(signed.url.contains(end), "{}", signed.url);

        let after = Timestamp(NOW.0 + 6 * DAY);
        let error = store.sign(&part(), &after).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        *azure.down.lock().unwrap() = false;
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
