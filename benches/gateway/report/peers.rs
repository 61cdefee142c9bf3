//! The tables of the gateway beside other servers, on the terminal and in docs/performance.md.

use std::{fmt, fs, path::Path};

use upload_gateway_core::upload::PART_SIZE;

use super::{count, judge, machine};
use crate::{
    GIB, MIB, Result,
    peers::{Cell, Digest, Economy, Measured, Name, Round},
};

/// The targets on the strict store: the share of a direct upload's throughput, and that of tusd's CPU time.
const LEAST_OF_DIRECT: f64 = 0.92;
const MOST_OF_CPU: f64 = 0.5;

/// The target on the discarding store: CPU seconds per GiB.
const MOST_CPU: f64 = 1.0;

/// The targets of 1 stream and of 16: the most memory in bytes.
const MOST_MEMORY: [(usize, u64); 2] = [(1, 56 * MIB), (16, 110 * MIB)];

/// The targets of files of 1 KiB on the strict store: how many times as long as a direct PUT, median and p99.
const MOST_LATENCY: [(usize, f64); 2] = [(50, 1.2), (99, 1.5)];

/// The target of small files, 64 at once, on the strict store: how many times as many a second as through tusd.
const LEAST_OF_TUSD: f64 = 2.0;

/// The targets: Redis round trips of an upload with one request to the store, and besides one for each part of another.
const MOST_ROUND_TRIPS: f64 = 3.0;
const MOST_ROUND_TRIPS_BESIDE_PARTS: f64 = 4.0;

/// The target: parts for each new connection to the store.
const LEAST_PARTS_PER_CONNECTION: u64 = 100;

/// The lines in docs/performance.md between which the tables are.
const BEGIN: &str = "<!-- written by `make bench` -->\n";
const END: &str = "<!-- end -->\n";

const LARGE: &str = "\
| store | files | sender | MiB/s | ratio to direct | ratio to tusd | CPU s/GiB | peak RSS MiB | Redis round trips per upload | store requests per upload |
|---|---|---|---:|---:|---:|---:|---:|---:|---:|
";

const SMALL: &str = "\
| store | files | sender | files/s | ratio to tusd | p50 ms | times direct | p99 ms | times direct | CPU ms per file | peak RSS MiB | Redis round trips per upload | store requests per upload |
|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
";

/// The tables so far.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    tables: String,
    /// Whether each target was reached, and the figure.
    targets: Vec<(bool, String)>,
}

/// The median of a figure in all rounds, the least and the greatest one.
#[derive(Debug, Clone, Copy)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

// === impl Spread ===

impl Spread {
    /// `None` without a figure.
    fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        Some(Self {
            least: *figures.first()?,
            median: *figures.get(figures.len() / 2)?,
            most: *figures.last()?,
        })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            least,
            median,
            most,
        } = self;
        write!(formatter, "{median:.2} ({least:.2}–{most:.2})")
    }
}

// === impl Peers ===

impl Peers {
    /// Adds what was measured in a cell, and prints it.
    pub(crate) fn add(&mut self, store: &str, cell: Cell, all: &[Measured]) {
        let header = if cell.is_small() { SMALL } else { LARGE };
        let mut text = String::new();
        if !self.tables.contains(header) {
            text.push_str(&format!("\n{header}"));
        }
        for one in all {
            let row = if cell.is_small() { small } else { large };
            text.push_str(&format!(
                "| {store} | {cell} | {} |{}\n",
                one.name,
                row(cell, one, all)
            ));
        }
        print!("{text}");
        self.tables.push_str(&text);
        let gateway = find(all, Name::Gateway(Digest::Default));
        if let (Some(gateway), Some(direct)) = (gateway, find(all, Name::Direct)) {
            let tusd = find(all, Name::Tusd);
            let trips = gateway.round_trips;
            let mut targets: Vec<_> = trips
                .map(|each| round_trips(cell.size, each))
                .into_iter()
                .collect();
            if store == "versitygw" {
                targets.extend(beside(cell, gateway, direct, tusd));
            } else if cell.size >= 128 * MIB {
                let cpu = cpu_per_gib(cell, gateway).unwrap_or_default();
                targets.push((cpu <= MOST_CPU, format!("CPU s/GiB ≤ {MOST_CPU}: {cpu:.2}")));
            }
            let named = |(reached, target)| (reached, format!("{store} {cell}: {target}"));
            self.targets.extend(targets.into_iter().map(named));
        }
    }

    /// Adds the file of many parts.
    pub(crate) fn parts(&mut self, measured: &Economy) {
        let Economy {
            round_trips: each,
            connections,
            requests,
            size,
        } = measured;
        let parts = size.div_ceil(PART_SIZE);
        let requests = requests.unwrap_or_default();
        let connections = connections.unwrap_or_default();
        let text = format!(
            "\nOne file of {parts} parts, to the discarding store: {each:.0} Redis round trips, {requests} requests to the store, \
             {connections} new connections to it.\n"
        );
        print!("{text}");
        self.tables.push_str(&text);
        let most = parts.div_ceil(LEAST_PARTS_PER_CONNECTION);
        let target = format!("new connections to the store ≤ {most}: {connections}");
        let targets = [round_trips(*size, *each), (connections <= most, target)];
        let named = |(reached, target)| (reached, format!("a file of {parts} parts: {target}"));
        self.targets.extend(targets.map(named));
    }

    /// Prints whether the targets were reached. With `write`, docs/performance.md gets the tables.
    pub(crate) fn end(self, write: bool) -> Result<()> {
        println!();
        for (reached, target) in &self.targets {
            judge(*reached, target);
        }
        if !write {
            return Ok(());
        }
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
        let text = fs::read_to_string(&page)?;
        let (before, rest) = text.split_once(BEGIN).ok_or("no place for the tables")?;
        let (_, after) = rest.split_once(END).ok_or("no end of the tables")?;
        let (machine, tables) = (machine(), &self.tables);
        let text = format!("{before}{BEGIN}{machine}\n{tables}{END}{after}");
        Ok(fs::write(page, text)?)
    }
}

fn find(all: &[Measured], name: Name) -> Option<&Measured> {
    all.iter().find(|one| one.name == name)
}

/// The figures of large files in a row.
fn large(cell: Cell, one: &Measured, all: &[Measured]) -> String {
    let speed = |name| text(find(all, name).and_then(|other| speed(one, other)));
    let elapsed = Spread::of(one.rounds.iter().map(elapsed));
    let rate = elapsed.map(|elapsed| count(cell.bytes()) / count(MIB) / elapsed.median);
    let cpu = cpu_per_gib(cell, one).map(|cpu| format!("{cpu:.2}"));
    [
        format!(" {:.0}", rate.unwrap_or_default()),
        speed(Name::Direct),
        speed(Name::Tusd),
        text(cpu),
        costs(cell, one),
    ]
    .join(" | ")
}

/// The figures of small files in a row.
fn small(cell: Cell, one: &Measured, all: &[Measured]) -> String {
    let elapsed = Spread::of(one.rounds.iter().map(elapsed));
    let rate = elapsed.map(|elapsed| count(cell.files) / elapsed.median);
    let latency = |percent| {
        let median = Spread::of(one.rounds.iter().map(|round| latency(round, percent)));
        let direct = find(all, Name::Direct).and_then(|direct| slowness(one, direct, percent));
        let milliseconds = median.map(|median| median.median * 1e3);
        format!("{:.2} | {}", milliseconds.unwrap_or_default(), text(direct))
    };
    let cpu = cpu(one).map(|cpu| format!("{:.2}", cpu * 1e3 / count(cell.files)));
    [
        format!(" {:.0}", rate.unwrap_or_default()),
        text(find(all, Name::Tusd).and_then(|tusd| speed(one, tusd))),
        latency(50),
        latency(99),
        text(cpu),
        costs(cell, one),
    ]
    .join(" | ")
}

/// The last columns of both tables.
fn costs(cell: Cell, one: &Measured) -> String {
    let per_upload = |total: Option<u64>| {
        text(total.map(|total| format!("{:.1}", count(total) / count(cell.files))))
    };
    let memory = text(one.peak_memory.map(|bytes| bytes / MIB));
    let trips = text(one.round_trips.map(|each| format!("{each:.1}")));
    let requests = per_upload(one.requests);
    format!("{memory} | {trips} | {requests} |")
}

/// The targets beside the other senders on the strict store.
fn beside(
    cell: Cell,
    gateway: &Measured,
    direct: &Measured,
    tusd: Option<&Measured>,
) -> Vec<(bool, String)> {
    let mut targets = Vec::new();
    let beside_tusd = tusd.and_then(|tusd| speed(gateway, tusd));
    if cell.size >= 128 * MIB {
        if let Some(ratio) = speed(gateway, direct) {
            let target = format!("ratio to direct ≥ {LEAST_OF_DIRECT}: {ratio}");
            targets.push((ratio.median >= LEAST_OF_DIRECT, target));
        }
        if let Some(ratio) = beside_tusd {
            targets.push((ratio.median >= 1.0, format!("ratio to tusd ≥ 1: {ratio}")));
        }
        if let (Some(own), Some(other)) = (cpu(gateway), tusd.and_then(cpu)) {
            let share = own / other;
            let target = format!("CPU ≤ {MOST_OF_CPU} × tusd's: {share:.2}");
            targets.push((share <= MOST_OF_CPU, target));
        }
        let limits = MOST_MEMORY.iter();
        let most = limits.filter(|(streams, _)| *streams == cell.at_once);
        for ((streams, most), peak) in most.zip(gateway.peak_memory) {
            let (peak_mib, most_mib) = (peak / MIB, most / MIB);
            let target =
                format!("peak RSS of streams, {streams}, ≤ {most_mib} MiB: {peak_mib} MiB");
            targets.push((peak <= *most, target));
        }
    }
    if cell.size == 1024 {
        for (percent, most) in MOST_LATENCY {
            if let Some(ratio) = slowness(gateway, direct, percent) {
                let target = format!("p{percent} ≤ {most} × that of a direct PUT: {ratio}");
                targets.push((ratio.median <= most, target));
            }
        }
    }
    if let Some(ratio) = beside_tusd.filter(|_| cell.is_small() && cell.at_once == 64) {
        let target = format!("files/s ≥ {LEAST_OF_TUSD} × those of tusd: {ratio}");
        targets.push((ratio.median >= LEAST_OF_TUSD, target));
    }
    targets
}

fn round_trips(size: u64, each: f64) -> (bool, String) {
    let parts = size.div_ceil(PART_SIZE);
    let most = match parts {
        ..=1 => MOST_ROUND_TRIPS,
        parts => count(parts) + MOST_ROUND_TRIPS_BESIDE_PARTS,
    };
    let target = format!("Redis round trips per upload ≤ {most}: {each:.1}");
    (each <= most, target)
}

fn elapsed(round: &Round) -> f64 {
    round.elapsed.as_secs_f64()
}

fn latency(round: &Round, percent: usize) -> f64 {
    round.percentile(percent).as_secs_f64()
}

/// How many times as fast as `other`, in the same rounds. `None` beside itself.
fn speed(one: &Measured, other: &Measured) -> Option<Spread> {
    let rounds = pairs(one, other)?;
    Spread::of(rounds.map(|[own, other]| elapsed(other) / elapsed(own)))
}

/// How many times as long a file takes as through `other`. `None` beside itself.
fn slowness(one: &Measured, other: &Measured, percent: usize) -> Option<Spread> {
    let rounds = pairs(one, other)?;
    Spread::of(rounds.map(|[own, other]| latency(own, percent) / latency(other, percent)))
}

fn pairs<'a>(
    one: &'a Measured,
    other: &'a Measured,
) -> Option<impl Iterator<Item = [&'a Round; 2]>> {
    let rounds = one.rounds.iter().zip(&other.rounds).map(Into::into);
    (one.name != other.name).then_some(rounds)
}

/// The CPU seconds of a round. `None` for a direct upload.
fn cpu(one: &Measured) -> Option<f64> {
    let rounds = one.rounds.iter().filter_map(|round| round.cpu);
    Some(Spread::of(rounds.map(|cpu| cpu.as_secs_f64()))?.median)
}

fn cpu_per_gib(cell: Cell, one: &Measured) -> Option<f64> {
    Some(cpu(one)? * count(GIB) / count(cell.bytes()))
}

/// Nothing for a figure that does not exist.
fn text(figure: Option<impl fmt::Display>) -> String {
    figure.map(|figure| figure.to_string()).unwrap_or_default()
}
