//! What traces cost: the same load without traces, and with a trace of every call.

use std::{future::ready, time::Duration};

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    server::UnaryService,
    service::Routes,
    transport::{Endpoint, Server},
};
use tonic_prost::ProstCodec;

use crate::{
    GIB, Load, MIB, Result, payload::Payload, process::Gateway, signing::Bearer, store::Store,
    turns,
};

/// Discards what it gets.
struct Discard;

/// The cost of traces.
#[derive(Debug)]
pub(crate) struct Traced {
    /// The time of the same signing calls, median, without and with traces.
    pub(crate) signing: [Duration; 2],
    /// The time of the same files, median, without and with traces.
    pub(crate) files: [Duration; 2],
    /// Their load.
    pub(crate) load: Load,
    /// The peak memory of the gateways after all of it, in bytes.
    pub(crate) memory: [u64; 2],
}

/// Measures with gateways on `signing_store`, and files to `file_store`.
pub(crate) async fn measure(
    signing_store: &Store,
    file_store: &Store,
    redis_url: &str,
    payload: &Payload,
    quick: bool,
) -> Result<Traced> {
    let traces = format!("[traces]\nendpoint = \"{}\"\n", collector().await?);
    let pair = |store: &Store| -> Result<[(Gateway, Bearer); 2]> {
        Ok([
            (Gateway::start(store, redis_url)?, Bearer::default()),
            (
                Gateway::configured(store, redis_url, &traces)?,
                Bearer::default(),
            ),
        ])
    };
    let signing = turns::signing(&pair(signing_store)?, quick).await?;
    let gateways = pair(file_store)?;
    let load = Load {
        streams: 16,
        file_size: if quick { 16 * MIB } else { GIB / 4 },
    };
    let mut channels = Vec::new();
    for (gateway, _) in &gateways {
        let endpoint = Endpoint::from_shared(gateway.address.clone())?;
        channels.push(endpoint.connect().await?);
    }
    let channels = channels.try_into().map_err(|_| "two gateways")?;
    Ok(Traced {
        signing,
        files: turns::files(&channels, file_store, payload, load).await?,
        load,
        memory: [gateways[0].0.peak_memory()?, gateways[1].0.peak_memory()?],
    })
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
