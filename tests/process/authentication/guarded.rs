//! A gateway with authentication, and calls of its clients.

use std::{collections::HashMap, fs, path::Path, process::Command};

use bytes::{Buf, BufMut};
use prost::Message;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;
use upload_gateway_client::{
    Client, ConnectOptions, Source,
    proto::v1::{FileMetadata, Permissions},
};

use crate::common::{self, Server};

impl Drop for Guarded {
    /// Whatever a test does, the log has no secret at debug level, too.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let log = self.server.log();
        assert!(log.contains("DEBUG"), "{log}");
        let secrets = self
            .tokens
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()));
        let signature = ("signed URL", "X-Amz-Signature");
        for (name, secret) in secrets.chain([signature]) {
            if let Some(line) = log
                .lines()
                .find(|line| secret.len() > 10 && line.contains(secret))
            {
                panic!("{name}: {line}");
            }
        }
    }
}

/// How the names of API keys among the credentials end; the others are tokens.
const API_KEY: &str = "api-key";

/// A gateway with authentication, and what its callers present.
pub(super) struct Guarded {
    pub(super) server: Server,
    pub(super) tokens: HashMap<String, String>,
    channel: Channel,
}

/// Messages that are encoded already.
#[derive(Debug, Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).into()))
    }
}

impl Guarded {
    /// `None`: Python is not installed.
    pub(super) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// As [`Guarded::start`], with more tables in the configuration.
    pub(super) fn start_with(tables: &str) -> Option<Self> {
        Self::start_on("", tables)
    }

    /// As [`Guarded::start_with`], with more keys before the tables: those of the state store.
    pub(super) fn start_on(keys: &str, tables: &str) -> Option<Self> {
        let python = common::python()?;
        let server = Server::start(|port, directory| {
            let script =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/authentication/mint.py");
            let minted = Command::new(&python).arg(script).arg(directory).status();
            assert!(minted.unwrap().success());
            let jwks = directory.join("jwks.json");
            let (key, table) = api_key("owner");
            fs::write(directory.join("owner.key"), key).unwrap();
            // The same id had another key before.
            fs::write(directory.join("revoked.key"), api_key("owner").0).unwrap();
            let config = format!(
                "{keys}auth = \"required\"\n[[issuer]]\nissuer = \"https://issuer.example\"\naudiences = [\"uploads\"]\n\
                 jwks_file = {jwks:?}\ntenant = \"/tenant\"\nroles = \"/roles\"\n{table}[log]\nfilter = \"debug\"\n{tables}"
            );
            common::serve(&config, port, directory)
        });
        let tokens = fs::read_to_string(server.directory().join("tokens.json")).unwrap();
        let mut tokens: HashMap<String, String> = serde_json::from_str(&tokens).unwrap();
        for name in ["owner", "revoked"] {
            let key = fs::read_to_string(server.directory().join(format!("{name}.key"))).unwrap();
            tokens.insert(format!("{name}-{API_KEY}"), key.trim().to_owned());
        }
        Some(Self {
            channel: connect(&server),
            server,
            tokens,
        })
    }

    /// Restarts the gateway with another configuration.
    pub(super) fn restart_with(&mut self, config: &str) {
        fs::write(self.server.directory().join("config.toml"), config).unwrap();
        self.server.restart();
        self.channel = connect(&self.server);
    }

    /// Makes a unary call, or one with a stream of responses, of which the first is returned.
    pub(super) async fn call(
        &self,
        path: &str,
        credential: Option<&str>,
        message: Vec<u8>,
    ) -> Result<Vec<u8>, Status> {
        let header = credential.map(|name| self.header(name));
        call(&self.channel, path, header, message).await
    }

    /// The header with a credential.
    pub(super) fn header(&self, credential: &str) -> (&'static str, String) {
        let text = &self.tokens[credential];
        match credential.ends_with(API_KEY) {
            true => ("x-api-key", text.clone()),
            false => ("authorization", format!("Bearer {text}")),
        }
    }

    /// The URL of the uploads on the HTTP port.
    pub(super) fn uploads_url(&self) -> String {
        let http = common::poll(|| {
            let log = self.server.log();
            let mut lines = log.lines();
            let http = lines.find_map(|line| line.strip_prefix("http listening on "));
            http.map(ToOwned::to_owned)
        });
        format!("{}/api/engine/v2/uploads", http.unwrap())
    }

    /// The code and the reason of a call on an upload.
    pub(super) async fn outcome(&self, call: &Call, credential: &str, upload_id: &str) -> String {
        let answer = self
            .call(call.path, Some(credential), (call.message)(upload_id))
            .await;
        match answer {
            Ok(_) => "OK".into(),
            Err(status) => reason(&status),
        }
    }

    pub(super) fn client(&self, credential: &str) -> Client {
        let file = self.server.directory().join(format!("token-{credential}"));
        fs::write(&file, &self.tokens[credential]).unwrap();
        let options = ConnectOptions {
            token_file: Some(file),
            ..ConnectOptions::default()
        };
        Client::connect_with(&format!("http://{}", self.server.address()), &options).unwrap()
    }

    /// Makes a unary call, and decodes the response.
    pub(super) async fn ask<T: Message + Default>(
        &self,
        path: &str,
        credential: &str,
        request: &impl Message,
    ) -> Result<T, String> {
        let path = format!("/uploadgateway.v1.{path}");
        let answer = self.call(&path, Some(credential), request.encode_to_vec());
        match answer.await {
            Ok(bytes) => Ok(T::decode(&*bytes).unwrap()),
            Err(status) => Err(reason(&status)),
        }
    }

    /// A complete upload of the owner.
    pub(super) async fn upload(&self, public: bool, permissions: Permissions) -> String {
        let file = FileMetadata {
            file_size: Some(5),
            public,
            permissions: permissions.into(),
            ..FileMetadata::from("file.bin")
        };
        let source = Source::seekable(std::io::Cursor::new(b"bytes".to_vec()));
        let uploaded = self.client("owner").upload(file, source).await;
        uploaded.unwrap().upload.upload_id
    }
}

/// A new API key of a subject in tenant `a`, and its table of the configuration.
fn api_key(subject: &str) -> (String, String) {
    let made = common::binary()
        .args(["api-key", "--id", "web", "--tenant", "a", "--subject"])
        .arg(subject)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(made.stdout), text(made.stderr))
}

fn connect(server: &Server) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address()));
    endpoint.unwrap().connect_lazy()
}

/// A call on an upload.
pub(super) struct Call {
    pub(super) path: &'static str,
    pub(super) message: fn(&str) -> Vec<u8>,
}

pub(super) async fn call(
    channel: &Channel,
    path: &str,
    header: Option<(&'static str, String)>,
    message: Vec<u8>,
) -> Result<Vec<u8>, Status> {
    let mut request = Request::new(futures::stream::iter([message]));
    if let Some((name, value)) = header {
        let value = value.parse().unwrap();
        request.metadata_mut().insert(name, value);
    }
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::try_from(path).unwrap();
    let mut answers = grpc.streaming(request, path, Bytes).await?.into_inner();
    Ok(answers.message().await?.unwrap_or_default())
}

pub(super) fn reason(status: &Status) -> String {
    match status.get_details_error_info() {
        Some(info) => info.reason,
        None => format!("{:?}", status.code()),
    }
}
