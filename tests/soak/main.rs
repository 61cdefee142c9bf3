//! Honest uploads beside hostile clients: the memory of the gateway stays below the sum that `serve` prints, no honest upload
//! fails, and the honest uploads take at most twice as long as beside the same load without any connection to the gateway.
//!
//! `make soak`, or `cargo test --test soak -- --full [--seconds N] [--only ATTACK]`. Without `--full`, as in `make test`, all
//! attacks run at once for a few seconds, and only memory and failures are checked.

#![allow(clippy::unwrap_used, reason = "a failure fails the run")]
#![allow(clippy::print_stdout, reason = "the report is printed")]

#[path = "../common/lib.rs"]
mod common;

mod attacks;
mod container;
mod honest;
mod hostile;

use std::{env, fs, process::ExitCode, time::Duration};

use tokio::time::Instant;
use upload_gateway_client::ConnectOptions;

use self::{
    attacks::{ATTACKS, ON_CREDENTIALS},
    common::{Issuer, Server, gateway_process},
    container::Container,
    honest::{Honest, Latencies},
    hostile::{Hostile, Targets},
};

/// The name by which `cargo test FILTER` finds the short form.
const NAME: &str = "hostile_clients_do_not_stop_honest_ones";

/// The load without a connection to the gateway.
const BURN: &str = "burn";

/// How the clients of a gateway reach it.
struct Front {
    config: String,
    options: ConnectOptions,
}

/// What a run has shown.
struct Run {
    name: String,
    latencies: Latencies,
    /// The largest resident memory, in bytes.
    memory: u64,
    /// The sum that the gateway prints, in bytes.
    limit: u64,
}

/// What the command line asks for.
struct Arguments {
    is_full: bool,
    seconds: u64,
    only: Option<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    if let Some(targets) = Targets::parse(&arguments) {
        return runtime.block_on(Box::pin(hostile::attack(targets)));
    }
    let is_ok = if let Some(container) = Container::parse(&arguments) {
        runtime.block_on(Box::pin(container.soak()))
    } else if let Some(arguments) = Arguments::parse(&arguments) {
        runtime.block_on(Box::pin(soak(&arguments)))
    } else {
        println!("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out");
        return ExitCode::SUCCESS;
    };
    let (word, passed) = if is_ok { ("ok", 1) } else { ("FAILED", 0) };
    let failed = 1 - passed;
    println!("test {NAME} ... {word}");
    println!(
        "test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    if is_ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn soak(arguments: &Arguments) -> bool {
    println!(
        "| run | honest uploads | failed | p50 ms | p99 ms | p99 to load alone | memory MiB | limit MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let time = |most| Duration::from_secs(arguments.seconds.min(most));
    let open = Front::open();
    if !arguments.is_full {
        let run = run("all at once", &ATTACKS, time(u64::MAX), &open).await;
        return run.report(None);
    }
    let mut is_ok = true;
    let only = arguments.only.as_deref();
    let wanted = |attack: &&&str| only.is_none_or(|only| only == **attack);
    let alone: Vec<_> = ATTACKS.iter().filter(wanted).collect();
    if !alone.is_empty() {
        let load = run("load alone", &[BURN], time(60), &open).await;
        is_ok &= load.report(None);
        let baseline = Some(load.latencies.p99());
        if only.is_none() {
            let all = run("all at once", &ATTACKS, time(u64::MAX), &open).await;
            is_ok &= all.report(baseline);
        }
        for attack in alone {
            let run = run(attack, &[attack], time(30), &open).await;
            is_ok &= run.report(baseline);
        }
    }
    let issuer = Issuer::new();
    let fronts = [Front::encrypted(&issuer), Front::authenticated(&issuer)];
    for (attack, front) in ON_CREDENTIALS.iter().zip(&fronts) {
        if !wanted(&attack) {
            continue;
        }
        let load = run("load alone, with credentials", &[BURN], time(30), front).await;
        is_ok &= load.report(None);
        let run = run(attack, &[attack], time(30), front).await;
        is_ok &= run.report(Some(load.latencies.p99()));
    }
    is_ok
}

/// Uploads to a new gateway while it is attacked.
async fn run(name: &str, attacks: &[&str], time: Duration, front: &Front) -> Run {
    let gateway = gateway_process(&front.config);
    let (http, limit) = announced(&gateway).await;
    let targets = Targets::new(gateway.address(), http);
    let honest = Honest::start(&targets, front.options.clone()).await;
    let hostile = Hostile::start(&targets, attacks);
    let (latencies, memory) = measure(&gateway, &honest, time).await;
    drop(hostile);
    Run {
        name: name.to_owned(),
        latencies,
        memory,
        limit,
    }
}

/// Uploads for some time, and watches the memory of the gateway.
async fn measure(gateway: &Server, honest: &Honest, time: Duration) -> (Latencies, u64) {
    let end = Instant::now() + time;
    let uploads = honest.upload_until(end);
    let memory = async {
        let mut largest = 0;
        while Instant::now() < end {
            largest = largest.max(resident(gateway.id()));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        largest
    };
    tokio::join!(uploads, memory)
}

/// The resident memory of a process, in bytes.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}

/// The HTTP address and the memory limit in bytes that the gateway prints.
async fn announced(gateway: &Server) -> (String, u64) {
    let value = |prefix: &str| {
        let log = gateway.log();
        let line = log.lines().find_map(|line| line.strip_prefix(prefix));
        line.map(ToOwned::to_owned)
    };
    common::until("the gateway prints its addresses", async || {
        value("memory at most ").is_some()
    })
    .await;
    let memory = value("memory at most ").unwrap();
    let mebibytes: u64 = memory.split(' ').next().unwrap().parse().unwrap();
    (value("http listening on ").unwrap(), mebibytes << 20)
}

// === impl Front ===

impl Front {
    /// Without authentication.
    fn open() -> Self {
        Self {
            config: String::new(),
            options: ConnectOptions::default(),
        }
    }

    fn authenticated(issuer: &Issuer) -> Self {
        Self {
            config: issuer.authentication(),
            options: ConnectOptions {
                token_file: Some(issuer.token_file("honest")),
                ..ConnectOptions::default()
            },
        }
    }

    /// With authentication and TLS.
    fn encrypted(issuer: &Issuer) -> Self {
        let Self { config, options } = Self::authenticated(issuer);
        Self {
            config: config + &issuer.encryption(),
            options: ConnectOptions {
                authorities: Some(issuer.authority.clone()),
                ..options
            },
        }
    }
}

// === impl Run ===

impl Run {
    /// Prints a row. Whether nothing failed, and memory and latencies are within their limits.
    fn report(&self, baseline: Option<Duration>) -> bool {
        let (p50, p99) = (self.latencies.p50(), self.latencies.p99());
        let ratio = baseline.map(|baseline| p99.as_secs_f64() / baseline.as_secs_f64());
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            self.name,
            self.latencies.count(),
            self.latencies.failures.len(),
            p50.as_millis(),
            p99.as_millis(),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            self.memory >> 20,
            self.limit >> 20,
        );
        for failure in self.latencies.failures.iter().take(5) {
            println!("failed: {failure}");
        }
        let is_quick = ratio.is_none_or(|ratio| ratio <= 2.0);
        self.latencies.failures.is_empty()
            && self.latencies.count() > 0
            && self.memory < self.limit
            && is_quick
    }
}

// === impl Arguments ===

impl Arguments {
    /// `None`: the filter of `cargo test` names another test. Options of other test programs are ignored.
    fn parse(arguments: &[String]) -> Option<Self> {
        let mut parsed = Self {
            is_full: false,
            seconds: 8,
            only: None,
        };
        let mut arguments = arguments.iter();
        let mut seconds = None;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--full" => parsed.is_full = true,
                "--seconds" => seconds = arguments.next().and_then(|text| text.parse().ok()),
                "--only" => parsed.only = arguments.next().cloned(),
                option if option.starts_with('-') => {}
                filter if NAME.contains(filter) => {}
                _ => return None,
            }
        }
        if parsed.is_full {
            parsed.seconds = 600;
        }
        parsed.seconds = seconds.unwrap_or(parsed.seconds);
        Some(parsed)
    }
}
