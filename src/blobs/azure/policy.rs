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
        headers::HeaderName,
        policies::{Policy, PolicyResult},
    },
};
use upload_gateway_core::upload::Checksum;

use super::{account_key::CachedKey, sas::Grant};
use crate::blobs::transport::Timeouts;

/// How long the signature of one request is valid: longer than the request may take.
const LIFETIME: Duration = Duration::from_secs(3600);

/// The permissions that the gateway needs in its container, in Azure's order: read, create, write, delete, list.
const PERMISSIONS: &str = "rcwdl";

/// The same, and blob tags.
const PERMISSIONS_WITH_TAGS: &str = "rcwdlt";

/// The header with the tags of a new blob.
const TAGS: HeaderName = HeaderName::from_static("x-ms-tags");

/// Signs each request with the account's key, so no signature is about to expire. An HMAC over 200 bytes costs a
/// microsecond.
#[derive(Debug)]
pub(super) struct Sign {
    pub(super) key: Arc<CachedKey>,
    pub(super) container: String,
    pub(super) https_only: bool,
}

/// Sends the headers in the call's context: the SDK has no option for some of them.
#[derive(Debug)]
pub(super) struct CallHeaders;

/// The headers of one call.
#[derive(Debug, Clone)]
struct Headers(Vec<(&'static str, String)>);

/// Options for a call with these time-outs. [`CallHeaders`] sends `headers`.
pub(super) fn call_options(
    timeouts: Timeouts,
    headers: Vec<(&'static str, String)>,
) -> ClientMethodOptions<'static> {
    ClientMethodOptions {
        context: Context::new()
            .with_value(timeouts)
            .with_value(Headers(headers)),
    }
}

/// These headers, and the one with the checksum of the body. Azure refuses two of them.
pub(super) fn with_checksum(
    mut headers: Vec<(&'static str, String)>,
    checksum: Option<Checksum>,
) -> Vec<(&'static str, String)> {
    headers.extend(checksum.map(|checksum| match checksum {
        Checksum::Md5(md5) => ("content-md5", md5.to_string()),
        Checksum::Crc64Nvme(crc64) => ("x-ms-content-crc64", crc64.to_azure()),
    }));
    headers
}

#[async_trait]
impl Policy for Sign {
    async fn send(
        &self,
        context: &Context,
        request: &mut Request,
        next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        let has_tags = request.headers().get_optional_str(&TAGS).is_some()
            || request
                .url()
                .query_pairs()
                .any(|(name, value)| name == "comp" && value == "tags");
        let grant = Grant {
            container: &self.container,
            permissions: if has_tags {
                PERMISSIONS_WITH_TAGS
            } else {
                PERMISSIONS
            },
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
impl Policy for CallHeaders {
    async fn send(
        &self,
        context: &Context,
        request: &mut Request,
        next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        for (name, value) in context.value::<Headers>().map_or(&[][..], |all| &all.0) {
            request.insert_header(*name, value.clone());
        }
        next[0].send(context, request, &next[1..]).await
    }
}
