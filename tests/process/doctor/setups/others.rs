//! Set-ups with embedded stores, invalid configurations, and addresses that callers cannot use.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::Setups;
use crate::common::{free_port, gateway_process, poll};

pub(super) fn setups() -> Setups {
    let mut setups = Setups::default();
    setups.add("a key is misspelt", "[limits]\nmemory_budgett = \"1GiB\"\n");
    setups.add(
        "the secret access key is not set",
        "[[storage]]\nid = \"media\"\nkind = \"s3\"\nbucket = \"media\"\naccess_key_id = \"a\"\n",
    );
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let below = file.join("data");
    setups.add(
        "`data_dir` cannot be created",
        format!("data_dir = \"{}\"\n", below.display()),
    );
    setups.add(
        "`ca_file` has no certificate",
        format!(
            "[[storage]]\nid = \"media\"\nkind = \"s3\"\nbucket = \"media\"\nca_file = \"{}\"\n",
            file.display()
        ),
    );

    let gateway = gateway_process("");
    setups.add(
        "a gateway uses `data_dir`",
        format!(
            "data_dir = \"{}\"\n",
            gateway.directory().join("data").display()
        ),
    );
    let grpc = format!("http://{}", gateway.address());
    let http = poll(|| http_of(&gateway.log())).expect("it listens");
    let closed = format!("http://127.0.0.1:{}", free_port());
    setups.add_with(
        "no gateway listens at the address of callers",
        "",
        &["--server", &closed],
    );
    let https = grpc.replace("http://", "https://");
    setups.add_with(
        "callers use TLS and the gateway does not",
        "",
        &["--server", &https],
    );
    let elsewhere = format!("{http}/elsewhere");
    setups.add_with(
        "the address of callers leads to another path",
        "",
        &["--server", &elsewhere],
    );
    setups.add(
        "the limits need more memory than the container has",
        "[limits]\nmemory_budget = \"1GiB\"\n",
    );
    let last = setups.all.last_mut().unwrap();
    last.within = container(directory.path());
    last.is_possible = may_mount();
    setups.keep((gateway, directory));
    setups
}

/// The address of the HTTP port in the log of a gateway.
fn http_of(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("http listening on http://")?;
    let address = rest.split_whitespace().next()?;
    Some(format!("http://{address}"))
}

/// Whether this machine lets its users have mounts of their own.
fn may_mount() -> bool {
    let mut unshare = std::process::Command::new("unshare");
    let tried = unshare
        .args(["--map-root-user", "--mount", "true"])
        .status();
    tried.is_ok_and(|status| status.success())
}

/// A command that runs another one where it sees a memory limit of 512 MiB, as in a container.
fn container(directory: &Path) -> Vec<String> {
    let groups = directory.join("cgroup");
    fs::create_dir_all(groups.join("memory")).unwrap();
    // Version 2 and version 1.
    for file in ["memory.max", "memory/memory.limit_in_bytes"] {
        fs::write(groups.join(file), "536870912\n").unwrap();
    }
    let script = format!(
        "mount --bind '{}' /sys/fs/cgroup && exec \"$@\"",
        groups.display()
    );
    [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        &script,
        "sh",
    ]
    .map(str::to_owned)
    .into()
}
