//! Who may name whom: imports point inward only.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

use std::{fs, path::Path};

/// What a file may not name, by the beginning of its path in `src/`. Inner rooms come first: the first match counts.
const RULES: &[(&str, &[&str])] = &[
    (
        "upload",
        &[
            "crate::faults",
            "crate::gateway",
            "crate::state",
            "crate::blobs",
            "crate::grpc",
            "crate::config",
            WIRE,
            SDK,
        ],
    ),
    ("error.rs", &["crate::", WIRE, SDK]),
    ("call.rs", &["crate::", WIRE, SDK]),
    (
        "faults",
        &[
            "crate::grpc",
            "crate::rest",
            "crate::proto",
            "crate::config",
            "crate::serve",
            "crate::status",
            WIRE,
            SDK,
        ],
    ),
    (
        "gateway",
        &[
            "crate::faults",
            "crate::grpc",
            "crate::rest",
            "crate::proto",
            "crate::config",
            "crate::serve",
            "crate::status",
            WIRE,
            SDK,
        ],
    ),
    (
        "state.rs",
        &[
            "crate::faults",
            "crate::gateway",
            "crate::blobs",
            "crate::grpc",
            "crate::proto",
            "crate::config",
            WIRE,
            SDK,
        ],
    ),
    (
        "blobs.rs",
        &[
            "crate::faults",
            "crate::gateway",
            "crate::state",
            "crate::grpc",
            "crate::proto",
            "crate::config",
            WIRE,
            SDK,
        ],
    ),
    (
        "state/",
        &[
            "crate::faults",
            "crate::gateway",
            "crate::blobs",
            "crate::grpc",
            "crate::proto",
            "crate::config",
            WIRE,
            "aws_|azure_",
        ],
    ),
    (
        "blobs/sign",
        &[
            "crate::faults",
            "crate::gateway",
            "crate::state",
            "crate::grpc",
            "crate::proto",
            "crate::config",
            WIRE,
            SDK,
        ],
    ),
    (
        "blobs/embedded",
        &[
            "crate::faults",
            "crate::gateway",
            "crate::state",
            "crate::grpc",
            "crate::proto",
            "tonic|prost|axum",
            "redis|redb|aws_|azure_",
        ],
    ),
    (
        "blobs/",
        &[
            "crate::faults",
            "crate::gateway",
            "crate::state",
            "crate::grpc",
            "crate::proto",
            "crate::config",
            WIRE,
            "redis|redb",
        ],
    ),
    ("grpc/convert.rs", &["crate::config", "crate::serve", SDK]),
    ("grpc", &["crate::config", "crate::serve", SDK]),
    (
        "rest",
        &[
            "crate::config",
            "crate::serve",
            "crate::state",
            "crate::grpc",
            "crate::proto",
            "tonic|prost",
            SDK,
        ],
    ),
    (
        "status.rs",
        &[
            "crate::gateway",
            "crate::state",
            "crate::blobs",
            "crate::config",
            SDK,
        ],
    ),
];

const WIRE: &str = "tonic|prost|axum|hyper";
const SDK: &str = "redis|redb|aws_|azure_|s3s";

/// The only files that may do these things.
const RESERVED: &[(&str, &[&str])] = &[
    ("std::env::var", &["config"]),
    (
        "tonic::Code",
        &["status.rs", "grpc/convert.rs", "client", "cli"],
    ),
];

#[test]
fn imports_point_inward_only() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        let Some((_, forbidden)) = RULES.iter().find(|(room, _)| file.starts_with(room)) else {
            continue;
        };
        for (number, line) in code(&text) {
            for name in forbidden.iter().flat_map(|names| names.split('|')) {
                if names(&line, name) {
                    broken.push(format!("src/{file}:{number} names {name}: {line}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn what_belongs_to_one_place_stays_there() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        for (what, places) in RESERVED {
            if places.iter().any(|place| file.starts_with(place)) {
                continue;
            }
            let found = code(&text).filter(|(_, line)| line.contains(what));
            broken.extend(
                found.map(|(number, line)| format!("src/{file}:{number} has {what}: {line}")),
            );
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Whether `line` names `name` as a path, `crate::name` or `name::`; adapters' own modules do not count.
fn names(line: &str, name: &str) -> bool {
    if name.starts_with("crate::") {
        return line.contains(name);
    }
    let path = if name.ends_with('_') {
        name.to_owned()
    } else {
        format!("{name}::")
    };
    line.match_indices(&path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before
            .is_some_and(|character| character.is_alphanumeric() || matches!(character, '_' | ':'))
    })
}

/// The lines of code with their numbers; within a `use crate::{…}` each line gets the `crate::` it stands for.
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

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(&root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}
