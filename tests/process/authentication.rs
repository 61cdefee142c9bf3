//! Who may call, over the process: tokens of PyJWT, certificates of openssl, API keys, and what a caller without one gets.

use std::{collections::HashMap, fs, path::Path, process::Command};

use bytes::{Buf, BufMut};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_types::StatusExt;
use upload_gateway::proto::FILE_DESCRIPTOR_SET;
use upload_gateway_client::{
    Client, ConnectOptions, Source, Target, UploadOptions,
    proto::v1::{
        CompleteUploadRequest, CreateUploadRequest, DeleteUploadRequest, FileMetadata,
        GetLimitsRequest, GetUploadRequest, Limits, ListUploadsRequest, ListUploadsResponse,
        Permissions, SignDownloadRequest, SignPartRequest, SignedStep, Upload, WatchUploadRequest,
    },
};

use crate::common::{self, Server};

/// A gateway with authentication, and what its callers present.
struct Guarded {
    server: Server,
    tokens: HashMap<String, String>,
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
    fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// As [`Guarded::start`], with more tables in the configuration.
    fn start_with(tables: &str) -> Option<Self> {
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
            serve(&config, port, directory)
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
    async fn call(
        &self,
        path: &str,
        credential: Option<&str>,
        message: Vec<u8>,
    ) -> Result<Vec<u8>, Status> {
        let token = credential.map(|name| format!("Bearer {}", self.tokens[name]));
        call(&self.channel, path, token.as_deref(), message).await
    }

    /// The code and the reason of a call on an upload.
    async fn outcome(&self, call: &Call, credential: &str, upload_id: &str) -> String {
        let answer = self
            .call(call.path, Some(credential), (call.message)(upload_id))
            .await;
        match answer {
            Ok(_) => "OK".into(),
            Err(status) => reason(&status),
        }
    }

    fn client(&self, credential: &str) -> Client {
        let file = self.server.directory().join(format!("token-{credential}"));
        fs::write(&file, &self.tokens[credential]).unwrap();
        let options = ConnectOptions {
            token_file: Some(file),
            ..ConnectOptions::default()
        };
        Client::connect_with(&format!("http://{}", self.server.address()), &options).unwrap()
    }

    /// A complete upload of the owner.
    async fn upload(&self, public: bool, permissions: Permissions) -> String {
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
struct Call {
    path: &'static str,
    message: fn(&str) -> Vec<u8>,
}

fn serve(config: &str, port: u16, directory: &Path) -> Command {
    let file = directory.join("config.toml");
    fs::write(&file, config).unwrap();
    let mut command = common::binary();
    command
        .args(["serve", "--http-listen", "127.0.0.1:0", "--grpc-listen"])
        .arg(format!("127.0.0.1:{port}"))
        .arg("--data-dir")
        .arg(directory.join("data"))
        .arg("--config")
        .arg(file);
    command
}

async fn call(
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

fn reason(status: &Status) -> String {
    match status.get_details_error_info() {
        Some(info) => info.reason,
        None => format!("{:?}", status.code()),
    }
}

/// The paths of all calls of the API.
fn paths() -> Vec<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut paths = Vec::new();
    for file in &set.file {
        for service in file
            .service
            .iter()
            .filter(|_| file.package() == "uploadgateway.v1")
        {
            let method = |method: &prost_types::MethodDescriptorProto| {
                format!("/uploadgateway.v1.{}/{}", service.name(), method.name())
            };
            paths.extend(service.method.iter().map(method));
        }
    }
    assert!(paths.len() >= 15, "{paths:?}");
    paths
}

#[tokio::test]
async fn every_call_needs_a_valid_credential() {
    let Some(guarded) = Guarded::start() else {
        return;
    };
    let invalid = guarded.tokens.keys().filter(|name| {
        ![
            "owner",
            "same-tenant",
            "support",
            "admin",
            "operator",
            "other",
        ]
        .iter()
        .any(|valid| name.starts_with(valid))
    });
    let invalid: Vec<&str> = invalid.map(String::as_str).collect();
    assert!(invalid.len() >= 15, "{invalid:?}");
    let mut reflection: Vec<String> = ["v1", "v1alpha"]
        .map(|version| format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"))
        .into();
    reflection.extend(paths());
    for path in reflection {
        let status = guarded.call(&path, None, Vec::new()).await.unwrap_err();
        assert_eq!(reason(&status), "CREDENTIAL_MISSING", "{path}");
        assert_eq!(status.code(), Code::Unauthenticated);
        for name in &invalid {
            let status = guarded.call(&path, Some(name), Vec::new()).await;
            let status = status.unwrap_err();
            let expected = match *name {
                "expired" => "CREDENTIAL_EXPIRED",
                // The file may have been replaced just now.
                "unknown-key" if status.code() == Code::Unavailable => "ISSUER_UNAVAILABLE",
                _ => "CREDENTIAL_INVALID",
            };
            assert_eq!(reason(&status), expected, "{path} {name}");
            assert!(
                !status.message().contains("audience"),
                "{}",
                status.message()
            );
        }
    }
    let health = "/grpc.health.v1.Health/Check";
    guarded.call(health, None, Vec::new()).await.unwrap();
}

#[tokio::test]
async fn tokens_of_all_algorithms_name_the_same_principal() {
    let Some(guarded) = Guarded::start() else {
        return;
    };
    let id = guarded.upload(false, Permissions::None).await;
    for name in [
        "owner",
        "owner-ec",
        "owner-ed",
        "owner-within-leeway",
        "owner-several-audiences",
    ] {
        let found = guarded
            .call(
                "/uploadgateway.v1.UploadService/GetUpload",
                Some(name),
                get(&id),
            )
            .await;
        assert_eq!(
            Upload::decode(&*found.unwrap()).unwrap().upload_id,
            id,
            "{name}"
        );
    }
}

fn get(id: &str) -> Vec<u8> {
    let upload_id = id.into();
    GetUploadRequest { upload_id }.encode_to_vec()
}

const CALLS: [Call; 6] = [
    Call {
        path: "/uploadgateway.v1.UploadService/GetUpload",
        message: get,
    },
    Call {
        path: "/uploadgateway.v1.UploadService/WatchUpload",
        message: |id| {
            let upload_id = id.into();
            WatchUploadRequest { upload_id }.encode_to_vec()
        },
    },
    Call {
        path: "/uploadgateway.v1.SigningService/SignPart",
        message: |id| {
            let request = SignPartRequest {
                upload_id: id.into(),
                part: 1,
                file_id: "1B2M2Y8AsgTpgAmY7PhCfg==".into(),
            };
            request.encode_to_vec()
        },
    },
    Call {
        path: "/uploadgateway.v1.SigningService/CompleteUpload",
        message: |id| {
            let upload_id = id.into();
            CompleteUploadRequest { upload_id }.encode_to_vec()
        },
    },
    Call {
        path: "/uploadgateway.v1.SigningService/SignDownload",
        message: |id| {
            let request = SignDownloadRequest {
                upload_id: id.into(),
                ..SignDownloadRequest::default()
            };
            request.encode_to_vec()
        },
    },
    Call {
        path: "/uploadgateway.v1.UploadService/DeleteUpload",
        message: |id| {
            let upload_id = id.into();
            DeleteUploadRequest { upload_id }.encode_to_vec()
        },
    },
];

#[tokio::test]
async fn roles_decide_what_others_do_with_an_upload() {
    let Some(guarded) = Guarded::start() else {
        return;
    };
    let (not_found, missing) = ("UPLOAD_NOT_FOUND", "ROLE_MISSING");
    // A complete upload: no part of it can be signed, and it is not deleted.
    let phase = "WRONG_PHASE";
    for (credential, permissions, expected) in [
        (
            "owner",
            Permissions::Admin,
            ["OK", "OK", phase, "OK", "OK", phase],
        ),
        (
            "same-tenant",
            Permissions::None,
            [not_found, not_found, not_found, not_found, "OK", not_found],
        ),
        (
            "same-tenant",
            Permissions::Support,
            [
                not_found, not_found, not_found, not_found, missing, not_found,
            ],
        ),
        (
            "support",
            Permissions::Support,
            ["OK", "OK", missing, "OK", "OK", phase],
        ),
        (
            "support",
            Permissions::Admin,
            ["OK", "OK", missing, "OK", missing, phase],
        ),
        (
            "admin",
            Permissions::Admin,
            ["OK", "OK", missing, "OK", "OK", phase],
        ),
        (
            "operator",
            Permissions::None,
            ["OK", "OK", missing, missing, missing, phase],
        ),
        ("other-tenant", Permissions::None, [not_found; 6]),
        ("other-admin", Permissions::None, [not_found; 6]),
    ] {
        let id = guarded.upload(false, permissions).await;
        for (call, expected) in CALLS.iter().zip(expected) {
            let outcome = guarded.outcome(call, credential, &id).await;
            assert_eq!(
                outcome, expected,
                "{credential} {permissions:?} {}",
                call.path
            );
        }
    }
    let id = guarded.upload(true, Permissions::Admin).await;
    assert_eq!(guarded.outcome(&CALLS[4], "same-tenant", &id).await, "OK");
}

#[tokio::test]
async fn another_tenants_upload_is_like_an_unknown_one() {
    let Some(guarded) = Guarded::start() else {
        return;
    };
    let id = guarded.upload(true, Permissions::None).await;
    let unknown = format!(
        "{}{}",
        &id[..id.len() - 1],
        if id.ends_with('0') { '1' } else { '0' }
    );
    for call in &CALLS {
        let mut answers = Vec::new();
        for id in [&id, &unknown] {
            let answer = guarded
                .call(call.path, Some("other-tenant"), (call.message)(id))
                .await;
            let status = answer.unwrap_err();
            let text = format!("{:?} {}", status.code(), status.message()).replace(id, "ID");
            answers.push(text);
        }
        assert_eq!(answers[0], answers[1], "{}", call.path);
    }
}

#[tokio::test]
async fn callers_list_and_resume_only_their_own_uploads() {
    let Some(guarded) = Guarded::start() else {
        return;
    };
    let create = CreateUploadRequest {
        file: Some(FileMetadata {
            file_name: "same.bin".into(),
            file_size: Some(20 << 20),
            file_id: "1B2M2Y8AsgTpgAmY7PhCfg==".into(),
            ..FileMetadata::default()
        }),
    };
    let mut ids = Vec::new();
    for credential in ["owner", "same-tenant", "other-tenant"] {
        let mut created = Vec::new();
        for _ in 0..2 {
            let step = guarded
                .call(
                    "/uploadgateway.v1.SigningService/CreateUpload",
                    Some(credential),
                    create.encode_to_vec(),
                )
                .await;
            created.push(SignedStep::decode(&*step.unwrap()).unwrap().upload_id);
        }
        // The same create finds the upload, but only that of its own caller.
        assert_eq!(created[0], created[1]);
        let listed = guarded
            .call(
                "/uploadgateway.v1.UploadService/ListUploads",
                Some(credential),
                ListUploadsRequest::default().encode_to_vec(),
            )
            .await;
        let listed = ListUploadsResponse::decode(&*listed.unwrap()).unwrap();
        let listed: Vec<_> = listed
            .uploads
            .into_iter()
            .map(|upload| upload.upload_id)
            .collect();
        assert_eq!(listed, [created[0].clone()]);
        ids.extend(listed);
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
    let operator = guarded
        .call(
            "/uploadgateway.v1.SigningService/CreateUpload",
            Some("operator"),
            create.encode_to_vec(),
        )
        .await;
    assert_eq!(reason(&operator.unwrap_err()), "ROLE_MISSING");
}

#[tokio::test]
async fn a_storage_exists_only_for_its_tenants() {
    let table = |id: &str, more: &str| {
        format!(
            "[[storage]]\nid = \"{id}\"\nkind = \"s3\"\nbucket = \"{id}\"\nendpoint = \"http://127.0.0.1:9\"\n\
             access_key_id = \"key\"\nsecret_access_key = \"secret\"\nmax_file_size = \"1GiB\"\n{more}\n"
        )
    };
    let tables = [
        table("of-a", "tenants = [\"a\"]\ndefault = true"),
        table("of-b", "tenants = [\"b\"]\ndefault = true"),
        table("of-all", ""),
    ];
    let Some(guarded) = Guarded::start_with(&tables.concat()) else {
        return;
    };
    for (credential, storage_id, expected) in [
        ("owner", "", "of-a"),
        ("other-tenant", "", "of-b"),
        ("owner", "of-a", "of-a"),
        ("owner", "of-all", "of-all"),
        ("operator", "", "of-all"),
        ("owner", "of-b", "STORAGE_NOT_FOUND"),
        ("owner", "of-c", "STORAGE_NOT_FOUND"),
        ("operator", "of-a", "STORAGE_NOT_FOUND"),
    ] {
        let storage_id = storage_id.to_owned();
        let request = GetLimitsRequest { storage_id }.encode_to_vec();
        let path = "/uploadgateway.v1.UploadService/GetLimits";
        let outcome = match guarded.call(path, Some(credential), request).await {
            Ok(limits) => {
                let limits = Limits::decode(&*limits).unwrap();
                assert_eq!(limits.max_file_size, 1 << 30);
                limits.storage_id
            }
            Err(status) => reason(&status),
        };
        assert_eq!(outcome, expected, "{credential}");
    }
}

#[tokio::test]
async fn the_audit_log_names_each_action_and_no_secret() {
    let Some(guarded) = Guarded::start() else {
        return;
    };
    let id = guarded.upload(true, Permissions::None).await;
    for (call, credential) in [
        (4, "same-tenant"),
        (5, "owner"),
        (5, "other-tenant"),
        (0, "expired"),
    ] {
        guarded.outcome(&CALLS[call], credential, &id).await;
    }
    let log = guarded.server.log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("audit: "))
        .collect();
    for (action, subject, result) in [
        ("create", "owner", "ok"),
        ("complete", "owner", "ok"),
        ("sign download", "other", "ok"),
        ("delete", "owner", "failed"),
        ("delete", "owner", "failed"),
    ] {
        let has = |line: &&&str| {
            let parts = [
                format!("subject={subject:?}"),
                format!("action={action:?}"),
                format!("result={result:?}"),
                format!("upload_id={id}"),
                "request_id=".into(),
                "peer=127.0.0.1:".into(),
            ];
            parts.iter().all(|part| line.contains(part))
        };
        assert!(
            lines.iter().any(|line| has(&line)),
            "{action} {subject}: {log}"
        );
    }
    let refused = lines
        .iter()
        .find(|line| line.contains("result=\"refused\""));
    assert!(refused.unwrap().contains("Expired"), "{log}");
    for (name, token) in &guarded.tokens {
        assert!(token.len() < 10 || !log.contains(token.as_str()), "{name}");
    }
}

/// Runs openssl in a directory.
fn openssl(directory: &Path, arguments: &str) {
    let program = common::find("openssl").unwrap();
    let words = arguments.split_whitespace();
    let output = Command::new(program)
        .args(words)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Makes an authority `NAME.pem`, and a certificate that it issues for this name.
fn certificates(directory: &Path, authority: &str, name: &str, alternative: &str) {
    if !directory.join(format!("{authority}.pem")).exists() {
        openssl(
            directory,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={authority} \
             -keyout {authority}.key -out {authority}.pem"
            ),
        );
    }
    openssl(
        directory,
        &format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} \
         -addext subjectAltName={alternative} -keyout {name}.key -out {name}.csr"
        ),
    );
    openssl(
        directory,
        &format!(
            "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 2 \
         -copy_extensions copyall -out {name}.pem"
        ),
    );
}

/// A gateway that accepts certificates of `clients.pem`, and the API key in `web.key`.
fn tls_gateway() -> Server {
    Server::start(|port, directory| {
        certificates(directory, "ca", "server", "DNS:localhost,IP:127.0.0.1");
        for (authority, name, domain) in [
            ("clients", "signage", "example.org"),
            ("clients", "stranger", "other.org"),
            ("others", "impostor", "example.org"),
        ] {
            let id = format!("URI:spiffe://{domain}/signage");
            certificates(directory, authority, name, &id);
        }
        let made = common::binary()
            .args([
                "api-key",
                "--id",
                "web",
                "--tenant",
                "b",
                "--subject",
                "web",
            ])
            .output()
            .unwrap();
        fs::write(directory.join("web.key"), made.stdout).unwrap();
        let table = String::from_utf8(made.stderr).unwrap();
        let path = |name: &str| format!("{:?}", directory.join(name));
        let config = format!(
            "auth = \"required\"\n[tls]\ncert_file = {}\nkey_file = {}\nclient_ca_file = {}\nclient_auth = \"optional\"\n\
             [[client_certificate]]\nca_file = {}\nspiffe_trust_domain = \"example.org\"\ntenant = \"a\"\n{table}",
            path("server.pem"),
            path("server.key"),
            path("others.pem"),
            path("clients.pem"),
        );
        serve(&config, port, directory)
    })
}

fn read(server: &Server, name: &str) -> String {
    fs::read_to_string(server.directory().join(name)).unwrap()
}

#[tokio::test]
async fn a_client_certificate_stands_for_its_principal() {
    if common::find("openssl").is_none() {
        return;
    }
    let server = tls_gateway();
    let connect = |client: Option<&str>| {
        let authority = Certificate::from_pem(read(&server, "ca.pem"));
        let mut tls = ClientTlsConfig::new().ca_certificate(authority);
        if let Some(name) = client {
            let [certificate, key] =
                ["pem", "key"].map(|end| read(&server, &format!("{name}.{end}")));
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", server.address())).unwrap();
        endpoint.tls_config(tls).unwrap().connect_lazy()
    };
    let list = "/uploadgateway.v1.UploadService/ListUploads";
    for (client, expected) in [
        (None, "CREDENTIAL_MISSING"),
        (Some("signage"), "OK"),
        (Some("stranger"), "CREDENTIAL_INVALID"),
        // Its authority is accepted for connections, but not for this trust domain.
        (Some("impostor"), "CREDENTIAL_INVALID"),
    ] {
        let answer = call(&connect(client), list, None, Vec::new()).await;
        let outcome = answer.map_or_else(|status| reason(&status), |_| "OK".into());
        assert_eq!(outcome, expected, "{client:?}");
    }
}

#[tokio::test]
async fn an_api_key_decides_beside_a_certificate() {
    if common::find("openssl").is_none() {
        return;
    }
    let server = tls_gateway();
    let options = ConnectOptions {
        authorities: Some(read(&server, "ca.pem")),
        certificate: Some(read(&server, "stranger.pem")),
        key: Some(read(&server, "stranger.key")),
        api_key_file: Some(server.directory().join("web.key")),
        ..ConnectOptions::default()
    };
    let client = Client::connect_with(&format!("https://{}", server.address()), &options).unwrap();
    client.check_connection().await.unwrap();
    let list = async || client.list(ListUploadsRequest::default()).await;
    list().await.unwrap();
    // The file is read for each call.
    let wrong = format!("{}x", read(&server, "web.key").trim());
    fs::write(server.directory().join("web.key"), wrong).unwrap();
    let refused = list().await.unwrap_err();
    assert!(refused.to_string().contains("not accepted"), "{refused}");
}

#[test]
fn a_gateway_beyond_loopback_needs_authentication_and_encryption() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let key = "[[api_key]]\nid = \"a\"\nsha256 = \"".to_owned()
        + &"0".repeat(64)
        + "\"\ntenant = \"t\"\nsubject = \"s\"\n";
    for (listen, config, expected) in [
        ("0.0.0.0:0", String::new(), "auth = \"required\""),
        (
            "0.0.0.0:0",
            format!("auth = \"required\"\n{key}"),
            "tls.cert_file",
        ),
        ("127.0.0.1:0", "auth = \"required\"\n".into(), "[[api_key]]"),
    ] {
        fs::write(&file, config).unwrap();
        let output = common::binary()
            .args(["serve", "--grpc-listen", listen, "--config"])
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(64));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(expected), "{text}");
    }
}
