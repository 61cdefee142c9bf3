//! The table of streams from far clients.

use super::{MIB, throughput};
use crate::far::Far;

/// Prints the throughput of each.
pub(crate) fn far(all: &[Far]) {
    println!("\n| window KiB | round trip ms | MiB/s |");
    println!("|---:|---:|---:|");
    for one in all {
        println!(
            "| {} | {} | {:.0} |",
            one.window * 1024 / MIB,
            one.round_trip.as_millis(),
            throughput(one.load, one.elapsed)
        );
    }
}
