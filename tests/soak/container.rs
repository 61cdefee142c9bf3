//! A gateway that runs already, in a container with little memory: `tests/deploy/image` starts it, and looks at its memory.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use tokio::time::Instant;
use upload_gateway_client::ConnectOptions;

use super::{
    attacks::ON_A_CONTAINER,
    honest::Honest,
    hostile::{Hostile, Targets},
};

/// The option with which this program attacks a gateway that it has not started.
const OPTION: &str = "--container";

/// A gateway in a container, and the credentials of its clients.
pub(crate) struct Container {
    grpc: SocketAddr,
    honest_key: PathBuf,
    hostile_key: PathBuf,
    time: Duration,
}

// === impl Container ===

impl Container {
    /// The container in `--container ADDRESS HONEST_KEY_FILE HOSTILE_KEY_FILE SECONDS`.
    pub(crate) fn parse(arguments: &[String]) -> Option<Self> {
        let [option, grpc, honest_key, hostile_key, seconds] = arguments else {
            return None;
        };
        (option == OPTION).then(|| Self {
            grpc: grpc.parse().unwrap(),
            honest_key: honest_key.into(),
            hostile_key: hostile_key.into(),
            time: Duration::from_secs(seconds.parse().unwrap()),
        })
    }

    /// Uploads while 1,000 streams have sent a message but for its last byte, and 1,000 have sent nothing. Whether every
    /// upload is complete.
    pub(crate) async fn soak(&self) -> bool {
        let key = fs::read_to_string(&self.hostile_key).unwrap();
        let targets = Targets::new(self.grpc, String::new()).with_api_key(key.trim());
        let options = ConnectOptions {
            api_key_file: Some(self.honest_key.clone()),
            ..ConnectOptions::default()
        };
        let honest = Honest::start(&targets, options).await;
        let hostile = Hostile::start(&targets, &ON_A_CONTAINER);
        let latencies = honest.upload_until(Instant::now() + self.time).await;
        drop(hostile);
        println!(
            "honest uploads: {}, of which {} failed; p50 {} ms, p99 {} ms",
            latencies.count() + latencies.failures.len(),
            latencies.failures.len(),
            latencies.p50().as_millis(),
            latencies.p99().as_millis(),
        );
        for failure in latencies.failures.iter().take(5) {
            println!("failed: {failure}");
        }
        latencies.failures.is_empty() && latencies.count() > 0
    }
}
