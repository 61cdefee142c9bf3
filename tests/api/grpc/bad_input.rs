//! Mistakes of senders: each is answered with a typed error, the connection stays usable, and nothing committed is
//! lost.

mod content;
mod requests;
mod violations;

use tonic::Status;
use tonic_types::StatusExt;
use upload_gateway_client::proto::v1::{
    FileMetadata, GetLimitsRequest, Phase, Upload, UploadRequest,
};

use crate::common::{TestGateway, bytes, chunk, finish, open, open_known};

const PART: usize = 5 * 1024 * 1024;

/// Sends the messages over a new connection, checks that the connection stays usable, and returns the error.
async fn refused(gateway: &TestGateway, messages: Vec<UploadRequest>) -> Status {
    let mut client = gateway.client().await;
    let status = client
        .upload(tokio_stream::iter(messages))
        .await
        .expect_err("a refusal");
    client
        .get_limits(GetLimitsRequest::default())
        .await
        .expect("the connection is still usable");
    status
}

fn file(name: &str) -> FileMetadata {
    FileMetadata {
        file_name: name.into(),
        ..FileMetadata::default()
    }
}

fn fields(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request().expect("the fields");
    details
        .field_violations
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}

fn metadata(status: &Status, key: &str) -> String {
    status
        .get_details_error_info()
        .unwrap()
        .metadata
        .remove(key)
        .unwrap_or_default()
}

/// An upload with one committed part, and the bytes sent.
async fn with_one_part(gateway: &TestGateway, size: Option<usize>) -> (String, Vec<u8>) {
    let data = bytes(2 * PART);
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", size)).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    stream.send_in_chunks(0, &data[..PART], 1 << 20).await;
    stream.committed(PART).await;
    (upload_id, data)
}

/// Checks that the upload is unchanged: OPEN, with one part, and it can be finished.
async fn assert_unchanged(gateway: &TestGateway, upload_id: &str, data: &[u8]) -> Upload {
    let upload = gateway.get(upload_id).await.unwrap();
    assert_eq!(
        (upload.phase(), upload.committed_size),
        (Phase::Open, i64::try_from(PART).unwrap())
    );
    let tail = PART + 10;
    let size = upload
        .file
        .unwrap()
        .file_size
        .map_or(tail, |size| usize::try_from(size).unwrap());
    let mut messages = vec![open_known(upload_id)];
    messages.extend(
        data[PART..size]
            .chunks(1 << 20)
            .enumerate()
            .map(|(index, piece)| chunk(PART + (index << 20), piece)),
    );
    messages.push(finish());
    let finished = gateway.upload(messages).await.unwrap();
    assert_eq!(gateway.read(&finished).await, &data[..size]);
    finished
}
