//! Files through the gateway, by a client that only sends.

use futures::{future, stream};
use tonic::transport::{Channel, Endpoint};
use upload_gateway_client::proto::v1::{
    Chunk, FileDigest, FileMetadata, Finish, GetLimitsRequest, Open, Phase, Upload, UploadRequest,
    open::Target, upload_request::Message, upload_service_client::UploadServiceClient,
};
use upload_gateway_core::upload::Md5;

use crate::{
    Load, Result,
    payload::{Payload, signed},
};

/// Uploads by several services.
const STREAMS_PER_CONNECTION: usize = 16;

/// Uploads all files of `load` at once. With `file_md5` the gateway keeps a digest of the whole file, which then must be
/// this one.
pub(crate) async fn upload(
    address: &str,
    load: Load,
    payload: &Payload,
    file_md5: Option<Md5>,
) -> Result<Vec<Upload>> {
    let streams = usize::try_from(load.streams)?;
    let mut channels = Vec::new();
    for _ in 0..streams.div_ceil(STREAMS_PER_CONNECTION) {
        channels.push(Endpoint::from_shared(address.to_owned())?.connect().await?);
    }
    upload_over(&channels, load, payload, file_md5).await
}

/// As [`upload`], over connections that exist, one for each [`STREAMS_PER_CONNECTION`] files.
pub(crate) async fn upload_over(
    channels: &[Channel],
    load: Load,
    payload: &Payload,
    file_md5: Option<Md5>,
) -> Result<Vec<Upload>> {
    let streams = usize::try_from(load.streams)?;
    let mut clients: Vec<_> = channels
        .iter()
        .cloned()
        .map(UploadServiceClient::new)
        .collect();
    let limits = clients[0]
        .get_limits(GetLimitsRequest::default())
        .await?
        .into_inner();
    let chunk_size = u64::try_from(limits.preferred_chunk_size)?;
    let files = (0..streams).map(|number| {
        let client = clients[number / STREAMS_PER_CONNECTION].clone();
        let file = tokio::spawn(send(
            client,
            payload.clone(),
            load.file_size,
            chunk_size,
            file_md5,
        ));
        async { file.await? }
    });
    future::try_join_all(files).await
}

/// Uploads one file, in chunks of `chunk_size`.
pub(crate) async fn send(
    client: UploadServiceClient<Channel>,
    payload: Payload,
    file_size: u64,
    chunk_size: u64,
    file_md5: Option<Md5>,
) -> Result<Upload> {
    let file = FileMetadata {
        file_digest: match file_md5 {
            Some(_) => FileDigest::Md5,
            None => FileDigest::None,
        }
        .into(),
        ..FileMetadata::default()
    };
    let file_id = file_md5.map(|md5| md5.to_string());
    send_as(client, payload, file_size, chunk_size, (file, file_id)).await
}

/// As [`send`], a file with this metadata, and with this digest at its end.
pub(crate) async fn send_as(
    mut client: UploadServiceClient<Channel>,
    payload: Payload,
    file_size: u64,
    chunk_size: u64,
    (file, file_id): (FileMetadata, Option<String>),
) -> Result<Upload> {
    let size = signed(file_size)?;
    let file = FileMetadata {
        file_name: "benchmark.bin".to_owned(),
        file_size: Some(size),
        ..file
    };
    let open = Message::Open(Open {
        target: Some(Target::File(file)),
        ..Open::default()
    });
    let chunks = payload.pieces(file_size, chunk_size).map(|(offset, data)| {
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        Message::Chunk(Chunk {
            offset,
            data,
            crc32c: None,
        })
    });
    let finish = Message::Finish(Finish {
        file_size: Some(size),
        file_id,
        crc64nvme: None,
    });
    let messages = [open].into_iter().chain(chunks).chain([finish]);
    let requests = messages.map(|message| UploadRequest {
        message: Some(message),
    });
    let response = client.upload(stream::iter(requests)).await?.into_inner();
    let upload = response.upload.ok_or("an answer without an upload")?;
    let whole = upload
        .object
        .as_ref()
        .is_some_and(|object| object.size == size);
    if upload.phase() != Phase::Complete || !whole {
        return Err(format!("not stored: {upload:?}").into());
    }
    Ok(upload)
}
