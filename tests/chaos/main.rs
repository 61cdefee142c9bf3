//! Three gateways, Redis and two stores, all real, while everything fails: each upload ends whole, or with an error that its
//! sender was told.
//!
//! `make chaos`, or `cargo test --test chaos -- --full [--seed N] [--redis single|sentinel|cluster] [--keep]`. Without
//! `--full`, as in `make test`, a short form with one seed. Faults and uploads are made of the seed, so that a run can be
//! replayed, as far as the machine keeps pace. Exit code 1 when something is violated; logs and schedule are kept then.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]
#![allow(clippy::print_stdout, reason = "the report is printed")]

#[path = "../common/lib.rs"]
mod common;

mod check;
mod cluster;
mod gateway;
mod proxy;
mod redis_servers;
mod report;
mod schedule;
mod senders;
mod sweep;
mod uploads;

use std::{env, error::Error, fs, io, process::ExitCode, time::Duration};

use futures::future::join_all;
use rand::RngExt as _;
use tempfile::TempDir;
use tokio::time::{Instant, sleep_until};

use self::{
    check::Stored,
    cluster::Cluster,
    report::Report,
    schedule::{Scale, Schedule, Topology},
    senders::Sent,
};

/// The name by which `cargo test FILTER` finds the short form.
const NAME: &str = "every_upload_ends_whole_or_with_an_error_that_is_told";

/// How long senders have once nothing fails any more.
const LAST_SENDERS: Duration = Duration::from_secs(240);

/// What the command line asks for.
#[derive(Debug)]
struct Arguments {
    full: bool,
    /// Keep the logs in any case.
    keep: bool,
    seed: Option<u64>,
    topologies: Vec<Topology>,
    /// Of `cargo test`.
    filters: Vec<String>,
}

fn main() -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let arguments = Arguments::parse(env::args().skip(1))?;
    let is_asked = |filter: &String| NAME.contains(filter.as_str());
    if !arguments.filters.is_empty() && !arguments.filters.iter().any(is_asked) {
        println!("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out");
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut failed = 0;
    let seed = arguments.seed();
    for topology in &arguments.topologies {
        let schedule = Schedule::new(seed, *topology, scale(arguments.full, *topology));
        let run = Box::pin(run(seed, *topology, &schedule, arguments.keep));
        failed += usize::from(runtime.block_on(run)? > 0);
    }
    let (word, passed) = if failed == 0 {
        ("ok", 1)
    } else {
        ("FAILED", 0)
    };
    let failed = usize::from(failed > 0);
    println!("test {NAME} ... {word}");
    println!(
        "test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The short form leaves the largest files and most of the time out.
fn scale(full: bool, topology: Topology) -> Scale {
    const MIB: usize = 1024 * 1024;
    let (seconds, uploads, largest) = match (full, topology) {
        (false, _) => (25, 40, 16 * MIB),
        (true, Topology::Single) => (120, 200, 64 * MIB),
        (true, _) => (60, 100, 64 * MIB),
    };
    Scale {
        time: Duration::from_secs(seconds),
        uploads,
        largest,
    }
}

/// One run; how many things were violated.
async fn run(
    seed: u64,
    topology: Topology,
    schedule: &Schedule,
    keep_logs: bool,
) -> Result<usize, Box<dyn Error + Send + Sync>> {
    // Removed at the end only, so that a run that breaks off leaves it, too.
    let directory = TempDir::with_prefix("upload-gateway-chaos.")?.keep();
    fs::write(directory.join("schedule.txt"), schedule.to_string())?;
    println!(
        "chaos: seed {seed}, redis {}, {} uploads, {} s, logs in {}",
        topology.name(),
        schedule.uploads.len(),
        schedule.time.as_secs(),
        directory.display()
    );
    let Some(cluster) = Cluster::start(topology, &directory).await? else {
        return Ok(0);
    };
    let begin = Instant::now();
    let sent = suffer(&cluster, schedule, begin).await?;
    let time = begin.elapsed();
    cluster.keep_logs().await?;
    let stories: Vec<String> = sent.iter().map(|sent| format!("{sent:?}\n")).collect();
    fs::write(directory.join("senders.txt"), stories.concat())?;
    let swept = sweep::sweep(&cluster.configuration()).await?;
    // After the sweep, which must leave everything that is finished alone.
    let stored = Stored::read(&cluster).await?;
    let violations = check::violations(&cluster, &stored, &swept, &sent);
    let report = Report::new(seed, topology, time, &cluster, &swept, &sent);
    print!("{report}");
    for violation in &violations {
        println!("  VIOLATED: {violation}");
    }
    if !violations.is_empty() {
        let redis = topology.name();
        println!("replay: cargo test --test chaos -- --full --seed {seed} --redis {redis}");
    } else if !keep_logs {
        fs::remove_dir_all(&directory)?;
    }
    Ok(violations.len())
}

/// All faults and all uploads, to the last sender's end.
async fn suffer(cluster: &Cluster, schedule: &Schedule, begin: Instant) -> io::Result<Vec<Sent>> {
    let deadline = begin + schedule.time + LAST_SENDERS;
    let senders = schedule.uploads.iter().map(|upload| {
        let (front, upload) = (cluster.front(), upload.clone());
        tokio::spawn(async move {
            sleep_until(begin + upload.at).await;
            Box::pin(senders::send(front, upload, deadline)).await
        })
    });
    let senders = join_all(senders);
    let work = async { tokio::try_join!(cluster.suffer(schedule), async { Ok(senders.await) }) };
    let (_, sent) = tokio::select! {
        done = work => done?,
        failed = cluster.look_after() => return Err(failed.err().unwrap_or_else(|| io::Error::other("it never ends by itself"))),
    };
    sent.into_iter()
        .map(|sent| sent.map_err(io::Error::other))
        .collect()
}

// === impl Arguments ===

impl Arguments {
    /// Options of other test programs are taken and do nothing.
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            full: false,
            keep: false,
            seed: None,
            topologies: Vec::new(),
            filters: Vec::new(),
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--full" => arguments.full = true,
                "--keep" => arguments.keep = true,
                "--seed" => {
                    let seed = value()?.parse();
                    arguments.seed = Some(seed.map_err(|error| format!("--seed: {error}"))?);
                }
                "--redis" => {
                    let name = value()?;
                    let known = Topology::ALL.into_iter().find(|known| known.name() == name);
                    let topology = known.ok_or(format!("--redis: {name} is unknown"))?;
                    arguments.topologies.push(topology);
                }
                option if option.starts_with("--") => {}
                _ => arguments.filters.push(word),
            }
        }
        if arguments.topologies.is_empty() {
            arguments.topologies = match arguments.full {
                true => Topology::ALL.into(),
                false => vec![Topology::Single],
            };
        }
        Ok(arguments)
    }

    fn seed(&self) -> u64 {
        match (self.seed, self.full) {
            (Some(seed), _) => seed,
            (None, true) => rand::rng().random_range(0..1_000_000),
            (None, false) => 1,
        }
    }
}
