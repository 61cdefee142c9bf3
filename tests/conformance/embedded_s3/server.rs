//! The server under test, and an S3 client for it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use md5::{Digest, Md5};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use upload_gateway::embedded_s3::{EmbeddedS3, EmbeddedS3Config};

pub(crate) const BUCKET: &str = "uploads";
pub(crate) const KEY: &str = "media/some upload/später & mehr?.bin";
/// The origin of the pages that may call it.
pub(crate) const ORIGIN: &str = "https://app.example";
pub(crate) const MIB: usize = 1 << 20;

pub(crate) struct Directory(std::path::PathBuf);

pub(crate) struct TestServer {
    pub(crate) server: EmbeddedS3,
    pub(crate) client: Client,
    pub(crate) endpoint: String,
    pub(crate) directory: Directory,
    /// Contains `directory`, and nothing else if the server is correct.
    pub(crate) root: TempDir,
}

impl Directory {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_in(root: TempDir) -> Self {
        let directory = Directory(root.path().join("store"));
        let server = EmbeddedS3::start(config(directory.path())).await.unwrap();
        let endpoint = server.endpoint();
        let client = client(&endpoint, "embedded", "secret");
        Self {
            server,
            client,
            endpoint,
            directory,
            root,
        }
    }

    /// Stops the server, calls `meddle` to change its directory, and starts another server on it.
    pub(crate) async fn restart(self, meddle: impl FnOnce(&Path)) -> Self {
        self.server.stop().await;
        meddle(self.directory.path());
        Self::start_in(self.root).await
    }

    pub(crate) fn config(&self) -> EmbeddedS3Config {
        config(self.directory.path())
    }

    pub(crate) async fn create(&self) -> String {
        let create = self
            .client
            .create_multipart_upload()
            .bucket(BUCKET)
            .key(KEY)
            .content_type("video/mp4");
        let create = create
            .content_disposition("attachment")
            .metadata("upload_id", "uploads-1");
        create.send().await.unwrap().upload_id().unwrap().to_owned()
    }

    pub(crate) async fn try_part(
        &self,
        upload_id: &str,
        number: i32,
        body: &[u8],
        digest: String,
    ) -> Result<String, String> {
        let part = self
            .client
            .upload_part()
            .bucket(BUCKET)
            .key(KEY)
            .upload_id(upload_id)
            .part_number(number);
        let answer = part
            .content_md5(digest)
            .body(body.to_vec().into())
            .send()
            .await;
        code(answer).map(|answer| answer.e_tag().unwrap().to_owned())
    }

    pub(crate) async fn put_part(&self, upload_id: &str, number: i32, body: &[u8]) -> String {
        self.try_part(upload_id, number, body, BASE64_STANDARD.encode(md5(body)))
            .await
            .unwrap()
    }

    pub(crate) async fn parts(&self, upload_id: &str) -> Result<Vec<(i32, String, i64)>, String> {
        let answer = self
            .client
            .list_parts()
            .bucket(BUCKET)
            .key(KEY)
            .upload_id(upload_id)
            .send()
            .await;
        let parts = code(answer)?.parts.unwrap_or_default();
        Ok(parts
            .into_iter()
            .map(|part| {
                (
                    part.part_number.unwrap(),
                    part.e_tag.unwrap(),
                    part.size.unwrap(),
                )
            })
            .collect())
    }

    pub(crate) async fn complete(
        &self,
        upload_id: &str,
        parts: Vec<CompletedPart>,
    ) -> Result<
        aws_sdk_s3::operation::complete_multipart_upload::CompleteMultipartUploadOutput,
        String,
    > {
        let list = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let complete = self
            .client
            .complete_multipart_upload()
            .bucket(BUCKET)
            .key(KEY)
            .upload_id(upload_id);
        code(complete.multipart_upload(list).send().await)
    }

    pub(crate) async fn complete_if_absent(
        &self,
        upload_id: &str,
        parts: Vec<CompletedPart>,
    ) -> Result<
        aws_sdk_s3::operation::complete_multipart_upload::CompleteMultipartUploadOutput,
        String,
    > {
        let list = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let complete = self
            .client
            .complete_multipart_upload()
            .bucket(BUCKET)
            .key(KEY)
            .upload_id(upload_id);
        code(
            complete
                .multipart_upload(list)
                .if_none_match("*")
                .send()
                .await,
        )
    }

    pub(crate) async fn upload(&self, parts: &[Bytes]) {
        let upload_id = self.create().await;
        let mut named = Vec::new();
        for (number, part) in (1..).zip(parts) {
            named.push(part_named(
                number,
                &self.put_part(&upload_id, number, part).await,
            ));
        }
        self.complete(&upload_id, named).await.unwrap();
    }

    pub(crate) async fn abort(&self, upload_id: &str) -> Result<(), String> {
        let abort = self
            .client
            .abort_multipart_upload()
            .bucket(BUCKET)
            .key(KEY)
            .upload_id(upload_id);
        code(abort.send().await).map(|_| ())
    }

    pub(crate) async fn open_uploads(&self) -> Vec<String> {
        let answer = self
            .client
            .list_multipart_uploads()
            .bucket(BUCKET)
            .send()
            .await
            .unwrap();
        answer
            .uploads
            .unwrap_or_default()
            .into_iter()
            .filter_map(|upload| upload.upload_id)
            .collect()
    }

    /// Sends the head of a put over a new connection; the caller sends the body.
    pub(crate) async fn begin_put(&self, content_length: usize) -> TcpStream {
        let expiry = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
        let signed = self
            .client
            .put_object()
            .bucket(BUCKET)
            .key(KEY)
            .presigned(expiry)
            .await
            .unwrap();
        let address = self.endpoint.strip_prefix("http://").unwrap();
        let target = signed.uri().strip_prefix(&self.endpoint).unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "PUT {target} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {content_length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    pub(crate) async fn read_key(&self, key: &str) -> Result<Vec<u8>, String> {
        let get = self
            .client
            .get_object()
            .bucket(BUCKET)
            .key(key)
            .send()
            .await;
        Ok(code(get)?.body.collect().await.unwrap().to_vec())
    }

    pub(crate) async fn read(&self, range: Option<&str>) -> Result<Vec<u8>, String> {
        let get = self
            .client
            .get_object()
            .bucket(BUCKET)
            .key(KEY)
            .set_range(range.map(str::to_owned));
        Ok(code(get.send().await)?
            .body
            .collect()
            .await
            .unwrap()
            .to_vec())
    }
}

pub(crate) fn config(directory: &Path) -> EmbeddedS3Config {
    EmbeddedS3Config {
        directory: directory.to_owned(),
        cors_origins: vec![ORIGIN.parse().unwrap()],
        listen: ([127, 0, 0, 1], 0).into(),
        bucket: BUCKET.to_owned(),
        access_key_id: "embedded".to_owned(),
        secret_access_key: "secret".into(),
    }
}

pub(crate) fn settings(
    endpoint: &str,
    access_key_id: &str,
    secret_access_key: &str,
) -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(
            access_key_id,
            secret_access_key,
            None,
            None,
            "test",
        ))
        .force_path_style(true)
        .http_client(crate::common::sdk_http_client())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
}

pub(crate) fn client(endpoint: &str, access_key_id: &str, secret_access_key: &str) -> Client {
    Client::from_conf(settings(endpoint, access_key_id, secret_access_key).build())
}

/// The S3 error code of a failed call.
pub(crate) fn code<T, E: ProvideErrorMetadata + std::fmt::Debug>(
    answer: Result<T, SdkError<E>>,
) -> Result<T, String> {
    answer.map_err(|error| {
        error
            .code()
            .map_or_else(|| format!("{error:?}"), str::to_owned)
    })
}

pub(crate) fn part_named(number: i32, etag: &str) -> CompletedPart {
    CompletedPart::builder()
        .part_number(number)
        .e_tag(etag)
        .build()
}

/// Bytes that differ for each seed and each offset.
pub(crate) fn content(seed: i32, size: usize) -> Bytes {
    let seed = u64::from(seed.unsigned_abs());
    let words = (0..size.div_ceil(8) as u64)
        .map(|index| (index + seed * 1_000_003).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(size);
    bytes.into()
}

pub(crate) fn md5(bytes: &[u8]) -> Vec<u8> {
    Md5::digest(bytes).to_vec()
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

pub(crate) fn temporary_files(directory: &Path) -> usize {
    fs::read_dir(directory.join("temporary")).unwrap().count()
}

pub(crate) fn part_files(directory: &Path) -> usize {
    let uploads = fs::read_dir(directory.join("parts")).unwrap();
    uploads
        .map(|upload| fs::read_dir(upload.unwrap().path()).unwrap().count())
        .sum()
}
