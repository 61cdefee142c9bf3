//! Signed requests: a service SAS for one blob each.

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../../../fuzz/checks/azure_signature.rs"]
pub mod fuzzing;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use upload_gateway_core::{
    blobs::{
        NewObject,
        sign::{OPAQUE, SignedRequest, Signer, ToSign, system_time},
    },
    clock::Clock,
    error::{Error, Result},
    upload::{Md5, Timestamp},
};
use url::Url;

use super::{
    AzureStore, BlockId,
    delegation::Delegation,
    sas::{AccountKey, Answer, DelegationKey, Grant},
};
use crate::blobs::url::{Query, attachment, path};

/// Where callers reach a container, and how requests to its blobs are signed.
pub(super) struct BlobSigner {
    /// The storage account: what is signed names it, whatever host the URL names.
    pub(super) account: String,
    pub(super) container: String,
    /// The container's URL as callers reach it.
    pub(super) public_url: Url,
    pub(super) key: SigningKey,
}

/// What signatures are made with.
pub(super) enum SigningKey {
    /// The account's key.
    Account(AccountKey),
    /// A key that Entra ID vouches for.
    Delegation(Delegation),
}

/// A key at hand.
enum Usable<'a> {
    Account(&'a AccountKey),
    Delegation(Arc<DelegationKey>),
}

/// A request to be signed, and what the signature has to allow.
#[derive(Default)]
struct Unsigned<'a> {
    verb: &'static str,
    key: &'a str,
    permissions: &'static str,
    query: Vec<(&'static str, String)>,
    headers: BTreeMap<&'static str, String>,
    body: Option<String>,
    md5: Option<Md5>,
    /// `Content-Disposition` and `Content-Type` of the answer.
    answer: Option<(String, &'a str)>,
}

// === impl BlobSigner ===

impl BlobSigner {
    /// The key, and when it ends.
    async fn key(&self, now: Timestamp) -> Result<(Usable<'_>, Timestamp)> {
        match &self.key {
            SigningKey::Account(key) => Ok((Usable::Account(key), Timestamp(u64::MAX))),
            SigningKey::Delegation(delegation) => {
                let key = delegation.key(now).await?;
                Ok((Usable::Delegation(key.value), key.expires_at))
            }
        }
    }

    fn url(
        &self,
        unsigned: &Unsigned<'_>,
        key: &Usable<'_>,
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
            md5: unsigned.md5,
        };
        let now = system_time(now);
        let signature = match key {
            Usable::Account(key) => key.sign(&grant, now),
            Usable::Delegation(key) => key.sign(&self.account, &grant, now)?,
        };
        let (container, blob) = (&self.public_url, path(unsigned.key));
        let mut query = Query::from(signature);
        for (name, value) in &unsigned.query {
            query.push(name, value);
        }
        Ok(format!("{container}/{blob}?{}", query.as_str()))
    }
}

#[async_trait]
impl Signer for AzureStore {
    async fn sign(&self, request: &ToSign<'_>, clock: &dyn Clock) -> Result<SignedRequest> {
        let now = clock.now();
        let unsigned = Unsigned::new(request);
        if let ToSign::Begin { .. } = request {
            return Ok(unsigned.into_request(String::new()));
        }
        let key = tokio::time::timeout(self.operation_timeout, self.signer.key(now));
        let (key, expires_at) = key.await.map_err(Error::store_unavailable)??;
        let lifetime = request.lifetime_within(now, expires_at)?;
        let url = self.signer.url(&unsigned, &key, now, lifetime)?;
        Ok(unsigned.into_request(url))
    }
}

// === impl Unsigned ===

impl<'a> Unsigned<'a> {
    fn new(request: &ToSign<'a>) -> Self {
        let opaque = || BTreeMap::from([("Content-Type", OPAQUE.to_owned())]);
        match request {
            ToSign::PutObject { object, .. } => Self::put_object(object),
            // Blocks need no session: there is nothing to send.
            ToSign::Begin { object } => Self {
                verb: "PUT",
                headers: BTreeMap::from([
                    ("Content-Type", object.mime.clone()),
                    ("x-ms-blob-content-type", object.mime.clone()),
                ]),
                ..Self::default()
            },
            ToSign::PutPart {
                session,
                number,
                md5,
                ..
            } => {
                let block = BlockId::Signed { number: *number };
                let mut headers = opaque();
                headers.insert("Content-MD5", md5.to_string());
                Self {
                    verb: "PUT",
                    key: session.key,
                    permissions: "cw",
                    query: vec![("comp", "block".into()), ("blockid", block.to_base64())],
                    headers,
                    md5: Some(*md5),
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
                headers.extend(kept(object));
                Self {
                    verb: "PUT",
                    key: session.key,
                    permissions: "cw",
                    query: vec![("comp", "blocklist".into())],
                    headers,
                    body: Some(block_list(parts)),
                    ..Self::default()
                }
            }
            ToSign::Read {
                key,
                file_name,
                mime,
                ..
            } => Self {
                verb: "GET",
                key,
                permissions: "r",
                answer: Some((attachment(file_name), mime)),
                ..Self::default()
            },
        }
    }

    fn put_object(object: &'a NewObject) -> Self {
        let mut headers = BTreeMap::from([
            ("Content-Type", object.mime.clone()),
            ("x-ms-blob-type", "BlockBlob".to_owned()),
        ]);
        headers.extend(kept(object));
        if let Some(md5) = object.md5 {
            headers.insert("Content-MD5", md5.to_string());
        }
        Self {
            verb: "PUT",
            key: &object.key,
            permissions: "c",
            headers,
            md5: object.md5,
            ..Self::default()
        }
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

/// The headers whose values a blob keeps.
fn kept(object: &NewObject) -> impl Iterator<Item = (&'static str, String)> {
    let md5 = object.md5.map(|md5| md5.to_string());
    [
        ("x-ms-blob-content-type", Some(object.mime.clone())),
        ("x-ms-blob-content-md5", md5),
        ("x-ms-meta-upload_id", Some(object.upload_id.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}

/// The body of a commit. Receipts are base64: nothing in them means anything to XML.
fn block_list(parts: &[(u32, String)]) -> String {
    let mut body = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<BlockList>");
    for (_, receipt) in parts {
        body.extend(["<Latest>", receipt, "</Latest>"]);
    }
    body.push_str("</BlockList>\n");
    body
}
