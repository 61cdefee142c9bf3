//! Downloads through the gateway, by a client that only reads, and the same object read by `aws-sdk-s3` alone, in turns.

use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::Endpoint;
use upload_gateway_client::proto::v1::{
    DownloadRequest, download_response::Message, upload_service_client::UploadServiceClient,
};

use crate::{
    GIB, Load, MIB, Result, keys, payload::Payload, process::Gateway, store::Store, through, turns,
};

/// How many rounds there are.
const ROUNDS: usize = 5;

/// The cost of reading through the gateway.
#[derive(Debug)]
pub(crate) struct Downloads {
    /// What is read: one file.
    pub(crate) load: Load,
    /// The time through the gateway, and the time without it, medians.
    pub(crate) times: [Duration; 2],
    /// CPU time of the gateway's process alone, user and system, median.
    pub(crate) cpu: Duration,
    /// In bytes.
    pub(crate) peak_memory: u64,
}

/// Measures one file in `store`.
pub(crate) async fn measure(
    store: &Store,
    redis_url: &str,
    payload: &Payload,
    quick: bool,
) -> Result<Downloads> {
    let load = Load {
        streams: 1,
        file_size: if quick { 64 * MIB } else { GIB },
    };
    let gateway = Gateway::start(store, redis_url)?;
    let uploads = through::upload(&gateway.address, load, payload, None).await?;
    let id = uploads[0].upload_id.clone();
    let keys = keys(uploads);
    // As the client crate has it.
    let channel = Endpoint::from_shared(gateway.address.clone())?.max_frame_size(64 * 1024);
    let mut client = UploadServiceClient::new(channel.connect().await?);
    let direct = store.client();
    let (mut through, mut alone, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (begin, used) = (Instant::now(), gateway.cpu()?);
        let request = DownloadRequest {
            upload_id: id.clone(),
            ..DownloadRequest::default()
        };
        let mut messages = client.download(request).await?.into_inner();
        let mut read = 0;
        while let Some(message) = messages.message().await? {
            if let Some(Message::Chunk(chunk)) = message.message {
                read += chunk.data.len() as u64;
            }
        }
        through.push(begin.elapsed());
        cpu.push(gateway.cpu()? - used);
        check(read, load)?;

        let begin = Instant::now();
        let object = direct.get_object().bucket(&store.bucket).key(&keys[0]);
        let mut body = object.send().await?.body;
        let mut read = 0;
        while let Some(bytes) = body.try_next().await? {
            read += bytes.len() as u64;
        }
        alone.push(begin.elapsed());
        check(read, load)?;
    }
    let peak_memory = gateway.peak_memory()?;
    drop(gateway);
    store.delete(keys).await?;
    Ok(Downloads {
        load,
        times: [turns::median(through), turns::median(alone)],
        cpu: turns::median(cpu),
        peak_memory,
    })
}

fn check(read: u64, load: Load) -> Result<()> {
    match read == load.bytes() {
        true => Ok(()),
        false => Err(format!("{read} bytes were read of {}", load.bytes()).into()),
    }
}
