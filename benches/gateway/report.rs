//! The tables, as docs/performance.md has them.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the table is what a benchmark is for"
)]

mod downloads;
mod far;
mod files;
mod peers;
mod room;

use std::{fs, time::Duration};

use upload_gateway::config::Limits;

pub(crate) use self::{downloads::downloads, far::far, files::files, peers::Peers, room::room};

use crate::{
    GIB, Load, MIB, Measurement,
    crowds::{self, Crowd, Neighbours},
    finding::{self, Finding},
    guarded::Guarded,
    records::{self, Records},
    signing::Signing,
    turns::{Compared, WINDOW},
};

/// The target: the share of the direct upload's throughput that the gateway reaches if the store is the limit.
const LEAST_RATIO: f64 = 0.7;

/// The target: the most CPU seconds per GiB, without and with a digest of the whole file.
const MOST_CPU: [f64; 2] = [2.4, 4.2];

/// The target: the most memory in bytes beside the budget and the streams' windows and messages.
const BASE_MEMORY: u64 = 48 * MIB;

/// The target: the share of its speed that a stream keeps beside slow streams on its connection.
const LEAST_SPEED: f64 = 0.8;

/// The target: the most memory in bytes of many uploads, beside the budget and what each stream may use.
const MOST_BESIDES: u64 = 64 * MIB;

/// The target: the most memory of a record of 50,000 parts in Redis, in bytes, if its ETags are MD5s.
const MOST_RECORD_MEMORY: u64 = 4_000_000;

/// The targets: how long a call and an open of that record take at most.
const MOST_READ: Duration = Duration::from_millis(5);
const MOST_OPEN: Duration = Duration::from_millis(150);

/// The targets: how long a page of a list takes at most, and how much longer a small upload takes beside many lists.
const MOST_PAGE: Duration = Duration::from_millis(25);
const MOST_SLOWDOWN_BY_LISTS: f64 = 1.5;

/// The target: how much longer a small upload takes at most beside watchers and readers of that record.
const MOST_SLOWDOWN: f64 = 1.5;

/// The target: signed parts per second and core, in windows of 100.
const LEAST_SIGNATURES: f64 = 8_000.0;

/// The targets: the shares of the throughput that remain with authentication and under TLS, and how much longer the first call
/// with a token takes at most.
const LEAST_AUTHENTICATED: f64 = 0.95;
const LEAST_ENCRYPTED: f64 = 0.8;
const MOST_FIRST_CALL: Duration = Duration::from_millis(1);

/// The targets: the share of the throughput that remains if every call is traced, that of another build, and how many bytes
/// of memory more are needed.
const LEAST_TRACED: f64 = 0.9;
const LEAST_OF_BASELINE: f64 = 0.97;
const MOST_ADDED_MEMORY: u64 = 16 * MIB;

/// The measurements so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    measurements: Vec<Measurement>,
}

/// A remark beside the table.
pub(crate) fn log(text: &str) {
    eprintln!("{text}");
}

impl Report {
    fn begin() {
        println!("{}\n", machine());
        println!(
            "| store | load | file digest | gateway MiB/s | direct MiB/s | ratio | direct with Content-MD5 | ratio | CPU s/GiB | peak RSS MiB \
             | Redis commands per part: recording (all) |"
        );
        println!("|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    }

    pub(crate) fn add(&mut self, measurement: Measurement) {
        if self.measurements.is_empty() {
            Self::begin();
        }
        let Measurement {
            store,
            load,
            file_digest,
            parts,
            commands,
            ..
        } = measurement;
        let parts = count(parts);
        println!(
            "| {store} | {} | {} | {:.0} | {:.0} | {:.2} | {:.0} | {:.2} | {:.2} | {} | {:.2} ({:.2}) |",
            load,
            if file_digest { "yes" } else { "no" },
            throughput(load, measurement.through),
            throughput(load, measurement.direct),
            measurement.ratio(measurement.direct),
            throughput(load, measurement.direct_checked),
            measurement.ratio(measurement.direct_checked),
            measurement.cpu_per_gib(),
            measurement.peak_memory / MIB,
            count(commands.commonest) / parts,
            count(commands.all) / parts,
        );
        self.measurements.push(measurement);
    }

    /// Whether the target was reached.
    pub(crate) fn end(self) {
        if self.measurements.is_empty() {
            return;
        }
        println!();
        let all = &self.measurements;
        let strict = || all.iter().filter(|one| one.store == "versitygw");
        let least = |direct: fn(&Measurement) -> Duration| {
            let ratios = strict().map(|one| one.ratio(direct(one)));
            ratios.fold(f64::INFINITY, f64::min)
        };
        if strict().next().is_some() {
            for (direct, ratio) in [
                ("the SDK's defaults", least(|one| one.direct)),
                ("Content-MD5", least(|one| one.direct_checked)),
            ] {
                judge(
                    ratio >= LEAST_RATIO,
                    &format!(
                        "ratio to direct with {direct}, strict store ≥ {LEAST_RATIO}: {ratio:.2}"
                    ),
                );
            }
        }
        for (file_digest, most) in [false, true].into_iter().zip(MOST_CPU) {
            let with = if file_digest { "with" } else { "without" };
            let cpu = all
                .iter()
                .filter(|one| one.file_digest == file_digest)
                .map(Measurement::cpu_per_gib);
            let cpu = cpu.fold(0.0, f64::max);
            judge(
                cpu <= most,
                &format!("CPU s/GiB {with} a file digest ≤ {most}: {cpu:.2}"),
            );
        }
        let mut loads: Vec<Load> = Vec::new();
        for Measurement { load, .. } in all {
            if !loads.contains(load) {
                loads.push(*load);
            }
        }
        for load in loads {
            let peak = all
                .iter()
                .filter(|one| one.load == load)
                .map(|one| one.peak_memory)
                .max()
                .unwrap_or_default();
            let most = most_memory(load);
            let (peak_mib, most_mib) = (peak / MIB, most / MIB);
            judge(
                peak <= most,
                &format!("peak RSS of {load} ≤ {most_mib} MiB: {peak_mib} MiB"),
            );
        }
        let recorded = all
            .iter()
            .map(|one| count(one.commands.commonest) / count(one.parts))
            .fold(0.0, f64::max);
        judge(
            recorded <= 1.0,
            &format!("Redis commands per part ≤ 1: {recorded:.2}"),
        );
    }
}

/// The line of a fast stream beside slow ones.
pub(crate) fn neighbours(measured: &Neighbours) {
    let Neighbours {
        load,
        alone,
        beside,
    } = measured;
    let ratio = alone.as_secs_f64() / beside.as_secs_f64();
    println!(
        "\n{load}: {:.0} MiB/s alone, {:.0} MiB/s beside {} slow streams of its connection\n",
        throughput(*load, *alone),
        throughput(*load, *beside),
        crowds::SLOW,
    );
    judge(
        ratio >= LEAST_SPEED,
        &format!("speed beside slow streams ≥ {LEAST_SPEED} of that alone: {ratio:.2}"),
    );
}

/// The line of many uploads with a small budget.
pub(crate) fn crowd(measured: &Crowd) {
    let Crowd {
        elapsed,
        peak_memory,
    } = measured;
    let each = crowds::WINDOW + crowds::REST;
    let most = crowds::BUDGET + MOST_BESIDES + crowds::UPLOADS * each;
    println!(
        "\n{} uploads of {} KiB at once, memory_budget {} MiB: all finished in {:.1} s\n",
        crowds::UPLOADS,
        crowds::UPLOAD_SIZE / 1024,
        crowds::BUDGET / MIB,
        elapsed.as_secs_f64(),
    );
    judge(
        *peak_memory <= most,
        &format!(
            "peak RSS of that crowd ≤ {} MiB: {} MiB",
            most / MIB,
            peak_memory / MIB
        ),
    );
}

/// The lines of lists over each state store.
pub(crate) fn findings(measured: &[Finding]) {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    for finding in measured {
        let (store, records) = (finding.store, finding.records);
        let memory = finding.memory.map(|bytes| {
            format!("; indexes of one listing {bytes} bytes of memory for each, with two tags")
        });
        println!(
            "\n{records} records in {store}{}",
            memory.unwrap_or_default()
        );
        for (list, [median, most]) in &finding.pages {
            println!("a page of {list}: {:.2} ms (median)", milliseconds(*median));
            judge(
                *most <= MOST_PAGE,
                &format!(
                    "a page of {list}, p99 ≤ {:.0} ms: {:.2} ms",
                    milliseconds(MOST_PAGE),
                    milliseconds(*most)
                ),
            );
        }
        let [alone, beside] = finding.small;
        let ratio = beside.as_secs_f64() / alone.as_secs_f64();
        judge(
            ratio <= MOST_SLOWDOWN_BY_LISTS,
            &format!(
                "small uploads beside {} lists at once ≤ {MOST_SLOWDOWN_BY_LISTS} × {:.2} ms alone: {ratio:.2}",
                finding::LISTS,
                milliseconds(alone),
            ),
        );
    }
}

/// The lines of a record of many parts.
pub(crate) fn records(measured: &Records) {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let Records {
        memory,
        memory_with_long_etags,
        read: [median, most],
        open,
        alone,
        beside,
        beside_hasty: [hasty, hasty_single],
    } = measured;
    let (watchers, readers) = (records::WATCHERS, records::READERS);
    println!(
        "\na record of {} parts: {:.2} MB in Redis, {:.2} MB with ETags of 70 bytes; GetUpload {:.2} ms (median); small uploads \
         {:.2} ms alone, {:.2} ms beside {watchers} watchers and {readers} readers of it; without the readers' pause of {:.0} ms, {:.2} ms, and \
         {:.2} ms if the record has one part\n",
        records::PARTS,
        megabytes(*memory),
        megabytes(*memory_with_long_etags),
        milliseconds(*median),
        milliseconds(*alone),
        milliseconds(*beside),
        milliseconds(records::PAUSE),
        milliseconds(*hasty),
        milliseconds(*hasty_single),
    );
    judge(
        *memory <= MOST_RECORD_MEMORY,
        &format!(
            "memory of that record in Redis ≤ {:.0} MB: {:.2} MB",
            megabytes(MOST_RECORD_MEMORY),
            megabytes(*memory)
        ),
    );
    for (what, time, limit) in [
        ("GetUpload of it, p99", *most, MOST_READ),
        ("open of it", *open, MOST_OPEN),
    ] {
        judge(
            time <= limit,
            &format!(
                "{what} ≤ {:.0} ms: {:.2} ms",
                milliseconds(limit),
                milliseconds(time)
            ),
        );
    }
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    judge(
        ratio <= MOST_SLOWDOWN,
        &format!(
            "small uploads beside its watchers and readers ≤ {MOST_SLOWDOWN} × alone: {ratio:.2}"
        ),
    );
}

/// The section of signatures.
pub(crate) fn signing(all: &[Signing]) {
    println!(
        "\n| call | parts per call | calls at once | p50 ms | p99 ms | signatures/s | signatures per core second | Redis commands per call |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for one in all {
        let Signing {
            call,
            window,
            in_flight,
            calls,
            elapsed,
            commands,
            ..
        } = one;
        println!(
            "| {call} | {window} | {in_flight} | {:.2} | {:.2} | {:.0} | {:.0} | {:.2} |",
            one.percentile(50).as_secs_f64() * 1e3,
            one.percentile(99).as_secs_f64() * 1e3,
            count(calls * window) / elapsed.as_secs_f64(),
            one.per_core_second(),
            count(*commands) / count(*calls),
        );
    }
    println!();
    let windows = all.iter().filter(|one| one.window > 1);
    let least = windows
        .map(Signing::per_core_second)
        .fold(f64::INFINITY, f64::min);
    judge(
        least >= LEAST_SIGNATURES,
        &format!("signatures per core second through windows ≥ {LEAST_SIGNATURES}: {least:.0}"),
    );
    let most = all
        .iter()
        .map(|one| count(one.commands) / count(one.calls))
        .fold(0.0, f64::max);
    judge(
        most <= 1.0,
        &format!("Redis commands per signing call ≤ 1: {most:.2}"),
    );
}

impl Measurement {
    fn ratio(&self, direct: Duration) -> f64 {
        direct.as_secs_f64() / self.through.as_secs_f64()
    }

    fn cpu_per_gib(&self) -> f64 {
        self.cpu.as_secs_f64() * count(GIB) / count(self.load.bytes())
    }
}

/// The byte budget, the process itself, and for each stream its window and one message.
fn most_memory(load: Load) -> u64 {
    let limits = Limits::default();
    // A message is a chunk of the preferred size, which is also the window's.
    limits.memory_budget.0 + BASE_MEMORY + load.streams * 2 * limits.stream_window.0
}

fn judge(reached: bool, target: &str) {
    println!(
        "- {}: {target}",
        if reached { "reached" } else { "**missed**" }
    );
}

fn megabytes(bytes: u64) -> f64 {
    count(bytes) / 1e6
}

/// In MiB per second.
fn throughput(load: Load, time: Duration) -> f64 {
    count(load.bytes()) / count(MIB) / time.as_secs_f64()
}

/// Exact for every number here.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn count(number: u64) -> f64 {
    number as f64
}

/// Prints what authentication and encryption cost.
pub(crate) fn guarded(one: &Guarded) {
    let ratio = |[without, with]: [Duration; 2]| without.as_secs_f64() / with.as_secs_f64();
    let (signing, stream) = (ratio(one.signing), ratio(one.stream));
    let first = one.first_call.as_secs_f64() * 1e3;
    println!("\n| with | share of the throughput without |");
    println!("|---|---:|");
    println!("| authentication: SignPart, 16 at once | {signing:.3} |");
    println!("| TLS: {} | {stream:.3} |\n", one.load);
    judge(
        signing >= LEAST_AUTHENTICATED,
        &format!(
            "signing with authentication ≥ {LEAST_AUTHENTICATED} of that without: {signing:.3}"
        ),
    );
    judge(
        stream >= LEAST_ENCRYPTED,
        &format!("a stream under TLS ≥ {LEAST_ENCRYPTED} of a plain one: {stream:.3}"),
    );
    judge(
        one.first_call <= MOST_FIRST_CALL,
        &format!("the first call with a token ≤ 1 ms longer: {first:.2} ms"),
    );
}

/// Prints what traces cost.
pub(crate) fn traced(one: &Compared) {
    compared("with a trace of every call", LEAST_TRACED, one);
}

/// Prints what changed since another build.
pub(crate) fn baseline(one: &Compared) {
    compared("of this build", LEAST_OF_BASELINE, one);
}

/// Prints how the second of two gateways compares with the first one, `what` of which is at least `least` of that.
fn compared(what: &str, least: f64, one: &Compared) {
    let ratio = |[first, second]: [Duration; 2]| first.as_secs_f64() / second.as_secs_f64();
    let (signing, files) = (ratio(one.sign_part), ratio(one.files));
    let sign_parts = ratio(one.sign_parts);
    let memory = one.memory.map(|bytes| bytes as f64 / MIB as f64);
    println!("\n| throughput {what} | share |");
    println!("|---|---:|");
    println!("| SignPart, 16 at once | {signing:.3} |");
    println!("| SignParts of {WINDOW}, 16 at once | {sign_parts:.3} |");
    println!("| {} | {files:.3} |\n", one.load);
    judge(
        signing.min(sign_parts) >= least,
        &format!("signing {what} ≥ {least}: {signing:.3}, {sign_parts:.3}"),
    );
    judge(
        files >= least,
        &format!("files {what} ≥ {least}: {files:.3}"),
    );
    judge(
        one.memory[1] <= one.memory[0] + MOST_ADDED_MEMORY,
        &format!(
            "at most 16 MiB more memory: {:.1} MiB, without {:.1} MiB",
            memory[1], memory[0]
        ),
    );
}

/// The processor's name and the number of cores, from Linux.
fn machine() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let names = processors
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let names: Vec<&str> = names.map(|(_, name)| name).collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{} × {}, Linux {}",
        names.len(),
        names.first().unwrap_or(&"unknown processor"),
        kernel.trim()
    )
}
