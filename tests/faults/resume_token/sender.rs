//! A deployment whose Redis loses writes, and a sender that keeps its resume token.

use redis::{Cmd, FromRedisValue};
use tempfile::TempDir;
use tonic::Status;
use upload_gateway::config::{Config, KeyConfig, S3Profile};
use upload_gateway_client::proto::v1::{
    FileDigest, FileMetadata, Finish, Open, Phase, Upload, UploadProgress, UploadRequest,
    open::Target, upload_request::Message,
};
use upload_gateway_core::upload::Md5;

use super::{
    common::{self, Conversation, TestGateway, finish, message},
    stores::read,
};

pub(crate) const PART: usize = 5 * 1024 * 1024;

/// Gateways over one Redis and one storage.
pub(crate) struct Deployment {
    pub(crate) config: Config,
    redis_url: String,
    _backends: Box<dyn Send + Sync>,
}

/// What a sender keeps about its upload.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    pub(crate) upload_id: String,
    pub(crate) token: String,
    pub(crate) committed_size: usize,
}

pub(crate) async fn embedded() -> Option<Deployment> {
    let redis = common::redis().await?;
    let directory = TempDir::new().unwrap();
    let config = Config {
        data_dir: directory.path().join("data"),
        ..Config::default()
    };
    Some(Deployment::new(
        config,
        redis.url.clone(),
        (redis, directory),
    ))
}

pub(crate) async fn s3() -> Option<Deployment> {
    let (redis, s3) = (common::redis().await?, common::s3().await?);
    let config = Config {
        storage: vec![s3.storage(S3Profile::Compatible)],
        ..Config::default()
    };
    Some(Deployment::new(config, redis.url.clone(), (redis, s3)))
}

pub(crate) async fn azure() -> Option<Deployment> {
    let (redis, azure) = (common::redis().await?, common::azure().await?);
    let config = Config {
        storage: vec![azure.storage()],
        ..Config::default()
    };
    Some(Deployment::new(config, redis.url.clone(), (redis, azure)))
}

/// A key of resume tokens whose 32 bytes are all `byte`.
pub(crate) fn key(id: &str, byte: u8) -> KeyConfig {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    KeyConfig {
        id: id.into(),
        key: Some(BASE64_STANDARD.encode([byte; 32]).as_str().into()),
        key_file: None,
    }
}

/// A message that opens an upload with its kept token.
pub(crate) fn open_with(upload_id: &str, token: &str) -> UploadRequest {
    message(Message::Open(Open {
        target: Some(Target::UploadId(upload_id.into())),
        resume_token: token.into(),
        ..Open::default()
    }))
}

/// The last message, with the file's MD5.
pub(crate) fn finish_with_md5(data: &[u8]) -> UploadRequest {
    message(Message::Finish(Finish {
        file_size: None,
        file_id: Some(Md5::of(data).to_string()),
        crc64nvme: None,
    }))
}

pub(crate) fn file(size: Option<usize>) -> FileMetadata {
    FileMetadata {
        file_digest: FileDigest::Md5.into(),
        file_name: "film.mp4".into(),
        file_size: size.map(|size| i64::try_from(size).unwrap()),
        ..FileMetadata::default()
    }
}

/// Checks that the upload is COMPLETE with these bytes in the store, and that its MD5 is proven.
pub(crate) async fn assert_whole(gateway: &TestGateway, upload: Upload, data: &[u8]) {
    assert_eq!(upload.phase(), Phase::Complete);
    assert_eq!(
        upload.object.as_ref().unwrap().md5,
        Md5::of(data).to_string()
    );
    assert!(read(gateway, &upload).await == data);
}

// === impl Deployment ===

impl Deployment {
    fn new(config: Config, redis_url: String, backends: impl Send + Sync + 'static) -> Self {
        let mut config = Config {
            redis_url: Some(redis_url.parse().unwrap()),
            ..config
        };
        config.resume_tokens.keys = vec![key("first", 1)];
        config.limits.store_settle_seconds = 1;
        Self {
            config,
            redis_url,
            _backends: Box::new(backends),
        }
    }

    pub(crate) fn is_azure(&self) -> bool {
        let storage = self.config.storage.first();
        storage.is_some_and(|storage| {
            matches!(storage.store, upload_gateway::config::StoreConfig::Azure(_))
        })
    }

    pub(crate) async fn gateway(&self) -> TestGateway {
        TestGateway::over(self.config.clone()).await
    }

    /// Another gateway; the embedded S3 can be open in only one, so that one is stopped.
    pub(crate) async fn another(&self, gateway: TestGateway) -> TestGateway {
        if self.config.storage.is_empty() {
            gateway.stop().await;
        }
        self.gateway().await
    }

    pub(crate) fn ask<T: FromRedisValue>(&self, command: &Cmd) -> T {
        let client = redis::Client::open(self.redis_url.as_str()).unwrap();
        command
            .query(&mut client.get_connection().unwrap())
            .unwrap()
    }

    /// Removes everything from Redis.
    pub(crate) fn flush(&self) {
        self.ask::<()>(&redis::cmd("FLUSHDB"));
    }

    /// The current content of the only record, by key.
    pub(crate) fn dump(&self) -> Vec<(String, Vec<u8>)> {
        let records: Vec<String> = self.ask(redis::cmd("KEYS").arg("*upload:*"));
        assert_eq!(records.len(), 1, "one record, not {records:?}");
        let dump = |key: String| {
            let value = self.ask(redis::cmd("DUMP").arg(&key));
            (key, value)
        };
        self.record_keys().into_iter().map(dump).collect()
    }

    /// Restores an earlier content of the record.
    pub(crate) fn restore(&self, older: &[(String, Vec<u8>)]) {
        for key in self.record_keys() {
            self.ask::<()>(redis::cmd("DEL").arg(key));
        }
        for (key, dump) in older {
            let restore = redis::cmd("RESTORE")
                .arg(key)
                .arg(0)
                .arg(dump.as_slice())
                .to_owned();
            self.ask::<()>(&restore);
        }
    }

    /// All keys of all records.
    fn record_keys(&self) -> Vec<String> {
        let names = ["upload", "parts", "claims", "receipts"];
        let keys = names
            .map(|name| self.ask::<Vec<String>>(redis::cmd("KEYS").arg(format!("*:{name}:*"))));
        keys.concat()
    }
}

// === impl Kept ===

impl Kept {
    /// Begins an upload and sends `parts` complete parts and a little more; the stream stays open.
    pub(crate) async fn begin(
        gateway: &TestGateway,
        file: FileMetadata,
        data: &[u8],
        parts: usize,
    ) -> (Self, Conversation) {
        let mut stream = gateway.converse().await;
        stream.send(common::open_file(file)).await;
        let mut kept = Self::default();
        kept.keep(&stream.next().await.unwrap());
        stream
            .send_in_chunks(0, &data[..parts * PART + 100], 1 << 20)
            .await;
        kept.follow(&mut stream, parts * PART).await;
        (kept, stream)
    }

    /// Keeps what a message reports.
    pub(crate) fn keep(&mut self, progress: &UploadProgress) {
        self.upload_id.clone_from(&progress.upload_id);
        let committed_size = usize::try_from(progress.committed_size).unwrap();
        let moved = committed_size != self.committed_size || self.token.is_empty();
        self.committed_size = committed_size;
        if progress.phase() == Phase::Open {
            assert_eq!(
                progress.resume_token.is_empty(),
                !moved && progress.upload.is_none(),
                "a token comes with every step of committed_size"
            );
            assert!(progress.resume_token.len() < 1_500);
        }
        if !progress.resume_token.is_empty() {
            self.token.clone_from(&progress.resume_token);
        }
    }

    /// Reads progress until `size` bytes are committed.
    pub(crate) async fn follow(&mut self, stream: &mut Conversation, size: usize) {
        while self.committed_size < size {
            self.keep(&stream.next().await.unwrap());
        }
    }

    /// Opens the upload again.
    pub(crate) async fn open(&mut self, gateway: &TestGateway) -> Result<Conversation, Status> {
        let mut stream = gateway.converse().await;
        stream.send(open_with(&self.upload_id, &self.token)).await;
        let first = stream.next().await?;
        let upload = first.upload.as_ref().unwrap();
        assert_eq!(upload.resume_token, first.resume_token);
        self.keep(&first);
        Ok(stream)
    }

    /// Sends the rest and finishes.
    pub(crate) async fn complete(&self, stream: Conversation, data: &[u8]) -> Upload {
        let rest = &data[self.committed_size..];
        stream
            .send_in_chunks(self.committed_size, rest, 1 << 20)
            .await;
        stream.send(finish()).await;
        stream.end().await.unwrap()
    }
}
