//! The same files to the same store without the gateway: multipart uploads by `aws-sdk-s3` from this process.

use std::sync::Arc;

use aws_sdk_s3::{
    Client,
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future, stream};
use tokio::sync::Semaphore;
use upload_gateway::config::Limits;
use upload_gateway_core::upload::{Md5, PART_SIZE};

use crate::{Load, Result, payload::Payload, store::Store};

/// Sends files straight to a store.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    client: Client,
    bucket: String,
    /// Shared by all uploads.
    slots: Arc<Semaphore>,
    integrity: Integrity,
}

/// A multipart upload.
#[derive(Debug)]
struct Upload {
    sender: Sender,
    key: String,
    id: String,
}

/// The checksum that the store gets with a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Integrity {
    /// The SDK's defaults.
    Default,
    /// As the gateway does it: the MD5 of the part, and an unsigned payload.
    ContentMd5,
}

/// Uploads all files of `load` at once, with as many parts in flight as the gateway uses, and returns their keys.
pub(crate) async fn upload(
    store: &Store,
    load: Load,
    payload: &Payload,
    integrity: Integrity,
) -> Result<Vec<String>> {
    let sender = Sender::new(store, integrity)?;
    let files = (0..load.streams).map(|number| {
        let (sender, payload) = (sender.clone(), payload.clone());
        let file = tokio::spawn(async move {
            sender
                .in_parts(format!("direct/{number}"), &payload, load.file_size)
                .await
        });
        async { file.await? }
    });
    future::try_join_all(files).await
}

impl Sender {
    /// For all files that share the parts in flight.
    pub(crate) fn new(store: &Store, integrity: Integrity) -> Result<Self> {
        let slots = usize::try_from(Limits::default().parts_in_flight_total)?;
        Ok(Self {
            client: store.client(),
            bucket: store.bucket.clone(),
            slots: Arc::new(Semaphore::new(slots)),
            integrity,
        })
    }

    /// Sends a file as one object, with one request if it fits one part, and returns its key.
    pub(crate) async fn file(&self, key: String, payload: &Payload, size: u64) -> Result<String> {
        match payload.pieces(size, PART_SIZE).next() {
            Some((_, bytes)) if size <= PART_SIZE => {
                let request = self.client.put_object().bucket(&self.bucket).key(&key);
                request.body(ByteStream::from(bytes)).send().await?;
                Ok(key)
            }
            _ => self.in_parts(key, payload, size).await,
        }
    }

    async fn in_parts(&self, key: String, payload: &Payload, size: u64) -> Result<String> {
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(&key)
            .send()
            .await?;
        let id = begun.upload_id.ok_or("a multipart upload without an id")?;
        let sender = self.clone();
        Upload { sender, key, id }.run(payload, size).await
    }
}

impl Upload {
    async fn run(self, payload: &Payload, file_size: u64) -> Result<String> {
        let in_flight = usize::try_from(Limits::default().parts_in_flight)?;
        let mut parts: Vec<CompletedPart> =
            stream::iter((1..).zip(payload.pieces(file_size, PART_SIZE)))
                .map(|(number, (_, bytes))| self.part(number, bytes))
                .buffer_unordered(in_flight)
                .try_collect()
                .await?;
        parts.sort_by_key(CompletedPart::part_number);
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let request = self
            .sender
            .client
            .complete_multipart_upload()
            .bucket(&self.sender.bucket)
            .key(&self.key);
        request
            .upload_id(&self.id)
            .multipart_upload(parts)
            .send()
            .await?;
        Ok(self.key)
    }

    async fn part(&self, number: i32, bytes: Bytes) -> Result<CompletedPart> {
        let _slot = self.sender.slots.acquire().await?;
        let request = self
            .sender
            .client
            .upload_part()
            .bucket(&self.sender.bucket)
            .key(&self.key)
            .upload_id(&self.id);
        let request = request.part_number(number);
        let stored = match self.sender.integrity {
            Integrity::Default => request.body(ByteStream::from(bytes)).send().await?,
            Integrity::ContentMd5 => {
                let hashed = bytes.clone();
                let md5 = tokio::task::spawn_blocking(move || Md5::of(&hashed)).await?;
                let request = request.content_md5(md5.to_string());
                let request = request.body(ByteStream::from(bytes)).customize();
                request.disable_payload_signing().send().await?
            }
        };
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(stored.e_tag)
            .build())
    }
}
