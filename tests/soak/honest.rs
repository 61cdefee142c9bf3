//! Clients that upload files, and measure how long it takes.

use std::{io::Cursor, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::Instant;
use upload_gateway_client::{Client, ConnectOptions, Source, proto::v1::Phase};

use super::{common::bytes, hostile::Targets};

/// How many clients upload at the same time.
const CLIENTS: usize = 3;

/// The size of a file in bytes.
const SIZE: usize = 512 * 1024;

/// How long a client waits between two uploads.
const PAUSE: Duration = Duration::from_millis(20);

/// Clients that upload files.
pub(crate) struct Honest {
    server: String,
    options: ConnectOptions,
    data: Bytes,
}

/// How long uploads took, and why others failed.
#[derive(Default)]
pub(crate) struct Latencies {
    sorted: Vec<Duration>,
    pub(crate) failures: Vec<String>,
}

// === impl Honest ===

impl Honest {
    /// Clients that can reach the gateway: one upload is complete.
    pub(crate) async fn start(targets: &Targets, options: ConnectOptions) -> Self {
        let scheme = match options.authorities {
            Some(_) => "https",
            None => "http",
        };
        let honest = Self {
            server: format!("{scheme}://{}", targets.grpc),
            options,
            data: bytes(SIZE).into(),
        };
        honest.upload().await.unwrap();
        honest
    }

    /// Uploads files until `end`, each over a connection of its own.
    pub(crate) async fn upload_until(&self, end: Instant) -> Latencies {
        let clients = (0..CLIENTS).map(|_| async {
            let mut latencies = Latencies::default();
            while Instant::now() < end {
                let begun = Instant::now();
                match self.upload().await {
                    Ok(()) => latencies.sorted.push(begun.elapsed()),
                    Err(error) => latencies.failures.push(error),
                }
                tokio::time::sleep(PAUSE).await;
            }
            latencies
        });
        let mut all = Latencies::default();
        for latencies in join_all(clients).await {
            all.sorted.extend(latencies.sorted);
            all.failures.extend(latencies.failures);
        }
        all.sorted.sort();
        all
    }

    async fn upload(&self) -> Result<(), String> {
        let send = async {
            let client = Client::connect_with(&self.server, &self.options)?;
            let source = Source::seekable(Cursor::new(self.data.clone()));
            let upload = client.upload("honest.bin", source).size(SIZE as u64);
            let uploaded = upload.await?;
            client.get(&uploaded.upload.upload_id).await
        };
        match send.await {
            Ok(found) if found.phase() == Phase::Complete => Ok(()),
            Ok(found) => Err(format!("the upload is {:?}", found.phase())),
            Err(error) => Err(error.to_string()),
        }
    }
}

// === impl Latencies ===

impl Latencies {
    pub(crate) fn count(&self) -> usize {
        self.sorted.len()
    }

    pub(crate) fn p50(&self) -> Duration {
        self.percentile(50)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.percentile(99)
    }

    fn percentile(&self, percent: usize) -> Duration {
        let index = self.sorted.len() * percent / 100;
        self.sorted.get(index).copied().unwrap_or_default()
    }
}
