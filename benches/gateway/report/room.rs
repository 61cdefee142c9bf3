//! The table of files for whose records Redis has no room.

use super::{count, judge};
use crate::{MIB, room::Room};

/// Prints what happened when Redis had room for few of the records.
pub(crate) fn room(one: &Room) {
    let rates = one.times.map(|time| count(one.files) / time.as_secs_f64());
    println!(
        "\n| files | Redis | uploads/s | peak MiB | records removed | refused | reads/s | peak MiB | without answer |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    println!(
        "| {} | {} MiB | {:.0} | {} | {} | {} | {:.0} | {} | {} |\n",
        one.files,
        one.memory / MIB,
        rates[0],
        one.peaks[0] / MIB,
        one.removed,
        one.refused.0,
        rates[1],
        one.peaks[1] / MIB,
        one.unanswered.0,
    );
    let because = |reason: &Option<String>| reason.clone().unwrap_or_default();
    judge(
        one.refused.0 == 0,
        &format!("uploads continue: {}", because(&one.refused.1)),
    );
    judge(
        one.unanswered.0 == 0,
        &format!("every id answers: {}", because(&one.unanswered.1)),
    );
}
