//! Authentication: who makes a call. Before both edges, the [`Caller`] is put into the extensions of the request, and
//! the edges read it there: a handler that finds none refuses the call.

mod api_key;
mod certificate;
mod credential;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../fuzz/checks/credentials.rs"]
pub mod fuzzing;
mod issuer;
mod memory;
mod principal;
mod refused;
mod rejection;
mod tokens;

use std::{sync::Arc, time::SystemTime};

use axum::{
    extract::Request,
    http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use upload_gateway_core::{
    error::{Error, Result},
    gateway::Caller,
};

use self::{
    api_key::ApiKeys,
    certificate::ClientCertificates,
    credential::{Credential, Presented},
    rejection::Rejection,
    tokens::Tokens,
};
pub use self::{
    api_key::{ApiKeyConfig, generate as generate_api_key},
    certificate::ClientCertificateConfig,
    credential::CredentialSource,
    issuer::IssuerConfig,
    principal::Role,
};
#[cfg(any(test, fuzzing))]
pub use self::{certificate::fuzzing::certificate_names, issuer::fuzzing::token_claims};
use crate::connections::Peer;

/// The paths of health checks, which need no credential.
const HEALTH: [&str; 4] = [
    "/healthz",
    "/readyz",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
];

/// The largest header fields of a request, in bytes as HTTP/2 counts them (RFC 9113, section 6.5.2). Larger ones are not parsed.
const MAX_HEADERS: usize = 16 * 1024;

/// The beginning of the paths of gRPC reflection.
const REFLECTION: &str = "/grpc.reflection.";

/// Who may call.
#[derive(Debug, Clone)]
pub(crate) enum Authentication {
    /// All clients. They are one caller, and credentials are ignored.
    None,
    /// Those with a credential.
    Required(Arc<Credentials>),
}

/// The credentials that a gateway accepts.
#[derive(Debug)]
pub(crate) struct Credentials {
    tokens: Tokens,
    api_keys: ApiKeys,
    certificates: ClientCertificates,
    /// Where HTTP requests may carry one, besides headers.
    sources: Vec<CredentialSource>,
    is_reflection_open: bool,
}

/// What a gateway accepts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings<'a> {
    pub(crate) issuers: &'a [IssuerConfig],
    pub(crate) api_keys: &'a [ApiKeyConfig],
    pub(crate) client_certificates: &'a [ClientCertificateConfig],
    /// Where HTTP requests may carry a credential, besides headers.
    pub(crate) sources: &'a [CredentialSource],
    pub(crate) is_reflection_open: bool,
}

/// A call that is admitted.
struct Admitted {
    /// `None` for calls that need no caller.
    caller: Option<Caller>,
    is_ambient: bool,
}

/// The caller of a request with these extensions.
///
/// # Errors
/// `Unauthenticated` if the layer admitted the call without a caller.
pub(crate) fn caller(extensions: &Extensions) -> Result<Caller> {
    let caller = extensions.get().cloned();
    Ok(caller.ok_or(Rejection::Missing)?)
}

/// The size of header fields in bytes, as HTTP/2 counts them.
fn size(headers: &HeaderMap) -> usize {
    let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 32;
    headers.iter().map(field).sum()
}

// === impl Authentication ===

impl Authentication {
    /// Runs `call` with the [`Caller`] of `request`, or refuses it. Nothing of the body is read before.
    pub(crate) async fn authenticated<F: Future<Output = Response>>(
        &self,
        request: Request,
        refuse: fn(Error) -> Response,
        call: impl FnOnce(Request) -> F,
    ) -> Response {
        let (mut parts, body) = request.into_parts();
        if size(&parts.headers) > MAX_HEADERS {
            return StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response();
        }
        let admitted = match self.admit(&parts).await {
            Ok(admitted) => admitted,
            Err(rejection) => {
                let path = parts.uri.path();
                tracing::info!(target: "audit", path, result = "refused", ?rejection, "audit");
                refused::discard(body);
                return refuse(rejection.into());
            }
        };
        if let Some(caller) = admitted.caller {
            parts.extensions.insert(caller);
        }
        let mut response = call(Request::from_parts(parts, body)).await;
        if admitted.is_ambient {
            let headers = response.headers_mut();
            headers.insert(
                header::REFERRER_POLICY,
                HeaderValue::from_static("no-referrer"),
            );
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
        }
        response
    }

    async fn admit(&self, request: &Parts) -> Result<Admitted, Rejection> {
        let admitted = |caller, is_ambient| Admitted { caller, is_ambient };
        let Self::Required(credentials) = self else {
            return Ok(admitted(Some(Caller::default()), false));
        };
        if credentials.is_open(request.uri.path()) {
            return Ok(admitted(None, false));
        }
        let presented = Presented::of(request, &credentials.sources)?;
        let caller = match &presented.credential {
            Some(credential) => credentials.verify(credential).await?,
            None => credentials.of_peer(request)?,
        };
        Ok(admitted(Some(caller), presented.is_ambient))
    }

    /// The issuers whose keys are fetched, and when these will be too old to be used, if they are not fetched again.
    pub(crate) fn issuer_keys_expire_at(&self) -> Vec<(String, SystemTime)> {
        let Self::Required(credentials) = self else {
            return Vec::new();
        };
        let issuers = credentials.tokens.keys_expire_at();
        issuers
            .map(|(issuer, at)| (issuer.to_owned(), at))
            .collect()
    }
}

// === impl Credentials ===

impl Credentials {
    /// What these settings accept, which are valid. Must be called in a runtime.
    ///
    /// # Errors
    /// Says which file cannot be used.
    pub(crate) fn new(settings: Settings<'_>) -> Result<Self, String> {
        Ok(Self {
            tokens: Tokens::new(settings.issuers)?,
            api_keys: ApiKeys::new(settings.api_keys)?,
            certificates: ClientCertificates::new(settings.client_certificates)?,
            sources: settings.sources.to_vec(),
            is_reflection_open: settings.is_reflection_open,
        })
    }

    /// Whether the calls with this path need no credential.
    fn is_open(&self, path: &str) -> bool {
        HEALTH.contains(&path) || (self.is_reflection_open && path.starts_with(REFLECTION))
    }

    async fn verify(&self, credential: &Credential) -> Result<Caller, Rejection> {
        match credential {
            Credential::ApiKey(key) => self.api_keys.verify(key),
            Credential::Token(token) => self.tokens.verify(token).await,
        }
    }

    /// The principal of the certificate that the client of a request has presented.
    fn of_peer(&self, request: &Parts) -> Result<Caller, Rejection> {
        match request.extensions.get::<Arc<Peer>>() {
            Some(peer) => self.certificates.verify(&peer.certificates),
            None => Err(Rejection::Missing),
        }
    }
}
