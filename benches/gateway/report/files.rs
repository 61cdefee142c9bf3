//! The table of many small files.

use super::judge;
use crate::files::{Files, SIZE};

/// The target: how many times as many files a second as `aws s3 cp`.
const LEAST_RATIO: f64 = 2.0;

/// Prints how fast many small files are sent.
pub(crate) fn files(files: &Files) {
    let Files {
        count,
        put,
        put_ten,
        again,
        aws,
    } = *files;
    println!("\n| {count} files of {SIZE} bytes | files/s |");
    println!("|---|---:|");
    println!("| `upload-gateway put -r`, 4 at once | {put:.0} |");
    println!("| `upload-gateway put -r --parallel 10` | {put_ten:.0} |");
    println!("| the same command again, all complete | {again:.0} |");
    let Some(aws) = aws else { return };
    println!("| `aws s3 cp --recursive` straight to the store, 10 at once | {aws:.0} |\n");
    let ratio = put / aws;
    judge(
        ratio >= LEAST_RATIO,
        &format!("files/s of `put -r` ≥ {LEAST_RATIO} × those of `aws s3 cp`: {ratio:.2}"),
    );
}
