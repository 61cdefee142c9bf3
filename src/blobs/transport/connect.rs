//! Connections: TCP with a small send buffer, TLS, and proxies.

use std::{
    error::Error as StdError,
    future::Future,
    net::Ipv4Addr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::{Uri, header::HeaderValue};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{HttpConnector, proxy::Tunnel},
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use rustls::ClientConfig;
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tower_service::Service;
use upload_gateway_core::blobs::CONNECT_TIMEOUT;

use super::progress::Metered;
use crate::hosts::HostName;

/// The largest number of bytes that a socket has taken and the store has not acknowledged. It limits the rate of one
/// connection to this number per round trip: 5 MB/s at 100 ms.
pub(super) const SEND_BUFFER: u64 = 512 * 1024;

/// A socket takes no more bytes while it has this number of unsent ones. Otherwise, on a slow link, it would take none
/// until a third of its send buffer is free, which takes longer than a time-out.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 64 * 1024;

type BoxError = Box<dyn StdError + Send + Sync>;

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

type Stream = MaybeHttpsStream<TokioIo<Metered>>;

/// Makes the connections of a transport.
pub(super) type Connector = HttpsConnector<Route>;

/// Connects to a server, or to the proxy for it. The connection to a server is without TLS.
#[derive(Debug, Clone)]
pub(super) struct Route {
    tcp: Tcp,
    tls: Arc<ClientConfig>,
    proxies: Arc<Matcher>,
}

/// Connects to a host.
#[derive(Debug, Clone)]
struct Tcp {
    connector: HttpConnector,
    /// Whether the host is a proxy that forwards requests.
    is_forwarded: bool,
}

/// A connector for all servers.
pub(super) fn connector(route: Route) -> Connector {
    let tls = Arc::clone(&route.tls);
    HttpsConnector::from((route, tls))
}

// === impl Route ===

impl Route {
    pub(super) fn new(proxies: Matcher, tls: Arc<ClientConfig>) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // Linux doubles the value, for its own bookkeeping.
        connector.set_send_buffer_size(usize::try_from(SEND_BUFFER / 2).ok());
        Self {
            tcp: Tcp {
                connector,
                is_forwarded: false,
            },
            tls,
            proxies: Arc::new(proxies),
        }
    }

    /// The credentials for the proxy that forwards requests to this address.
    pub(super) fn proxy_credentials(&self, to: &Uri) -> Option<HeaderValue> {
        let proxy = self.proxy(to).filter(|_| !is_https(to))?;
        proxy.basic_auth().cloned()
    }

    /// The proxy for requests to this address.
    fn proxy(&self, to: &Uri) -> Option<Intercept> {
        if is_local(to) {
            return None;
        }
        self.proxies.intercept(to)
    }

    fn to_proxy(&self, is_forwarded: bool) -> HttpsConnector<Tcp> {
        let tcp = Tcp {
            is_forwarded,
            ..self.tcp.clone()
        };
        HttpsConnector::from((tcp, Arc::clone(&self.tls)))
    }
}

impl Service<Uri> for Route {
    type Response = Stream;
    type Error = BoxError;
    type Future = Connecting<Stream>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Connecting<Stream> {
        let Some(proxy) = self.proxy(&to) else {
            let connecting = self.tcp.call(to);
            return Box::pin(async { Ok(MaybeHttpsStream::Http(connecting.await?)) });
        };
        if !is_https(&to) {
            return self.to_proxy(true).call(proxy.uri().clone());
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy(false));
        if let Some(credentials) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(credentials.clone());
        }
        Box::pin(async move { Ok(tunnel.call(to).await?) })
    }
}

// === impl Tcp ===

impl Service<Uri> for Tcp {
    type Response = TokioIo<Metered>;
    type Error = BoxError;
    type Future = Connecting<TokioIo<Metered>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Connecting<TokioIo<Metered>> {
        let is_forwarded = self.is_forwarded;
        let connecting = self.connector.call(to);
        Box::pin(async move {
            let stream = connecting.await?.into_inner();
            #[cfg(target_os = "linux")]
            SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT)?;
            Ok(TokioIo::new(Metered::new(stream, is_forwarded)))
        })
    }
}

fn is_https(to: &Uri) -> bool {
    to.scheme_str() == Some("https")
}

/// Whether the address is that of this machine, or of a service that only this machine reaches and that is known by its
/// address: the embedded S3, or the metadata service of a cloud. A proxy could not reach it, and must not see its requests.
fn is_local(to: &Uri) -> bool {
    let host = to.host().unwrap_or_default();
    let is_link_local = |ip: Ipv4Addr| ip.is_link_local();
    HostName::of_header(host).is_some_and(|host| host.is_loopback())
        || host.parse().is_ok_and(is_link_local)
}
