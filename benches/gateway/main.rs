//! What the gateway costs: `make bench`, or
//! `cargo bench --bench gateway -- [--quick | --full] [FILTER]`, where only cases whose name contains FILTER are run.
//!
//! A release build of the server runs as a process of its own, on a real Redis, against two stores on loopback: a strict
//! S3 server (versitygw), where the store is the limit, and one that discards what it gets, where the gateway is. Each
//! case has a fresh gateway, so that its peak memory is its own; the same bytes then go to the same store through
//! `aws-sdk-s3` alone, with as many parts in flight. The section `crowds` is of many streams at once, the last one,
//! `signing`, of signatures. A benchmark is no test: missed targets do not fail it.
//!
//! One copy of payload bytes, into the part's buffer, was verified by `valgrind --tool=dhat --mode=copy` on the gateway. Of
//! a file of 64 MiB it counts 64 MiB copied by tonic's decoder, 32 MiB where that grows its own buffer, 64 MiB by the
//! receiver into parts' buffers, and 4 MiB by all else together. Unit tests of `gateway::buffers` hold the bytes that go
//! to the store to be the buffer itself, by its address.

mod crowds;
mod direct;
mod discard;
mod payload;
mod process;
mod report;
mod round_trips;
mod signing;
mod store;
mod through;

#[path = "../../tests/common/lib.rs"]
mod common;

use std::{error::Error, fmt, process::ExitCode, time::Duration};

use tokio::time::Instant;
use upload_gateway_client::proto::v1::Upload;

use self::{
    direct::Integrity, payload::Payload, process::Gateway, report::Report, round_trips::RoundTrips,
    store::Store,
};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// So many files of one size, all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Load {
    streams: u64,
    file_size: u64,
}

/// One line of the table.
#[derive(Debug)]
struct Measurement {
    store: &'static str,
    load: Load,
    file_digest: bool,
    through: Duration,
    /// The same bytes without the gateway, as the SDK sends them by default.
    direct: Duration,
    /// As `direct`, and the store checks the MD5 of each part, as it does behind the gateway.
    direct_checked: Duration,
    /// Of the gateway's process alone, user and system.
    cpu: Duration,
    /// In bytes.
    peak_memory: u64,
    parts: u64,
    round_trips: round_trips::Counts,
}

/// Which cases are run.
#[derive(Debug, Default)]
struct Selection {
    /// Small files, to see that it works.
    quick: bool,
    /// A file of 8 GiB, too.
    full: bool,
    /// Those whose name contains this.
    filter: String,
}

// === impl Load ===

impl Load {
    fn bytes(self) -> u64 {
        self.streams * self.file_size
    }
}

impl fmt::Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.streams {
            1 => formatter.write_str("1 stream × ")?,
            streams => write!(formatter, "{streams} streams × ")?,
        }
        match self.file_size {
            size @ GIB.. => write!(formatter, "{} GiB", size / GIB),
            size => write!(formatter, "{} MiB", size / MIB),
        }
    }
}

// === impl Selection ===

impl Selection {
    /// None: this is no run of `cargo bench`.
    fn from_arguments(arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut selection = Self::default();
        let mut benchmarking = false;
        for argument in arguments {
            match argument.as_str() {
                // Cargo says so to every benchmark, and does not when it runs one as a test.
                "--bench" => benchmarking = true,
                "--quick" => selection.quick = true,
                "--full" => selection.full = true,
                _ => selection.filter = argument,
            }
        }
        benchmarking.then_some(selection)
    }

    fn loads(&self, store: &Store) -> Vec<Load> {
        let load = |streams, file_size| Load { streams, file_size };
        let mut loads = if self.quick {
            vec![load(1, 64 * MIB), load(16, 16 * MIB)]
        } else {
            vec![load(1, 2 * GIB), load(64, 64 * MIB)]
        };
        if self.full {
            loads.insert(1, load(1, 8 * GIB));
        }
        loads.retain(|load| format!("{} {load}", store.name).contains(&self.filter));
        loads
    }
}

#[tokio::main]
#[expect(
    clippy::print_stderr,
    reason = "a benchmark says on the terminal what went wrong"
)]
async fn main() -> ExitCode {
    let Some(selection) = Selection::from_arguments(std::env::args().skip(1)) else {
        eprintln!("a benchmark: run it with `cargo bench --bench gateway`");
        return ExitCode::SUCCESS;
    };
    match run(&selection).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(selection: &Selection) -> Result<()> {
    let payload = Payload::random();
    let Some((_redis, redis_url)) = common::private_redis(&["--appendonly", "no"]) else {
        return Err("there is no redis-server; run tests/backends/install".into());
    };
    let mut stores = vec![Store::discarding().await?];
    match common::private_s3().await {
        Some((server, backend)) => stores.insert(0, Store::strict(server, backend)),
        None => {
            report::log("without versitygw, only the discarding store; run tests/backends/install")
        }
    }
    let mut report = Report::default();
    for store in &stores {
        for load in selection.loads(store) {
            for file_digest in [false, true] {
                report.add(measure(store, load, file_digest, &payload, &redis_url).await?);
            }
        }
    }
    report.end();
    if "crowds".contains(&selection.filter) {
        let store = stores.last().unwrap_or(&stores[0]);
        let neighbours = crowds::neighbours(store, &redis_url, &payload, selection.quick);
        report::neighbours(&neighbours.await?);
        report::crowd(&crowds::crowd(store, &redis_url, &payload).await?);
    }
    if "signing".contains(&selection.filter) {
        report::signing(&signing::measure(&stores[0], &redis_url, selection.quick).await?);
    }
    Ok(())
}

async fn measure(
    store: &Store,
    load: Load,
    file_digest: bool,
    payload: &Payload,
    redis_url: &str,
) -> Result<Measurement> {
    let expected = file_digest.then(|| payload.md5(load.file_size));
    let gateway = Gateway::start(store, redis_url)?;
    // What comes only once: connections, sessions, the scripts in Redis, the first pages of the heap.
    let warm_up = Load {
        streams: 1,
        file_size: 16 * MIB,
    };
    let uploads = through::upload(&gateway.address, warm_up, payload, None).await?;
    store.delete(keys(uploads)).await?;

    let mut redis = RoundTrips::watch(redis_url).await?;
    let cpu = gateway.cpu()?;
    let begin = Instant::now();
    let uploads = through::upload(&gateway.address, load, payload, expected).await?;
    let through = begin.elapsed();
    let cpu = gateway.cpu()? - cpu;
    let round_trips = redis.end().await?;
    let peak_memory = gateway.peak_memory()?;
    let parts = uploads.iter().map(|upload| upload.parts.len() as u64).sum();
    drop(gateway);
    store.delete(keys(uploads)).await?;

    let mut direct = [Duration::ZERO; 2];
    for (time, integrity) in direct
        .iter_mut()
        .zip([Integrity::Default, Integrity::ContentMd5])
    {
        let begin = Instant::now();
        let objects = direct::upload(store, load, payload, integrity).await?;
        *time = begin.elapsed();
        store.delete(objects).await?;
    }
    let [direct, direct_checked] = direct;
    Ok(Measurement {
        store: store.name,
        load,
        file_digest,
        through,
        direct,
        direct_checked,
        cpu,
        peak_memory,
        parts,
        round_trips,
    })
}

/// Where the objects of finished uploads lie.
fn keys(uploads: Vec<Upload>) -> Vec<String> {
    uploads
        .into_iter()
        .filter_map(|upload| upload.object)
        .map(|object| object.key)
        .collect()
}
