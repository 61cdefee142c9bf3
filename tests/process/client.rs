//! The client commands of the binary, in a process of their own.

use std::process::Stdio;

use tokio::process::Command;

use crate::common::{TestGateway, binary};

/// The binary against this gateway, with its outputs in pipes; killed when the test ends.
pub(crate) fn command(gateway: &TestGateway, arguments: &[&str]) -> Command {
    let mut command = Command::from(binary());
    command
        .env("UPLOAD_GATEWAY_SERVER", &gateway.grpc)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}
