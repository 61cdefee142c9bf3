//! The cost of signatures: calls of `SigningService` on one upload, with Redis as state store. The store receives only the
//! request that creates the session.

use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::Instant;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use upload_gateway_client::proto::v1::{
    CreateUploadRequest, FileMetadata, PartRef, SignPartRequest, SignPartsRequest, SignedStep,
    UpdateUploadRequest, signing_service_client::SigningServiceClient,
};
use upload_gateway_core::upload::{Md5, PART_SIZE};

use crate::{Result, commands::Commands, process::Gateway, store::Store};

/// The parts of the upload: as many as S3 accepts.
const PARTS: i32 = 10_000;

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Signing {
    /// The name of the call.
    pub(crate) call: &'static str,
    /// The number of calls in flight.
    pub(crate) in_flight: usize,
    /// The number of parts that one call signs.
    pub(crate) window: u64,
    pub(crate) calls: u64,
    pub(crate) elapsed: Duration,
    /// Of the gateway's process alone, user and system.
    pub(crate) cpu: Duration,
    /// The duration of each call, sorted.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) commands: u64,
}

/// One kind of load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) in_flight: usize,
    pub(crate) window: i32,
    pub(crate) calls: i32,
}

/// Sends a token with each call, if there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

/// A client with a token.
pub(crate) type Client = SigningServiceClient<InterceptedService<Channel, Bearer>>;

impl Bearer {
    pub(crate) fn new(token: &str) -> Result<Self> {
        Ok(Self(Some(format!("Bearer {token}").parse()?)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Connects to a gateway.
pub(crate) async fn connect(address: &str, bearer: Bearer) -> Result<Client> {
    let channel = Endpoint::from_shared(address.to_owned())?.connect().await?;
    Ok(SigningServiceClient::with_interceptor(channel, bearer))
}

impl Signing {
    /// Signed parts per second and core.
    pub(crate) fn per_core_second(&self) -> f64 {
        f64::from(u32::try_from(self.calls * self.window).unwrap_or(u32::MAX))
            / self.cpu.as_secs_f64()
    }

    /// This percentile of the latency.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = (self.latencies.len() * percent / 100).min(last);
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

/// Measures single parts and windows of 100, sequentially and several at once.
pub(crate) async fn measure(store: &Store, redis_url: &str, quick: bool) -> Result<Vec<Signing>> {
    let gateway = Gateway::start(store, redis_url)?;
    let mut client = connect(&gateway.address, Bearer::default()).await?;
    let upload_id = begin(&mut client).await?;
    let scale = if quick { 1 } else { 10 };
    let case = |in_flight, window, calls| Case {
        in_flight,
        window,
        calls: calls * scale,
    };
    let mut all = Vec::new();
    for case in [
        case(1, 1, 500),
        case(16, 1, 1000),
        case(1, 100, 50),
        case(16, 100, 100),
    ] {
        // Costs that occur only once.
        run(&client, &upload_id, Case { calls: 32, ..case }).await?;
        let mut redis = Commands::watch(redis_url).await?;
        let cpu = gateway.cpu()?;
        let begin = Instant::now();
        let mut latencies = run(&client, &upload_id, case).await?;
        let elapsed = begin.elapsed();
        let cpu = gateway.cpu()? - cpu;
        latencies.sort_unstable();
        all.push(Signing {
            call: if case.window == 1 {
                "SignPart"
            } else {
                "SignParts"
            },
            in_flight: case.in_flight,
            window: u64::from(case.window.unsigned_abs()),
            calls: u64::from(case.calls.unsigned_abs()),
            elapsed,
            cpu,
            latencies,
            commands: redis.end().await?.commonest,
        });
    }
    Ok(all)
}

/// Creates an upload and the store's session for it.
pub(crate) async fn begin(client: &mut Client) -> Result<String> {
    let part_size = i64::try_from(PART_SIZE)?;
    let file = FileMetadata {
        file_name: "film.mp4".into(),
        file_size: Some(part_size * i64::from(PARTS)),
        ..FileMetadata::default()
    };
    let request = CreateUploadRequest { file: Some(file) };
    let step: SignedStep = client.create_upload(request).await?.into_inner();
    let signature = step.signature.ok_or("no signature")?;
    let mut request = reqwest::Client::new().post(signature.url);
    for (name, value) in signature.headers {
        request = request.header(name, value);
    }
    let answer = request.send().await?.error_for_status()?.text().await?;
    let session = answer
        .split_once("<UploadId>")
        .and_then(|(_, rest)| rest.split_once("</UploadId>"))
        .ok_or("no UploadId in the store's answer")?;
    client
        .update_upload(UpdateUploadRequest {
            upload_id: step.upload_id.clone(),
            resumable_id: session.0.to_owned(),
            ..UpdateUploadRequest::default()
        })
        .await?;
    Ok(step.upload_id)
}

/// Makes the calls of a case, and returns how long each took.
pub(crate) async fn run(client: &Client, upload_id: &str, case: Case) -> Result<Vec<Duration>> {
    let calls = (0..case.calls).map(|call| {
        let mut client = client.clone();
        let first = call * case.window % PARTS + 1;
        async move {
            let begin = Instant::now();
            if case.window == 1 {
                let PartRef { part, file_id } = part(first);
                let upload_id = upload_id.to_owned();
                let request = SignPartRequest {
                    upload_id,
                    part,
                    file_id,
                };
                client.sign_part(request).await?;
            } else {
                let parts = (first..first + case.window).map(part).collect();
                let upload_id = upload_id.to_owned();
                let answer = client.sign_parts(SignPartsRequest { upload_id, parts });
                answer.await?;
            }
            Ok(begin.elapsed())
        }
    });
    let latencies: Vec<Result<Duration>> = stream::iter(calls)
        .buffer_unordered(case.in_flight)
        .collect()
        .await;
    latencies.into_iter().collect()
}

fn part(number: i32) -> PartRef {
    PartRef {
        part: number,
        file_id: Md5::of(&number.to_be_bytes()).to_string(),
    }
}
