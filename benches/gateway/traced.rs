//! What traces cost: the same load without traces, and with a trace of every call.

use std::future::ready;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, server::UnaryService, service::Routes, transport::Server};
use tonic_prost::ProstCodec;

use crate::{
    Result,
    payload::Payload,
    process::Gateway,
    store::Store,
    turns::{self, Compared},
};

/// Discards what it gets.
struct Discard;

/// Compares gateways without and with traces.
pub(crate) async fn measure(
    stores: [&Store; 2],
    redis_url: &str,
    payload: &Payload,
    quick: bool,
) -> Result<Compared> {
    let traces = format!("[traces]\nendpoint = \"{}\"\n", collector().await?);
    let pair = |store: &Store| -> Result<[Gateway; 2]> {
        let without = Gateway::start(store, redis_url)?;
        Ok([without, Gateway::configured(store, redis_url, &traces)?])
    };
    turns::compare(pair, stores, payload, quick).await
}

/// A collector that discards what it gets, until the process ends.
async fn collector() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes = axum::Router::new().fallback(discard);
    let server = Server::builder().add_routes(Routes::from(routes));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Ok(format!("http://{address}"))
}

async fn discard(request: axum::extract::Request) -> axum::response::Response {
    // Of no field of a message the type is known.
    let codec = ProstCodec::<(), ()>::default();
    let mut grpc = tonic::server::Grpc::new(codec);
    let answer = grpc.unary(Discard, request).await;
    answer.map(axum::body::Body::new)
}

impl UnaryService<()> for Discard {
    type Response = ();
    type Future = std::future::Ready<std::result::Result<Response<()>, Status>>;

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}
