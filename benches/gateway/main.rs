//! The gateway's throughput, CPU time and memory: `make bench`, or
//! `cargo bench --bench gateway -- [--quick | --full] [FILTER]`, which runs only cases whose name contains FILTER.
//!
//! A release build of the server runs as a process of its own, on a real Redis, against two stores on loopback: a strict
//! S3 server (versitygw), which limits the throughput itself, and one that discards what it gets, so that the gateway is
//! the limit. Each case has a fresh gateway, so that its peak memory is its own; the same bytes then go to the same store
//! through `aws-sdk-s3` alone, with as many parts in flight. The section `crowds` measures many streams at once, `records`
//! a record of 50,000 parts, `finding` lists of a million records, `downloads` files that are read, `far` a stream over
//! long round trips, `files` directories with many small files, `room` many files and a Redis with little memory, `peers` the same files through the gateway, through tusd and directly, `signing` signatures, `guarded` authentication and TLS, `traced` traces, and `baseline`, if the
//! variable `BASELINE` names another build of the gateway, what changed since. Missed targets do not fail a benchmark.
//!
//! Payload bytes are copied once, into the part's buffer. Unit tests compare addresses: in `grpc::messages`, the pieces of a
//! chunk are the bytes of the HTTP/2 frames; in `gateway::stream::buffers`, the bytes that go to the store are the part buffer
//! itself.

mod baseline;
mod commands;
mod crowds;
mod direct;
mod discard;
mod downloads;
mod far;
mod files;
mod finding;
mod guarded;
mod payload;
mod peers;
mod process;
mod proxy;
mod records;
mod report;
mod room;
mod signing;
mod store;
mod through;
mod traced;
mod turns;

#[path = "../../tests/common/lib.rs"]
mod common;

use std::{env, error::Error, fmt, process::ExitCode, time::Duration};

use tokio::time::Instant;
use upload_gateway_client::proto::v1::Upload;

use self::{
    commands::Commands, direct::Integrity, payload::Payload, process::Gateway, report::Report,
    store::Store,
};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A number of files of one size, all at once.
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
    /// The same bytes without the gateway, with the SDK's defaults.
    direct: Duration,
    /// As `direct`, and the store checks the MD5 of each part, as it does for the gateway.
    direct_checked: Duration,
    /// CPU seconds of the gateway's process alone, user and system.
    cpu: Duration,
    /// In bytes.
    peak_memory: u64,
    parts: u64,
    commands: commands::Counts,
}

/// Which cases are run.
#[derive(Debug, Default)]
struct Selection {
    /// Small files only, as a smoke test.
    quick: bool,
    /// Also a file of 8 GiB.
    full: bool,
    /// Only the cases whose name contains this.
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
    /// `None` if this is not a run of `cargo bench`.
    fn from_arguments(arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut selection = Self::default();
        let mut benchmarking = false;
        for argument in arguments {
            match argument.as_str() {
                // Cargo passes it to every benchmark, but not when it runs one as a test.
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
    let Some(selection) = Selection::from_arguments(env::args().skip(1)) else {
        eprintln!("this is a benchmark: run it with `cargo bench --bench gateway`");
        return ExitCode::SUCCESS;
    };
    match run(&selection).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("caused by: {error}");
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
    let last = stores.last().unwrap_or(&stores[0]);
    if "crowds".contains(&selection.filter) {
        let neighbours = crowds::neighbours(last, &redis_url, &payload, selection.quick);
        report::neighbours(&neighbours.await?);
        report::crowd(&crowds::crowd(last, &redis_url, &payload).await?);
    }
    if "records".contains(&selection.filter) {
        report::records(&records::measure(last, &redis_url, &payload).await?);
    }
    if "finding".contains(&selection.filter) {
        let found = finding::measure(last, &redis_url, &payload, selection.quick);
        report::findings(&found.await?);
    }
    if "downloads".contains(&selection.filter) {
        let read = downloads::measure(&stores[0], &redis_url, &payload, selection.quick);
        report::downloads(&read.await?);
    }
    if "far".contains(&selection.filter) {
        let far = far::measure(last, &redis_url, &payload, selection.quick);
        report::far(&far.await?);
    }
    if "files".contains(&selection.filter) {
        let files = files::measure(&stores[0], &redis_url, &payload, selection.quick);
        report::files(&files.await?);
    }
    if "room".contains(&selection.filter) {
        report::room(&room::measure(&stores[0], &payload, selection.quick).await?);
    }
    if "peers".contains(&selection.filter) {
        peers::measure(&stores, &redis_url, &payload, selection.quick).await?;
    }
    if "signing".contains(&selection.filter) {
        report::signing(&signing::measure(&stores[0], &redis_url, selection.quick).await?);
    }
    if "guarded".contains(&selection.filter) {
        let guarded = guarded::measure(&stores[0], last, &redis_url, &payload, selection.quick);
        report::guarded(&guarded.await?);
    }
    if "traced".contains(&selection.filter) {
        let traced = traced::measure([&stores[0], last], &redis_url, &payload, selection.quick);
        report::traced(&traced.await?);
    }
    if "baseline".contains(&selection.filter)
        && let Some(program) = env::var_os(baseline::PROGRAM)
    {
        let (stores, quick) = ([&stores[0], last], selection.quick);
        let compared = baseline::measure(&program, stores, &redis_url, &payload, quick);
        report::baseline(&compared.await?);
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
    // Costs that occur only once: connections, TLS sessions, Redis scripts, the first pages of the heap.
    let warm_up = Load {
        streams: 1,
        file_size: 16 * MIB,
    };
    let uploads = through::upload(&gateway.address, warm_up, payload, None).await?;
    store.delete(keys(uploads)).await?;

    let mut redis = Commands::watch(redis_url).await?;
    let cpu = gateway.cpu()?;
    let begin = Instant::now();
    let uploads = through::upload(&gateway.address, load, payload, expected).await?;
    let through = begin.elapsed();
    let cpu = gateway.cpu()? - cpu;
    let commands = redis.end().await?;
    let peak_memory = gateway.peak_memory()?;
    let parts = uploads
        .iter()
        .map(|upload| u64::from(upload.part_count.unsigned_abs()))
        .sum();
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
        commands,
    })
}

/// The keys of the objects of finished uploads.
fn keys(uploads: Vec<Upload>) -> Vec<String> {
    uploads
        .into_iter()
        .filter_map(|upload| upload.object)
        .map(|object| object.key)
        .collect()
}
