//! A process that runs out of file descriptors.

use std::{net::TcpStream, process::Command, time::Duration};

use tokio::time::timeout;
use upload_gateway_client::proto::v1::{
    GetLimitsRequest, upload_service_client::UploadServiceClient,
};

use crate::common::{self, Server};

/// How many file descriptors the process may open: few more than it needs for itself.
const LIMIT: usize = 96;

#[tokio::test]
async fn silent_connections_make_room_when_there_is_no_free_file_descriptor() {
    let Some(prlimit) = common::find("prlimit") else {
        return;
    };
    let gateway = Server::start(|port, directory| {
        let mut command = Command::new(&prlimit);
        command
            .env_clear()
            .arg(format!("--nofile={LIMIT}:{LIMIT}"))
            .arg(env!("CARGO_BIN_EXE_upload-gateway"))
            .args(["serve", "--http-listen", "127.0.0.1:0", "--grpc-listen"])
            .arg(format!("127.0.0.1:{port}"))
            .arg("--data-dir")
            .arg(directory.join("data"));
        command
    });
    let silent: Vec<_> = (0..2 * LIMIT)
        .map(|_| TcpStream::connect(gateway.address()).unwrap())
        .collect();
    let server = format!("http://{}", gateway.address());
    let call = async {
        let mut client = UploadServiceClient::connect(server).await.unwrap();
        client.get_limits(GetLimitsRequest::default()).await
    };
    // Silent connections would be closed after 10 s in any case.
    let answer = timeout(Duration::from_secs(9), call).await.unwrap();
    answer.unwrap();
    let log = gateway.log();
    let warnings = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert!(
        (1..=3).contains(&warnings("connections cannot be accepted")),
        "{log}"
    );
    assert_eq!(
        warnings(&format!("may open {LIMIT} file descriptors")),
        1,
        "{log}"
    );
    drop(silent);
}
