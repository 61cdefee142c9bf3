//! The client commands of the binary, in a process of their own.

use std::process::Stdio;

use tokio::process::Command;
use upload_gateway_client::proto::v1::{ListUploadsRequest, Upload};

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

/// The records of all uploads, without a resume token.
pub(crate) async fn uploads(gateway: &TestGateway) -> Vec<Upload> {
    let mut client = gateway.client().await;
    let mut request = ListUploadsRequest::default();
    let mut uploads = Vec::new();
    loop {
        let page = client.list_uploads(request.clone()).await.unwrap();
        let page = page.into_inner();
        uploads.extend(page.uploads);
        if page.next_page_token.is_empty() {
            return uploads;
        }
        request.page_token = page.next_page_token;
    }
}
