//! A process of hostile clients, at the lowest priority.

use std::{
    env,
    net::SocketAddr,
    process::{Child, Command, ExitCode, Stdio},
};

use super::attacks;

/// The option with which this program attacks instead of measuring.
const OPTION: &str = "--hostile";

/// The variable with the API key of a hostile process.
const API_KEY: &str = "HOSTILE_API_KEY";

/// What is attacked, and how.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    /// The address for gRPC.
    pub(crate) grpc: SocketAddr,
    /// The address for HTTP.
    pub(crate) http: String,
    /// The API key of hostile calls.
    pub(crate) api_key: Option<String>,
    attacks: Vec<String>,
}

/// A process of hostile clients. Killed when this is dropped.
pub(crate) struct Hostile(Child);

// === impl Targets ===

impl Targets {
    /// The addresses of a gateway; `http` is a URL.
    pub(crate) fn new(grpc: SocketAddr, http: String) -> Self {
        let http = http.trim_start_matches("http://").to_owned();
        Self {
            grpc,
            http,
            api_key: None,
            attacks: Vec::new(),
        }
    }

    /// With the API key of hostile calls.
    pub(crate) fn with_api_key(self, api_key: &str) -> Self {
        Self {
            api_key: Some(api_key.to_owned()),
            ..self
        }
    }

    /// The targets in the arguments of a hostile process.
    pub(crate) fn parse(arguments: &[String]) -> Option<Self> {
        let [option, grpc, http, attacks @ ..] = arguments else {
            return None;
        };
        (option == OPTION).then(|| Self {
            grpc: grpc.parse().unwrap(),
            http: http.clone(),
            api_key: env::var(API_KEY).ok(),
            attacks: attacks.to_vec(),
        })
    }
}

// === impl Hostile ===

impl Hostile {
    /// Starts these attacks in a process of their own.
    pub(crate) fn start(targets: &Targets, attacks: &[&str]) -> Self {
        let mut command = Command::new("nice");
        command
            .args(["-n", "19"])
            .arg(env::current_exe().unwrap())
            .args([OPTION, &targets.grpc.to_string(), &targets.http])
            .args(attacks)
            .stdin(Stdio::null());
        if let Some(api_key) = &targets.api_key {
            command.env(API_KEY, api_key);
        }
        Self(command.spawn().unwrap())
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        // Fails if the process has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Attacks until this process is killed.
pub(crate) async fn attack(targets: Targets) -> ExitCode {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    // With fewer descriptors there are fewer hostile connections.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
    let running: Vec<_> = targets
        .attacks
        .iter()
        .map(|attack| tokio::spawn(attacks::run(attack.clone(), targets.clone())))
        .collect();
    futures::future::join_all(running).await;
    ExitCode::SUCCESS
}
