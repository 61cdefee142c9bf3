//! The direction of imports between the modules of one crate, which Cargo does not enforce.
//!
//! Cargo already keeps wire formats, SDKs and databases out of `upload-gateway-core`, and the server out of
//! `upload-gateway-client`.

use std::{fs, path::Path};

/// Modules that a file may not import, by the beginning of its path.
const FORBIDDEN: &[(&str, &[&str])] = &[
    // The domain imports no port and no use case; a port imports neither the other port nor use cases.
    (
        "crates/core/src/upload",
        &["blobs", "call", "faults", "gateway", "observe", "state"],
    ),
    (
        "crates/core/src/error",
        &[
            "blobs", "call", "faults", "gateway", "observe", "state", "upload",
        ],
    ),
    (
        "crates/core/src/call",
        &[
            "blobs", "error", "faults", "gateway", "observe", "state", "upload",
        ],
    ),
    ("crates/core/src/state", &["blobs", "faults", "gateway"]),
    ("crates/core/src/blobs", &["faults", "gateway", "state"]),
    ("crates/core/src/gateway", &["faults"]),
    // Value types import none of the modules that use them.
    (
        "src/values",
        &[
            "blobs",
            "cli",
            "config",
            "embedded_s3",
            "grpc",
            "rest",
            "serve",
            "state",
            "status",
        ],
    ),
    // Adapters import the ports only, edges the use cases only.
    (
        "src/state",
        &[
            "blobs",
            "cli",
            "config",
            "embedded_s3",
            "grpc",
            "rest",
            "serve",
            "status",
        ],
    ),
    (
        "src/blobs",
        &[
            "cli",
            "config",
            "embedded_s3",
            "grpc",
            "rest",
            "serve",
            "state",
            "status",
        ],
    ),
    (
        "src/embedded_s3",
        &[
            "blobs", "cli", "config", "grpc", "rest", "serve", "state", "status",
        ],
    ),
    (
        "src/grpc",
        &["cli", "config", "embedded_s3", "rest", "serve", "state"],
    ),
    (
        "src/rest",
        &[
            "cli",
            "config",
            "embedded_s3",
            "grpc",
            "proto",
            "serve",
            "state",
        ],
    ),
    (
        "src/status",
        &[
            "blobs",
            "cli",
            "config",
            "embedded_s3",
            "grpc",
            "rest",
            "serve",
            "state",
        ],
    ),
];

/// The only places that may use these names.
const RESERVED: &[(&str, &[&str])] = &[
    ("std::env::var", &["src/config"]),
    ("prometheus_client", &["src/metrics"]),
    ("opentelemetry", &["src/traces"]),
    (
        "tonic::Code",
        &[
            "src/status.rs",
            "src/grpc/convert.rs",
            "src/cli",
            "crates/client",
        ],
    ),
];

#[test]
fn imports_point_inward_only() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        let rules = FORBIDDEN.iter().filter(|(room, _)| file.starts_with(room));
        let forbidden: Vec<_> = rules.flat_map(|(_, modules)| *modules).collect();
        for (number, line) in code(&text) {
            let found = forbidden.iter().filter(|module| imports(&line, module));
            broken.extend(found.map(|module| format!("{file}:{number} imports {module}: {line}")));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn reserved_names_stay_in_their_places() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        for (name, places) in RESERVED {
            if places.iter().any(|place| file.starts_with(place)) {
                continue;
            }
            let found = code(&text).filter(|(_, line)| line.contains(name));
            broken
                .extend(found.map(|(number, line)| format!("{file}:{number} uses {name}: {line}")));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Whether `line` names the module of its own crate.
fn imports(line: &str, module: &str) -> bool {
    let path = format!("crate::{module}");
    line.match_indices(&path).any(|(at, _)| {
        let next = line[at + path.len()..].chars().next();
        !next.is_some_and(|next| next.is_alphanumeric() || next == '_')
    })
}

/// The lines of code with their numbers; each line in a `use crate::{…}` gets `crate::` as its prefix.
fn code(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut within = false;
    let lines = text.lines().enumerate().map(move |(index, line)| {
        let inner = within && line.starts_with("    ") && !line.starts_with("     ");
        within = (within || line == "use crate::{") && line != "};";
        let prefix = if inner { "crate::" } else { "" };
        (index + 1, format!("{prefix}{}", line.trim_start()))
    });
    lines.filter(|(_, line)| !line.starts_with("//"))
}

/// The path (from the root of the repository) and the text of every source file.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![
        root.join("src"),
        root.join("crates/core/src"),
        root.join("crates/client/src"),
    ];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                found.push((name.to_owned(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 100, "the sources were not found");
    found
}
