//! The sweeper of a server, and the command `sweep`.

use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use upload_gateway::config::{Config, StoreConfig};
use upload_gateway_core::upload::{Phase, Upload};

use super::{
    common::TestGateway,
    world::{self, DAY, HOUR, PART, World, settings},
};

/// An upload that a stream left two days ago.
async fn idle_for_two_days(world: &World) -> Upload {
    let storages = world.backends.storages.clone();
    let clock = world.clock.before(2 * DAY);
    let gateway = world.gateway_with(settings(), clock, storages).await;
    world.interrupted(&gateway, PART).await
}

/// Runs `upload-gateway sweep` with this configuration.
fn sweep(config: &Config, arguments: &[&str]) -> Output {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("gateway.toml");
    std::fs::write(&file, config.to_toml()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_upload-gateway"));
    command.env_clear().arg("sweep").args(arguments);
    command.arg("--config").arg(&file);
    // The printed configuration leaves secrets out.
    command.env("UPLOAD_GATEWAY_EMBEDDED__SECRET_ACCESS_KEY", "for-tests");
    for storage in &config.storage {
        if let StoreConfig::S3(s3) = &storage.store {
            let secret = s3.secret_access_key.as_ref().unwrap().expose();
            command.env("UPLOAD_GATEWAY_STORAGE__MEDIA__SECRET_ACCESS_KEY", secret);
        }
    }
    command.output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn a_server_sweeps_by_itself() {
    let Some(world) = world::s3().await else {
        return;
    };
    let upload = idle_for_two_days(&world).await;
    let mut config = world.config.clone();
    config.sweeper.interval_seconds = 1;
    let gateway = TestGateway::over(config).await;
    world::in_time(async {
        while world.get(&upload.id).await.phase == Phase::Open {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // It finishes the pass that it has begun.
    gateway.stop().await;
    let over = world.get(&upload.id).await;
    assert_eq!(over.phase, Phase::Aborted);
    assert!(!world.has_session(&over).await);
    let lease = world.state().lease("sweep", "another replica", HOUR);
    assert!(lease.await.unwrap(), "the lease was released");
}

#[tokio::test]
async fn the_command_sweeps_once_and_a_dry_run_reports_what_it_would_do() {
    let directory = TempDir::new().unwrap();
    let world = world::embedded_in(directory.path()).await;
    let (upload, config) = (idle_for_two_days(&world).await, world.config.clone());
    world.close().await;
    let report = json(&sweep(&config, &["--dry-run", "--json"]));
    assert_eq!(report["expired"], 1);
    let swept = json(&sweep(&config, &["--json"]));
    assert_eq!(
        (&swept["expired"], &swept["failures"]),
        (&1.into(), &0.into())
    );
    let mut keys: Vec<&String> = swept.as_object().unwrap().keys().collect();
    keys.sort();
    let documented = [
        "aborted_sessions",
        "cleared",
        "completed",
        "examined",
        "expired",
        "expired_files",
        "failures",
        "finished_commits",
        "removed_records",
    ];
    assert_eq!(keys, documented);
    let nothing = sweep(&config, &[]);
    let lines = String::from_utf8(nothing.stdout).unwrap();
    assert!(lines.contains("0  uploads expired\n"), "{lines}");
    let world = world::embedded_in(directory.path()).await;
    let over = world.get(&upload.id).await;
    assert_eq!(over.phase, Phase::Aborted);
    assert!(!world.has_session(&over).await);
}

#[tokio::test]
async fn the_command_does_not_sweep_embedded_stores_of_a_running_gateway() {
    let world = world::embedded().await;
    let mut shared = world.config.clone();
    shared.redis_url = Some("redis://127.0.0.1:1".parse().unwrap());
    for (config, expected) in [
        (&world.config, "state.redb open: it sweeps while it runs"),
        (
            &shared,
            "the gateway with the embedded store sweeps it by itself",
        ),
    ] {
        let refused = sweep(config, &[]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(refused.stdout.is_empty());
        assert!(errors(&refused).contains(expected), "{}", errors(&refused));
    }
}

#[tokio::test]
async fn the_command_does_nothing_while_a_replica_sweeps() {
    let Some(world) = world::s3().await else {
        return;
    };
    let upload = idle_for_two_days(&world).await;
    let lease = world.state().lease("sweep", "another replica", HOUR);
    assert!(lease.await.unwrap());
    let refused = sweep(&world.config, &["--json"]);
    assert_eq!(refused.status.code(), Some(1));
    let message = errors(&refused);
    assert!(
        message.contains("another replica sweeps right now"),
        "{message}"
    );
    let release = world.state().release("sweep", "another replica");
    release.await.unwrap();
    assert_eq!(json(&sweep(&world.config, &["--json"]))["expired"], 1);
    assert_eq!(world.get(&upload.id).await.phase, Phase::Aborted);
}
