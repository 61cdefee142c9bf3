//! Keeps web pages of other sites from using a gateway that authenticates no callers.
//!
//! A browser on the same machine reaches the loopback address, and sends what any page asks it to send. A page whose DNS
//! name is made to refer to 127.0.0.1 (DNS rebinding) has the origin of the gateway for the browser, but its requests have
//! its own name in `Host`. Requests of all other pages have the origin of the page in `Origin`, and those that change
//! something are refused even if the page could not read the response.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::ORIGIN},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};

use super::{api::BASE, failure::Failure, health, host::host};
use crate::{cors::CorsOrigin, hosts::HostName};

/// How the origin of a request relates to the page that sent it: a header that scripts cannot set.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// The hosts and the origins that requests may name.
#[derive(Debug)]
struct Rules {
    hosts: Vec<HostName>,
    origins: Vec<CorsOrigin>,
}

/// Refuses requests to `router` for other hosts than those of this machine and `hosts`. A request that changes something may
/// come from a page of the gateway, from a page of one of `origins`, or from no page.
pub fn without_foreign_pages(router: Router, hosts: &[HostName], origins: &[CorsOrigin]) -> Router {
    let rules = Arc::new(Rules {
        hosts: hosts.to_vec(),
        origins: origins.to_vec(),
    });
    router.layer(from_fn_with_state(rules, check))
}

async fn check(State(rules): State<Arc<Rules>>, request: Request, next: Next) -> Response {
    match rules.check(&request) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

// === impl Rules ===

impl Rules {
    fn check(&self, request: &Request) -> Result<(), Failure> {
        // Probes name any host, and learn nothing about uploads.
        if health::PATHS.contains(&request.uri().path()) {
            return Ok(());
        }
        // A malformed value is not an accepted host.
        let host = host(request)?;
        // A target with a host overrides the header (RFC 9112, section 3.2.2), and must not hide it here.
        let authority = request.uri().authority().map(|target| target.as_str());
        if ![host, authority]
            .into_iter()
            .flatten()
            .all(|host| self.accepts(host))
        {
            return Err(Failure::Refused(
                StatusCode::MISDIRECTED_REQUEST,
                "the request is for another host; http_hosts lists the hosts of this gateway",
            ));
        }
        if changes_something(request) && !self.may_change(request.headers(), authority.or(host)) {
            return Err(Failure::Refused(
                StatusCode::FORBIDDEN,
                "the request is from a page of another origin; rest.cors_origins lists the origins that may send it",
            ));
        }
        Ok(())
    }

    fn accepts(&self, host: &str) -> bool {
        HostName::of_header(host)
            .is_some_and(|host| host.is_loopback() || self.hosts.contains(&host))
    }

    /// Whether a request with these headers to this host may change something.
    fn may_change(&self, headers: &HeaderMap, host: Option<&str>) -> bool {
        let mut sent = headers.get_all(ORIGIN).iter();
        let (origin, second) = (sent.next(), sent.next());
        if origin.is_some_and(|origin| second.is_none() && self.lists(origin)) {
            return true;
        }
        let is_cross_site = headers
            .get_all(SEC_FETCH_SITE)
            .iter()
            .any(|site| site == "cross-site");
        let is_own = |origin: &HeaderValue| {
            let sent = origin.to_str().ok().and_then(CorsOrigin::of);
            let own = host.and_then(|host| CorsOrigin::of(&format!("http://{host}")));
            sent.is_some() && sent == own
        };
        !is_cross_site && second.is_none() && origin.is_none_or(is_own)
    }

    fn lists(&self, origin: &HeaderValue) -> bool {
        self.origins
            .iter()
            .any(|listed| listed.is_any() || origin == listed.as_str())
    }
}

/// Whether the request changes something. Signing the next step does, although it is also a GET: it is recorded.
fn changes_something(request: &Request) -> bool {
    let path = request.uri().path();
    !request.method().is_safe() || (path.starts_with(BASE) && path.ends_with("/edit"))
}
