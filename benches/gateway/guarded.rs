//! What authentication and encryption cost: the same load with and without them, in turns.

use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use upload_gateway_client::proto::v1::{
    GetLimitsRequest, upload_service_client::UploadServiceClient,
};

use crate::{
    GIB, Load, MIB, Result, common::Issuer, payload::Payload, process::Gateway, signing::Bearer,
    store::Store, turns,
};

/// How many tokens are presented for the first time.
const TOKENS: usize = 200;

/// The cost of authentication and encryption.
#[derive(Debug)]
pub(crate) struct Guarded {
    /// The time of the same signing calls, median, without and with authentication.
    pub(crate) signing: [Duration; 2],
    /// How much longer the first call with a token takes than the second one, median.
    pub(crate) first_call: Duration,
    /// The time of one stream, median, without and with TLS.
    pub(crate) stream: [Duration; 2],
    /// Its load.
    pub(crate) load: Load,
}

/// Measures with the gateway on `signing_store`, and a stream to `stream_store`.
pub(crate) async fn measure(
    signing_store: &Store,
    stream_store: &Store,
    redis_url: &str,
    payload: &Payload,
    quick: bool,
) -> Result<Guarded> {
    let issuer = Issuer::new();
    let load = Load {
        streams: 1,
        file_size: if quick { 64 * MIB } else { 2 * GIB },
    };
    Ok(Guarded {
        signing: signing(&issuer, signing_store, redis_url, quick).await?,
        first_call: first_call(&issuer, signing_store, redis_url).await?,
        stream: stream(&issuer, stream_store, redis_url, payload, load).await?,
        load,
    })
}

async fn signing(
    issuer: &Issuer,
    store: &Store,
    redis_url: &str,
    quick: bool,
) -> Result<[Duration; 2]> {
    let open = Gateway::start(store, redis_url)?;
    let guarded = Gateway::configured(store, redis_url, &issuer.authentication())?;
    let callers = [
        (open, Bearer::default()),
        (guarded, Bearer::new(&issuer.token("bench"))?),
    ];
    turns::signing(&callers, 1, quick).await
}

async fn first_call(issuer: &Issuer, store: &Store, redis_url: &str) -> Result<Duration> {
    let gateway = Gateway::configured(store, redis_url, &issuer.authentication())?;
    let channel = Endpoint::from_shared(gateway.address.clone())?
        .connect()
        .await?;
    let mut more = Vec::new();
    for number in 0..TOKENS {
        let bearer = Bearer::new(&issuer.token(&format!("caller-{number}")))?;
        let mut client = UploadServiceClient::with_interceptor(channel.clone(), bearer);
        let mut times = [Duration::ZERO; 2];
        for time in &mut times {
            let begin = Instant::now();
            client.get_limits(GetLimitsRequest::default()).await?;
            *time = begin.elapsed();
        }
        let [first, second] = times;
        more.push(first.saturating_sub(second));
    }
    Ok(turns::median(more))
}

async fn stream(
    issuer: &Issuer,
    store: &Store,
    redis_url: &str,
    payload: &Payload,
    load: Load,
) -> Result<[Duration; 2]> {
    let plain = Gateway::start(store, redis_url)?;
    let encrypted = Gateway::configured(store, redis_url, &issuer.encryption())?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&issuer.authority));
    let address = encrypted.address.replace("http://", "https://");
    let channels: [Channel; 2] = [
        Endpoint::from_shared(plain.address.clone())?
            .connect()
            .await?,
        Endpoint::from_shared(address)?
            .tls_config(tls)?
            .connect()
            .await?,
    ];
    turns::files(&channels, store, payload, load).await
}
