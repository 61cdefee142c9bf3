//! The number of packages that a program has to build for the client.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

use std::{collections::BTreeSet, process::Command};

#[test]
fn the_client_needs_at_most_135_packages() {
    let packages = packages(&[]);
    assert!(packages.len() <= 135, "{}: {packages:?}", packages.len());
}

#[test]
fn without_direct_uploads_the_client_needs_at_most_100_packages() {
    let packages = packages(&["--no-default-features"]);
    assert!(packages.len() <= 100, "{}: {packages:?}", packages.len());
    assert!(!packages.iter().any(|name| name.starts_with("reqwest ")));
}

/// The packages, with versions, that a build for this machine contains, the client itself included.
fn packages(features: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal"])
        .args(["--package", env!("CARGO_PKG_NAME"), "--prefix", "none"])
        .args(["--format", "{p}"])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let lines = String::from_utf8(output.stdout).unwrap();
    // A package that was listed before ends with (*).
    let packages = lines.lines().map(|line| line.trim_end_matches(" (*)"));
    packages.map(str::to_owned).collect()
}
