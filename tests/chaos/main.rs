//! Three gateways, Redis and two stores, all real, while everything fails: each upload ends complete and intact, or
//! with an error that was reported to its sender.
//!
//! `make chaos`, or `cargo test --test chaos -- --full [--seed N] [--redis single|sentinel|cluster] [--keep]`. Without
//! `--full`, as in `make test`, it runs a short form with one seed. The seed determines faults and uploads, so that a
//! run can be replayed, as far as the speed of the machine permits. If there is a violation, the exit code is 1, and
//! logs and schedule are kept.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]
#![allow(clippy::print_stdout, reason = "the report is printed")]

#[path = "../common/lib.rs"]
mod common;

mod check;
mod cluster;
mod files;
mod gateway;
mod lies;
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
    check::{Stored, Violations},
    cluster::Cluster,
    report::Report,
    schedule::{Scale, Schedule, Topology},
    senders::Sent,
};

/// The name by which `cargo test FILTER` finds the short form.
const NAME: &str = "every_upload_completes_or_fails_with_a_reported_error";

/// How long the senders may take after the last fault.
const LAST_SENDERS: Duration = Duration::from_secs(240);

/// The command line.
#[derive(Debug)]
struct Arguments {
    full: bool,
    /// Always keep the logs.
    keep: bool,
    seed: Option<u64>,
    topologies: Vec<Topology>,
    /// The filter of `cargo test`.
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

/// The short form is without the largest files, and much shorter.
fn scale(full: bool, topology: Topology) -> Scale {
    const MIB: usize = 1024 * 1024;
    let seconds = Duration::from_secs;
    if !full {
        return Scale {
            time: seconds(25),
            uploads: 40,
            embedded: 8,
            largest: 16 * MIB,
            slow_commit: seconds(8),
            slow_link: seconds(6),
            full_disk: seconds(3),
        };
    }
    let (time, uploads) = match topology {
        Topology::Single => (seconds(120), 200),
        Topology::Sentinel | Topology::Cluster => (seconds(60), 100),
    };
    Scale {
        time,
        uploads,
        embedded: uploads / 10,
        largest: 64 * MIB,
        slow_commit: seconds(60),
        slow_link: seconds(30),
        full_disk: seconds(10),
    }
}

/// One run; returns the number of violations.
async fn run(
    seed: u64,
    topology: Topology,
    schedule: &Schedule,
    keep_logs: bool,
) -> Result<usize, Box<dyn Error + Send + Sync>> {
    // Removed only at the end, so that a run that is interrupted leaves it, too.
    let directory = TempDir::with_prefix("upload-gateway-chaos.")?.keep();
    fs::write(directory.join("schedule.txt"), schedule.to_string())?;
    let integrity = if seed.is_multiple_of(2) {
        "md5"
    } else {
        "auto"
    };
    println!(
        "chaos: seed {seed}, redis {}, {integrity}, {} uploads, {} s, logs in {}",
        topology.name(),
        schedule.uploads.len(),
        schedule.time.as_secs(),
        directory.display()
    );
    let Some(cluster) = Cluster::start(topology, &directory, integrity).await? else {
        return Ok(0);
    };
    let begin = Instant::now();
    let sent = run_all(&cluster, schedule, begin).await?;
    let time = begin.elapsed();
    cluster.settle().await?;
    cluster.keep_logs().await?;
    let stories: Vec<String> = sent.iter().map(|sent| format!("{sent:?}\n")).collect();
    fs::write(directory.join("senders.txt"), stories.concat())?;
    let handled = sent.iter().filter_map(|sent| sent.handled.as_ref());
    let changed = handled.filter(|handled| handled.has_expired().is_some());
    let asked: Vec<_> = changed
        .filter_map(|handled| handled.id.parse().ok())
        .collect();
    let swept = sweep::sweep(&cluster.configurations(), &asked).await?;
    // Read after the sweep, which must not change finished uploads that have not expired.
    let stored = Stored::read(&cluster).await?;
    let violations = Violations::find(&cluster, &stored, &swept, &sent);
    let report = Report::new(seed, topology, time, &cluster, &swept, &sent);
    print!("{report}");
    print!("{violations}");
    if violations.count() > 0 {
        let redis = topology.name();
        println!("replay: cargo test --test chaos -- --full --seed {seed} --redis {redis}");
    } else if !keep_logs {
        fs::remove_dir_all(&directory)?;
    }
    Ok(violations.count())
}

/// Runs all faults and all uploads until the last sender has ended.
async fn run_all(cluster: &Cluster, schedule: &Schedule, begin: Instant) -> io::Result<Vec<Sent>> {
    let deadline = begin + schedule.time + LAST_SENDERS;
    let senders = schedule.uploads.iter().map(|upload| {
        let (front, upload) = (cluster.front(upload.store), upload.clone());
        tokio::spawn(async move {
            sleep_until(begin + upload.at).await;
            Box::pin(senders::send(front, upload, deadline)).await
        })
    });
    let senders = join_all(senders);
    let work = async { tokio::try_join!(cluster.inject(schedule), async { Ok(senders.await) }) };
    let (_, sent) = tokio::select! {
        done = work => done?,
        failed = cluster.restart_ended() => return Err(failed.err().unwrap_or_else(|| io::Error::other("it never ends by itself"))),
    };
    sent.into_iter()
        .map(|sent| sent.map_err(io::Error::other))
        .collect()
}

// === impl Arguments ===

impl Arguments {
    /// Options of other test programs are accepted and ignored.
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
