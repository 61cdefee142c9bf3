//! Policies of the SDK's pipeline that add to each request.

#![allow(
    elided_lifetimes_in_paths,
    reason = "the trait elides them, and async_trait wants the same signature"
)]

use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use azure_core::{
    Error as AzureError,
    error::ErrorKind,
    http::{
        ClientMethodOptions, Context, Request,
        policies::{Policy, PolicyResult},
    },
};
use upload_gateway_core::upload::Md5;

use super::{account_key::CachedKey, sas::Grant};
use crate::blobs::transport::Timeouts;

/// How long the signature of one request is valid: longer than the request may take.
const LIFETIME: Duration = Duration::from_secs(3600);

/// The permissions that the gateway needs in its container, in Azure's order: read, create, write, delete, list.
const PERMISSIONS: &str = "rcwdl";

/// Signs each request with the account's key, so no signature is about to expire. An HMAC over 200 bytes costs a
/// microsecond.
#[derive(Debug)]
pub(super) struct Sign {
    pub(super) key: Arc<CachedKey>,
    pub(super) container: String,
    pub(super) https_only: bool,
}

/// Sends the `Content-MD5` in the call's context: the SDK's Put Blob has no option for it.
#[derive(Debug)]
pub(super) struct ContentMd5;

/// Options for a call with these time-outs. [`ContentMd5`] sends `md5`.
pub(super) fn call_options(timeouts: Timeouts, md5: Option<Md5>) -> ClientMethodOptions<'static> {
    let context = Context::new().with_value(timeouts);
    ClientMethodOptions {
        context: match md5 {
            Some(md5) => context.with_value(md5),
            None => context,
        },
    }
}

#[async_trait]
impl Policy for Sign {
    async fn send(
        &self,
        context: &Context,
        request: &mut Request,
        next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        let grant = Grant {
            container: &self.container,
            permissions: PERMISSIONS,
            lifetime: LIFETIME,
            https_only: self.https_only,
            ..Grant::default()
        };
        let key = self.key.get().await;
        let key = key.map_err(|error| AzureError::new(ErrorKind::Credential, error))?;
        let signature = key.sign(&grant, SystemTime::now());
        let query = match request.url().query() {
            Some(query) if !query.is_empty() => format!("{query}&{signature}"),
            _ => signature,
        };
        request.url_mut().set_query(Some(&query));
        next[0].send(context, request, &next[1..]).await
    }
}

#[async_trait]
impl Policy for ContentMd5 {
    async fn send(
        &self,
        context: &Context,
        request: &mut Request,
        next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        if let Some(md5) = context.value::<Md5>() {
            request.insert_header("content-md5", md5.to_string());
        }
        next[0].send(context, request, &next[1..]).await
    }
}
