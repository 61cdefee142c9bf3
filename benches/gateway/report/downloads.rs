//! The table of downloads.

use super::{count, judge, throughput};
use crate::{GIB, MIB, downloads::Downloads};

/// The targets: the share of a direct download's throughput, and the most CPU seconds per GiB.
const LEAST_DOWNLOAD: f64 = 0.9;
const MOST_DOWNLOAD_CPU: f64 = 0.6;

/// Prints what a download through the gateway costs.
pub(crate) fn downloads(one: &Downloads) {
    let Downloads {
        load,
        times: [through, alone],
        cpu,
        peak_memory,
    } = *one;
    let ratio = alone.as_secs_f64() / through.as_secs_f64();
    let cpu = cpu.as_secs_f64() * count(GIB) / count(load.bytes());
    println!("\n| download | gateway MiB/s | direct MiB/s | ratio | CPU s/GiB | peak RSS MiB |");
    println!("|---|---:|---:|---:|---:|---:|");
    println!(
        "| {load} | {:.0} | {:.0} | {ratio:.2} | {cpu:.2} | {} |\n",
        throughput(load, through),
        throughput(load, alone),
        peak_memory / MIB,
    );
    judge(
        ratio >= LEAST_DOWNLOAD,
        &format!("a download ≥ {LEAST_DOWNLOAD} of a direct one: {ratio:.2}"),
    );
    judge(
        cpu <= MOST_DOWNLOAD_CPU,
        &format!("CPU of a download ≤ {MOST_DOWNLOAD_CPU} s/GiB: {cpu:.2}"),
    );
}
