//! Checks the documentation: its commands run against a real gateway and print what the pages show, its tables agree with
//! the code, and its links point to something.
//!
//! Fences marked `sh` are run, section by section, each section in one shell. The `json` or `text` fence after one is what
//! it prints; `…` matches anything. Fences marked `toml` are loaded as configurations. Fences marked `console` are examples
//! for people and are not run.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

#[path = "../common/lib.rs"]
mod common;

mod calls;
mod levels;
mod links;
mod page;
mod process;
mod run;
mod tables;

use std::fs;

use tempfile::TempDir;
use upload_gateway::config::{self, Config, Flags, S3Profile};

use self::{
    page::{Page, fences, pages},
    run::{Setup, run_section},
};
use common::TestGateway;

/// Makes a test of each section that has commands, and the list of all of them.
macro_rules! sections {
    ($($test:ident: $page:literal, $heading:literal, $setups:ident;)*) => {
        /// The sections whose commands are run.
        const RUN: &[(&str, &str)] = &[$(($page, $heading)),*];

        mod commands_print_what_the_page_shows {
            use super::*;

            $(
                #[tokio::test]
                async fn $test() {
                    for setup in $setups().await {
                        run_section($page, $heading, &setup).await;
                    }
                }
            )*
        }
    };
}

sections! {
    quick_start: "README.md", "Quick start", embedded;
    resume_an_upload: "README.md", "Resume an upload", embedded;
    run_on_redis_and_s3: "README.md", "Run on Redis and S3", redis_and_s3;
    every_call: "docs/grpc.md", "Try every call", embedded_with_grpcurl;
    from_python: "docs/grpc.md", "From Python", embedded_with_python;
    signing_with_grpcurl: "docs/direct-uploads.md", "With grpcurl", every_store;
    signing_with_curl: "docs/direct-uploads.md", "With curl", every_store;
    command_line_uploads: "docs/cli.md", "Upload files", embedded;
    command_line_direct_uploads: "docs/cli.md", "Send a file straight to the store", embedded;
    command_line_downloads: "docs/cli.md", "Download files", embedded;
    command_line_records: "docs/cli.md", "Look at uploads", embedded;
    command_line_changes: "docs/cli.md", "Change uploads", embedded;
    command_line_profiles: "docs/cli.md", "Profiles", embedded;
    command_line_shells: "docs/cli.md", "Shells and terminals", embedded;
    configuration: "docs/configuration.md", "Sources", redis_and_s3;
    storages_from_variables: "docs/configuration.md", "Storages from variables", embedded;
    callers: "docs/callers.md", "Try it", embedded_with_grpcurl;
    limits: "docs/limits.md", "What GetLimits returns", embedded_with_grpcurl;
    faults: "docs/fault-injection.md", "Ask for a fault", with_faults;
    permissions: "docs/operations.md", "Permissions", redis_and_s3;
    health: "docs/operations.md", "Health", embedded_with_grpcurl;
    redis: "docs/operations.md", "Redis", redis_and_s3;
    lost_records: "docs/operations.md", "If the state store loses records", redis_and_s3;
    cleaning_up: "docs/operations.md", "Cleaning up", redis_and_s3;
}

#[test]
fn every_section_with_commands_is_run() {
    let mut found = Vec::new();
    for page in pages() {
        if page.path != "README.md" && !page.path.starts_with("docs/") {
            continue;
        }
        for (heading, text) in page.sections() {
            if fences(text).iter().any(|fence| fence.language == "sh") {
                found.push((page.path.clone(), heading.to_owned()));
            }
        }
    }
    let mut run: Vec<_> = RUN
        .iter()
        .map(|(page, heading)| ((*page).to_owned(), (*heading).to_owned()))
        .collect();
    found.sort();
    run.sort();
    assert_eq!(found, run);
}

#[test]
fn every_configuration_is_accepted() {
    for page in pages() {
        for fence in fences(&page.text) {
            if fence.language == "toml" {
                load(&fence.text);
            }
        }
    }
    let page = Page::read("docs/configuration.md");
    let storages = load(&fences(page.section("Storages"))[0].text);
    assert_eq!(storages.default_storage().unwrap().options.id, "media");
}

#[test]
fn every_make_target_exists() {
    let makefile = include_str!("../../Makefile");
    let text: String = pages().into_iter().map(|page| page.text).collect();
    let spans = text
        .split('`')
        .filter_map(|piece| piece.strip_prefix("make "));
    let lines = text.lines().filter_map(|line| line.strip_prefix("$ make "));
    let targets: Vec<&str> = spans
        .chain(lines)
        .filter_map(|rest| rest.split_whitespace().next())
        .collect();
    for target in &targets {
        assert!(
            makefile.contains(&format!("\n{target}:")),
            "no target {target}"
        );
    }
    assert!(
        targets.contains(&"demo") && targets.contains(&"bench"),
        "{targets:?}"
    );
}

/// The configuration that `toml` is.
fn load(toml: &str) -> Config {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("config.toml");
    fs::write(&file, toml).unwrap();
    config::load(Some(&file), [], &Flags::default())
        .unwrap_or_else(|error| panic!("{error} in\n{toml}"))
}

async fn embedded() -> Vec<Setup> {
    vec![Setup::new(TestGateway::start().await)]
}

async fn embedded_with_grpcurl() -> Vec<Setup> {
    match common::grpcurl() {
        Some(_) => embedded().await,
        None => Vec::new(),
    }
}

async fn embedded_with_python() -> Vec<Setup> {
    match common::python() {
        Some(_) => embedded().await,
        None => Vec::new(),
    }
}

async fn with_faults() -> Vec<Setup> {
    if common::grpcurl().is_none() {
        return Vec::new();
    }
    let gateway = TestGateway::with(|config| {
        config.faults.enabled = true;
        config.faults.allow_in_this_environment = true;
        config.limits.store_retry_timeout_seconds = 1;
    });
    vec![Setup::new(gateway.await)]
}

const RECORD_KEY: &str = r#"
[[records.key]]
id = "1"
key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
"#;

async fn redis_and_s3() -> Vec<Setup> {
    let (Some(redis), Some(s3)) = (common::redis().await, common::s3().await) else {
        return Vec::new();
    };
    let gateway = TestGateway::over(load(&(redis.toml() + &s3.toml() + RECORD_KEY))).await;
    let setup = Setup::new(gateway).with_stores(&redis, &s3);
    vec![setup.holding((redis, s3))]
}

/// On the embedded store, on S3 and on Azure.
async fn every_store() -> Vec<Setup> {
    let (Some(_), Some(redis)) = (common::grpcurl(), common::redis().await) else {
        return Vec::new();
    };
    let (Some(s3), Some(azure)) = (common::s3().await, common::azure().await) else {
        return Vec::new();
    };
    let mut setups = embedded().await;
    for storage in [s3.storage(S3Profile::Compatible), azure.storage()] {
        let config = Config {
            redis_url: Some(redis.url.parse().unwrap()),
            storage: vec![storage],
            ..Config::default()
        };
        setups.push(Setup::new(TestGateway::over(config).await));
    }
    let last = setups.pop().map(|setup| setup.holding((redis, s3, azure)));
    setups.into_iter().chain(last).collect()
}
