//! The tables of errors, keys, limits and faults agree with the code.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path,
};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use upload_gateway::{
    config::{ByteSize, Config},
    status,
};
use upload_gateway_client::{
    Client, ClientError,
    proto::v1::{ErrorReason, Limits},
};
use upload_gateway_core::{error::Kind, faults::Plan};

use super::{
    common::TestGateway,
    page::{Page, code},
    run::repository,
};

const ERRORS: &str = "docs/errors.md";

#[test]
fn the_error_table_has_the_codes_and_statuses_of_the_code() {
    let rows = Page::read(ERRORS).table(&["code", "reason"]);
    for (name, grpc, kind) in codes() {
        assert_eq!(status::row(kind).code, grpc, "{name}");
        let mut rows = rows.iter().filter(|row| row[0] == name).peekable();
        assert!(rows.peek().is_some(), "no {name}");
        for row in rows {
            let http = match row[1].as_str() {
                "FILE_TOO_LARGE" => 413,
                "SESSION_IN_USE" => 409,
                _ => status::row(kind).http,
            };
            assert_eq!(row[2], http.to_string(), "{name} {}", row[1]);
        }
    }
}

#[test]
fn the_error_table_has_the_reasons_of_the_proto() {
    let rows = Page::read(ERRORS).table(&["code", "reason"]);
    let in_table: BTreeSet<&str> = rows
        .iter()
        .map(|row| row[1].as_str())
        .filter(|name| !name.is_empty())
        .collect();
    let in_proto = (1..).map_while(|number| ErrorReason::try_from(number).ok());
    let in_proto: BTreeSet<&str> = in_proto.map(ErrorReason::name).collect();
    assert_eq!(in_table, in_proto);
}

#[test]
fn the_error_table_says_resume_if_the_client_resumes() {
    let codes = HashMap::from(codes().map(|(name, code, _)| (name, code)));
    for row in Page::read(ERRORS).table(&["code", "reason"]) {
        let (reason, next) = (row[1].as_str(), row[4].as_str());
        if reason.is_empty() {
            continue;
        }
        let details = ErrorDetails::with_error_info(reason, status::ERROR_DOMAIN, HashMap::new());
        let answer = Status::with_error_details(codes[row[0].as_str()], "no", details);
        assert_eq!(
            ClientError::from(answer).is_resumable(),
            next.starts_with("resume"),
            "{reason}: {next}"
        );
        let words = ["resume", "retry", "create", "fix", "stop"];
        assert!(
            words.iter().any(|word| next.starts_with(word)),
            "{reason}: {next}"
        );
    }
}

#[test]
fn every_reason_on_a_page_is_in_the_error_table() {
    let rows = Page::read(ERRORS).table(&["code", "reason"]);
    let page = Page::read("docs/client-guide.md");
    for row in page.table(&["the error"]) {
        for name in row[0].split(|character: char| !matches!(character, 'A'..='Z' | '_')) {
            let is_code = ["UNKNOWN", "CANCELLED"].contains(&name);
            let is_known = rows.iter().any(|row| row[0] == name || row[1] == name);
            assert!(!name.contains('_') || is_code || is_known, "{name}");
        }
    }
}

#[test]
fn the_configuration_table_has_the_defaults() {
    for row in Page::read("docs/configuration.md").table(&["key", "default"]) {
        let key = code(&row[0]).unwrap();
        assert_eq!(row[1], default(key), "{key}");
    }
}

#[test]
fn the_storage_table_has_the_keys_of_the_example() {
    let example = include_str!("../../deploy/config.example.toml");
    let rows = Page::read("docs/configuration.md").table(&["key of a storage"]);
    let known: Vec<&str> = rows
        .iter()
        .flat_map(|row| row[0].split('`').skip(1).step_by(2))
        .collect();
    let (_, storages) = example.split_once("#[[storage]]").unwrap();
    let keys = storages
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once(" = "));
    for (key, _) in keys.filter(|(key, _)| !key.starts_with(' ') && !key.ends_with("_file")) {
        assert!(known.contains(&key), "no row for {key}");
    }
    for key in known {
        assert!(
            storages.contains(&format!("\n#{key} = ")),
            "there is no key {key}"
        );
    }
}

#[test]
fn the_limits_of_streams_and_owners_are_the_defaults_of_their_keys() {
    let page = Page::read("docs/limits.md");
    let streams = page.table(&["limit", "default", "set by"]);
    let owners = page.table(&["field of `per_owner`", "default", "set by"]);
    assert_eq!(owners.len(), 5);
    for row in streams.iter().chain(&owners) {
        if let (Some(shown), Some(key)) = (code(&row[1]), code(&row[2])) {
            assert_eq!(format!("`{shown}`"), default(key), "{key}");
        }
    }
}

#[tokio::test]
async fn the_limits_are_those_that_the_gateway_returns() {
    let gateway = TestGateway::start().await;
    let client = Client::connect(&gateway.grpc).unwrap();
    let limits = client.limits("").await.unwrap();
    let mut rows: BTreeMap<String, u64> = Page::read("docs/limits.md")
        .table(&["field", "default"])
        .iter()
        .map(|row| {
            let size: ByteSize = code(&row[1]).unwrap().parse().unwrap();
            (code(&row[0]).unwrap().to_owned(), size.0)
        })
        .collect();
    let Limits {
        storage_id: _,
        residence: _,
        max_file_size,
        max_unknown_file_size,
        part_size,
        max_single_put_size,
        max_message_size,
        preferred_chunk_size,
        idle_timeout_seconds,
        expiry_seconds,
        min_rate,
        min_rate_seconds,
        max_connections,
        max_calls_per_connection,
        max_calls,
        max_downloads,
        max_lists,
        max_watches,
        max_open_uploads,
        max_tags,
        max_tag_size,
        per_owner,
    } = limits;
    assert_eq!(per_owner, None, "without authentication");
    for (field, value) in [
        ("max_file_size", max_file_size),
        ("max_unknown_file_size", max_unknown_file_size),
        ("part_size", part_size),
        ("max_single_put_size", max_single_put_size),
        ("max_message_size", max_message_size),
        ("preferred_chunk_size", preferred_chunk_size),
        ("idle_timeout_seconds", idle_timeout_seconds),
        ("expiry_seconds", expiry_seconds),
        ("min_rate", min_rate),
        ("min_rate_seconds", min_rate_seconds),
        ("max_connections", max_connections.into()),
        ("max_calls_per_connection", max_calls_per_connection.into()),
        ("max_calls", max_calls.into()),
        ("max_downloads", max_downloads.into()),
        ("max_lists", max_lists.into()),
        ("max_watches", max_watches.into()),
        ("max_open_uploads", max_open_uploads),
        ("max_tags", max_tags.into()),
        ("max_tag_size", max_tag_size.into()),
    ] {
        assert_eq!(rows.remove(field), u64::try_from(value).ok(), "{field}");
    }
    assert!(rows.is_empty(), "{rows:?}");
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let boundaries = Page::read("SECURITY.md").table(&[
        "boundary",
        "what crosses it",
        "threat",
        "guard",
        "test",
    ]);
    let mut sources = String::new();
    for directory in ["tests", "src", "crates", "fuzz/checks"] {
        add_sources(&repository().join(directory), &mut sources);
    }
    assert!(boundaries.len() >= 10);
    for row in &boundaries {
        let tests: Vec<_> = row[4].split(", ").filter_map(code).collect();
        assert!(!tests.is_empty(), "{row:?}");
        for test in tests {
            let is_there =
                sources.contains(&format!("fn {test}(")) || sources.contains(&format!("{test:?}"));
            assert!(is_there, "there is no test {test}");
        }
    }
}

/// Appends all Rust files below a directory.
fn add_sources(directory: &Path, sources: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_fault_of_the_table_is_understood() {
    for row in Page::read("docs/fault-injection.md").table(&["fault"]) {
        for fault in row[0].split(", ") {
            let fault = fault.trim_matches('`');
            assert!(Plan::parse(fault).is_ok(), "{fault} is not understood");
        }
    }
}

/// A key's default as tables show it.
fn default(key: &str) -> String {
    let defaults: toml::Value = toml::from_str(&Config::default().to_toml()).unwrap();
    let value = key
        .split('.')
        .try_fold(&defaults, |value, name| value.get(name));
    match value {
        Some(toml::Value::String(text)) => format!("`{text}`"),
        Some(value) => format!("`{value}`"),
        // Every key without a default is in the commented example.
        None => {
            let (_, name) = key.rsplit_once('.').unwrap_or(("", key));
            let example = include_str!("../../deploy/config.example.toml");
            assert!(example.contains(&format!("\n#{name} = ")), "no key {key}");
            "none".into()
        }
    }
}

/// The codes by name, and the kinds of errors that have them.
fn codes() -> [(&'static str, Code, Kind); 13] {
    [
        (
            "INVALID_ARGUMENT",
            Code::InvalidArgument,
            Kind::InvalidArgument,
        ),
        ("OUT_OF_RANGE", Code::OutOfRange, Kind::OutOfRange),
        ("NOT_FOUND", Code::NotFound, Kind::NotFound),
        (
            "FAILED_PRECONDITION",
            Code::FailedPrecondition,
            Kind::FailedPrecondition,
        ),
        ("ABORTED", Code::Aborted, Kind::Aborted),
        ("DATA_LOSS", Code::DataLoss, Kind::DataLoss),
        (
            "RESOURCE_EXHAUSTED",
            Code::ResourceExhausted,
            Kind::ResourceExhausted,
        ),
        ("UNAVAILABLE", Code::Unavailable, Kind::Unavailable),
        (
            "DEADLINE_EXCEEDED",
            Code::DeadlineExceeded,
            Kind::DeadlineExceeded,
        ),
        (
            "PERMISSION_DENIED",
            Code::PermissionDenied,
            Kind::PermissionDenied,
        ),
        (
            "UNAUTHENTICATED",
            Code::Unauthenticated,
            Kind::Unauthenticated,
        ),
        ("UNIMPLEMENTED", Code::Unimplemented, Kind::Unimplemented),
        ("INTERNAL", Code::Internal, Kind::Internal),
    ]
}
