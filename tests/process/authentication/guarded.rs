//! A gateway with authentication, and calls of its clients.

use std::{collections::HashMap, fs, path::Path, process::Command};

use bytes::{Buf, BufMut};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;
use upload_gateway_client::{
    Client, ConnectOptions, Source, Target, UploadOptions, proto::v1::Permissions,
};

use crate::common::{self, Server};

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
        let python = common::python()?;
        let server = Server::start(|port, directory| {
            let script =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/authentication/mint.py");
            let minted = Command::new(&python).arg(script).arg(directory).status();
            assert!(minted.unwrap().success());
            let jwks = directory.join("jwks.json");
            let config = format!(
                "auth = \"required\"\n[[issuer]]\nissuer = \"https://issuer.example\"\naudiences = [\"uploads\"]\n\
                 jwks_file = {jwks:?}\ntenant = \"/tenant\"\nroles = \"/roles\"\n{tables}"
            );
            common::serve(&config, port, directory)
        });
        let endpoint = Endpoint::from_shared(format!("http://{}", server.address())).unwrap();
        let tokens = fs::read_to_string(server.directory().join("tokens.json")).unwrap();
        let tokens = serde_json::from_str(&tokens).unwrap();
        Some(Self {
            channel: endpoint.connect_lazy(),
            server,
            tokens,
        })
    }

    /// Makes a unary call, or one with a stream of responses, of which the first is returned.
    pub(super) async fn call(
        &self,
        path: &str,
        credential: Option<&str>,
        message: Vec<u8>,
    ) -> Result<Vec<u8>, Status> {
        let token = credential.map(|name| format!("Bearer {}", self.tokens[name]));
        call(&self.channel, path, token.as_deref(), message).await
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

    /// A complete upload of the owner.
    pub(super) async fn upload(&self, public: bool, permissions: Permissions) -> String {
        let mut target = Target::file("file.bin", 5);
        if let Target::File(file) = &mut target {
            file.public = public;
            file.permissions = permissions.into();
        }
        let source = Source::seekable(std::io::Cursor::new(b"bytes".to_vec()));
        let client = self.client("owner");
        let uploaded = client
            .upload(source, target, &UploadOptions::default(), |_| ())
            .await;
        uploaded.unwrap().upload.upload_id
    }
}

/// A call on an upload.
pub(super) struct Call {
    pub(super) path: &'static str,
    pub(super) message: fn(&str) -> Vec<u8>,
}

pub(super) async fn call(
    channel: &Channel,
    path: &str,
    authorization: Option<&str>,
    message: Vec<u8>,
) -> Result<Vec<u8>, Status> {
    let mut request = Request::new(futures::stream::iter([message]));
    if let Some(value) = authorization {
        request
            .metadata_mut()
            .insert("authorization", value.parse().unwrap());
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
