//! Every call of both APIs with every kind of credential, in one table. A call that the table lacks fails the test.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::FileDescriptorSet;
use reqwest::{Client, Method};
use serde_json::Value;
use tonic::Code;
use upload_gateway::proto::FILE_DESCRIPTOR_SET;
use upload_gateway_client::proto::v1::{
    CompleteUploadRequest, CopyUploadRequest, CreateUploadRequest, DeleteUploadRequest,
    DownloadRequest, FileMetadata, GetLimitsRequest, GetResidenceRequest, GetUploadRequest,
    KeepUploadRequest, ListPartsRequest, ListUploadsRequest, MoveUploadRequest, Open, PartRef,
    Permissions, SignDownloadRequest, SignFinishRequest, SignPartRequest, SignPartsRequest,
    UpdateUploadRequest, UploadRequest, WatchUploadRequest, open, upload_request::Message as Sent,
};

use super::guarded::{Guarded, reason};

const MD5: &str = "1B2M2Y8AsgTpgAmY7PhCfg==";

/// The principals of the columns. The upload is the owner's, complete, and only for support to download.
const PRINCIPALS: [&str; 7] = [
    "owner",
    "same-tenant",
    "support",
    "admin",
    "operator",
    "other-tenant",
    "other-admin",
];

type Row = (&'static str, fn(&str) -> Vec<u8>, [&'static str; 7]);

const DRAIN: &str = "AdminService/Drain";

const OK: &str = "OK";
/// The upload does not exist for the caller.
const UNKNOWN: &str = "UPLOAD_NOT_FOUND";
const ROLE: &str = "ROLE_MISSING";
/// The call is allowed, but its request has no content.
const INVALID: &str = "INVALID_FIELD";
/// The call is allowed, but the upload is complete.
const PHASE: &str = "WRONG_PHASE";

/// The calls of the descriptor set: a request for an upload, and what each principal gets.
const GRPC: [Row; 27] = [
    (
        "UploadService/Upload",
        open,
        [OK, UNKNOWN, ROLE, ROLE, ROLE, UNKNOWN, UNKNOWN],
    ),
    (
        "UploadService/UploadWithProgress",
        open,
        [OK, UNKNOWN, ROLE, ROLE, ROLE, UNKNOWN, UNKNOWN],
    ),
    (
        "UploadService/GetUpload",
        |id| {
            GetUploadRequest {
                upload_id: id.into(),
            }
            .encode_to_vec()
        },
        [OK, UNKNOWN, OK, OK, OK, UNKNOWN, UNKNOWN],
    ),
    (
        "UploadService/ListUploads",
        |_| {
            ListUploadsRequest {
                owner: "owner".into(),
                ..ListUploadsRequest::default()
            }
            .encode_to_vec()
        },
        [OK, ROLE, OK, OK, OK, OK, OK],
    ),
    (
        "UploadService/ListParts",
        |id| {
            ListPartsRequest {
                upload_id: id.into(),
                ..ListPartsRequest::default()
            }
            .encode_to_vec()
        },
        [OK, UNKNOWN, OK, OK, OK, UNKNOWN, UNKNOWN],
    ),
    (
        "UploadService/Download",
        |id| {
            DownloadRequest {
                upload_id: id.into(),
                ..DownloadRequest::default()
            }
            .encode_to_vec()
        },
        [OK, ROLE, OK, OK, ROLE, UNKNOWN, UNKNOWN],
    ),
    ("UploadService/ListStorages", |_| Vec::new(), [OK; 7]),
    ("UploadService/GetServerInfo", |_| Vec::new(), [OK; 7]),
    (
        "UploadService/GetLimits",
        |_| GetLimitsRequest::default().encode_to_vec(),
        [OK; 7],
    ),
    (
        "UploadService/WatchUpload",
        |id| {
            WatchUploadRequest {
                upload_id: id.into(),
            }
            .encode_to_vec()
        },
        [OK, UNKNOWN, OK, OK, OK, UNKNOWN, UNKNOWN],
    ),
    (
        "SigningService/GetResidence",
        |_| {
            let (file_name, file_size) = ("a.bin".into(), 1);
            GetResidenceRequest {
                file_name,
                file_size,
                ..GetResidenceRequest::default()
            }
            .encode_to_vec()
        },
        [OK, OK, OK, OK, ROLE, OK, OK],
    ),
    (
        "SigningService/CreateUpload",
        create,
        [OK, OK, OK, OK, ROLE, OK, OK],
    ),
    (
        "SigningService/UpdateUpload",
        |id| {
            UpdateUploadRequest {
                upload_id: id.into(),
                ..UpdateUploadRequest::default()
            }
            .encode_to_vec()
        },
        [PHASE, UNKNOWN, ROLE, ROLE, ROLE, UNKNOWN, UNKNOWN],
    ),
    (
        "SigningService/SignPart",
        |id| {
            SignPartRequest {
                upload_id: id.into(),
                part: 1,
                file_id: MD5.into(),
            }
            .encode_to_vec()
        },
        [PHASE, UNKNOWN, ROLE, ROLE, ROLE, UNKNOWN, UNKNOWN],
    ),
    (
        "SigningService/SignParts",
        |id| {
            let parts = vec![PartRef {
                part: 1,
                file_id: MD5.into(),
            }];
            SignPartsRequest {
                upload_id: id.into(),
                parts,
            }
            .encode_to_vec()
        },
        [PHASE, UNKNOWN, ROLE, ROLE, ROLE, UNKNOWN, UNKNOWN],
    ),
    (
        "SigningService/SignFinish",
        |id| {
            SignFinishRequest {
                upload_id: id.into(),
            }
            .encode_to_vec()
        },
        [OK, UNKNOWN, ROLE, ROLE, ROLE, UNKNOWN, UNKNOWN],
    ),
    (
        "SigningService/CompleteUpload",
        |id| {
            CompleteUploadRequest {
                upload_id: id.into(),
            }
            .encode_to_vec()
        },
        [OK, UNKNOWN, OK, OK, ROLE, UNKNOWN, UNKNOWN],
    ),
    (
        "SigningService/SignDownload",
        |id| {
            SignDownloadRequest {
                upload_id: id.into(),
                ..SignDownloadRequest::default()
            }
            .encode_to_vec()
        },
        [OK, ROLE, OK, OK, ROLE, UNKNOWN, UNKNOWN],
    ),
    (
        "UploadService/CopyUpload",
        |id| {
            CopyUploadRequest {
                upload_id: id.into(),
                ..CopyUploadRequest::default()
            }
            .encode_to_vec()
        },
        [OK, UNKNOWN, ROLE, ROLE, ROLE, UNKNOWN, UNKNOWN],
    ),
    (
        "UploadService/MoveUpload",
        |id| {
            MoveUploadRequest {
                upload_id: id.into(),
                // Only to see who is refused: the next rows need the upload.
                storage_id: "absent".into(),
            }
            .encode_to_vec()
        },
        [
            "STORAGE_NOT_FOUND",
            UNKNOWN,
            ROLE,
            ROLE,
            ROLE,
            UNKNOWN,
            UNKNOWN,
        ],
    ),
    (
        "UploadService/KeepUpload",
        |id| {
            KeepUploadRequest {
                upload_id: id.into(),
                ..KeepUploadRequest::default()
            }
            .encode_to_vec()
        },
        [OK, UNKNOWN, OK, OK, OK, UNKNOWN, UNKNOWN],
    ),
    // No other call finds the upload after it.
    (
        "UploadService/DeleteUpload",
        |id| {
            DeleteUploadRequest {
                upload_id: id.into(),
            }
            .encode_to_vec()
        },
        [OK, UNKNOWN, OK, OK, OK, UNKNOWN, UNKNOWN],
    ),
    (
        "AdminService/StopUploads",
        |_| Vec::new(),
        operators(INVALID),
    ),
    ("AdminService/AllowUploads", |_| Vec::new(), operators(OK)),
    (
        "AdminService/ListUploadStops",
        |_| Vec::new(),
        operators(OK),
    ),
    ("AdminService/SetLogFilter", |_| Vec::new(), operators(OK)),
    (DRAIN, |_| Vec::new(), operators(OK)),
];

/// Only operators get another outcome than that their role is missing.
const fn operators(outcome: &'static str) -> [&'static str; 7] {
    [ROLE, ROLE, ROLE, ROLE, outcome, ROLE, ROLE]
}

/// The calls of the OpenAPI document: the query of a request, and the status that each principal gets.
const HTTP: [(&str, &str, [u16; 7]); 11] = [
    ("GET ", "owner=owner", [200, 403, 200, 200, 200, 200, 200]),
    (
        "POST ",
        "file_name=a.bin&file_size=1&file_id=1B2M2Y8AsgTpgAmY7PhCfg==",
        [201, 201, 201, 201, 403, 201, 201],
    ),
    (
        "GET /new",
        "file_name=a.bin&file_size=1",
        [200, 200, 200, 200, 403, 200, 200],
    ),
    ("GET /openapi.json", "", [200; 7]),
    (
        "PATCH /{id}",
        "part_update=true",
        [200, 404, 403, 403, 403, 404, 404],
    ),
    ("PUT /{id}", "", [200, 404, 200, 200, 403, 404, 404]),
    (
        "GET /{id}/edit",
        "part=1&file_id=1B2M2Y8AsgTpgAmY7PhCfg==",
        [412, 404, 403, 403, 403, 404, 404],
    ),
    ("GET /{id}/url", "", [303, 403, 303, 303, 403, 404, 404]),
    (
        "GET /{id}/download",
        "",
        [200, 403, 200, 200, 403, 404, 404],
    ),
    (
        "HEAD /{id}/download",
        "",
        [200, 403, 200, 200, 403, 404, 404],
    ),
    // No other call finds the upload after it.
    ("DELETE /{id}", "", [202, 404, 202, 202, 202, 404, 404]),
];

fn open(id: &str) -> Vec<u8> {
    let open = Open {
        target: Some(open::Target::UploadId(id.into())),
        ..Open::default()
    };
    let message = Some(Sent::Open(open));
    UploadRequest { message }.encode_to_vec()
}

fn create(_: &str) -> Vec<u8> {
    let file = FileMetadata {
        file_name: "a.bin".into(),
        file_size: Some(1),
        file_id: MD5.into(),
        ..FileMetadata::default()
    };
    CreateUploadRequest { file: Some(file) }.encode_to_vec()
}

/// The calls of the API in the descriptor set.
fn described() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let files = set.file.iter();
    let files = files.filter(|file| file.package() == "uploadgateway.v1");
    let services = files.flat_map(|file| &file.service);
    let calls = services.flat_map(|service| {
        let name = |method: &prost_types::MethodDescriptorProto| {
            format!("{}/{}", service.name(), method.name())
        };
        service.method.iter().map(name)
    });
    calls.collect()
}

fn path(call: &str) -> String {
    format!("/uploadgateway.v1.{call}")
}

/// The invalid credentials, and what each gets. `None`: no credential.
fn invalid(guarded: &Guarded) -> BTreeMap<Option<&str>, &'static str> {
    let is_valid = |name: &str| {
        let valid = [
            "owner",
            "same-tenant",
            "support",
            "admin",
            "operator",
            "other",
        ];
        valid.iter().any(|valid| name.starts_with(valid))
    };
    let names = guarded.tokens.keys().map(String::as_str);
    let mut invalid: BTreeMap<_, _> = names
        .filter(|name| !is_valid(name))
        .map(|name| match name {
            "expired" => (Some(name), "CREDENTIAL_EXPIRED"),
            _ => (Some(name), "CREDENTIAL_INVALID"),
        })
        .collect();
    invalid.insert(None, "CREDENTIAL_MISSING");
    assert!(invalid.len() >= 18, "{invalid:?}");
    invalid
}

#[tokio::test]
async fn every_grpc_call_with_every_credential() {
    let Some(guarded) = Guarded::start() else {
        return;
    };
    let table: BTreeSet<String> = GRPC.iter().map(|(call, ..)| (*call).to_owned()).collect();
    assert_eq!(described(), table, "the table has every call");
    for (call, request, expected) in GRPC {
        for (principal, expected) in PRINCIPALS.iter().zip(expected) {
            if (call, *principal) == (DRAIN, "operator") {
                // It would end the gateway: `admin.rs` has a test of it.
                continue;
            }
            let id = guarded.upload(false, Permissions::Support).await;
            let answer = guarded
                .call(&path(call), Some(principal), request(&id))
                .await;
            let outcome = answer.map_or_else(|status| reason(&status), |_| OK.into());
            assert_eq!(outcome, expected, "{call} as {principal}");
        }
    }
}

#[tokio::test]
async fn no_call_accepts_an_invalid_credential() {
    let Some(guarded) = Guarded::start() else {
        return;
    };
    let reflection = ["v1", "v1alpha"]
        .map(|version| format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"));
    let invalid = invalid(&guarded);
    for path in GRPC.iter().map(|(call, ..)| path(call)).chain(reflection) {
        for (credential, expected) in &invalid {
            let status = guarded.call(&path, *credential, Vec::new()).await;
            let status = status.unwrap_err();
            let expected = match status.code() {
                // The file of the keys may have been replaced just now.
                Code::Unavailable if *credential == Some("unknown-key") => "ISSUER_UNAVAILABLE",
                _ => expected,
            };
            assert_eq!(reason(&status), expected, "{path} {credential:?}");
            // One sentence for all causes.
            assert!(!status.message().contains("audience"), "{status}");
        }
    }
    let health = "/grpc.health.v1.Health/Check";
    guarded.call(health, None, Vec::new()).await.unwrap();
}

#[tokio::test]
async fn every_http_call_with_every_credential() {
    let Some(guarded) = Guarded::start() else {
        return;
    };
    let uploads = guarded.uploads_url();
    let client = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let (name, value) = guarded.header("owner");
    let document = client.get(format!("{uploads}/openapi.json"));
    let document = document.header(name, value).send().await.unwrap();
    let document: Value = serde_json::from_str(&document.text().await.unwrap()).unwrap();
    let mut described = BTreeSet::from(["HEAD /{id}/download".to_owned()]);
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = path.strip_prefix("/api/engine/v2/uploads").unwrap();
        let methods = operations.as_object().unwrap().keys();
        described.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    let table = HTTP.iter().map(|(call, ..)| (*call).to_owned()).collect();
    assert_eq!(described, table, "the table has every call");
    let invalid = invalid(&guarded);
    for (call, query, expected) in HTTP {
        let (method, path) = call.split_once(' ').unwrap();
        let method: Method = method.parse().unwrap();
        let send = async |id: &str, credential: Option<&str>| {
            let url = format!("{uploads}{}?{query}", path.replace("{id}", id));
            let mut request = client.request(method.clone(), url);
            if let Some((name, value)) = credential.map(|name| guarded.header(name)) {
                request = request.header(name, value);
            }
            request.send().await.unwrap().status().as_u16()
        };
        for (principal, expected) in PRINCIPALS.iter().zip(expected) {
            let id = guarded.upload(false, Permissions::Support).await;
            let status = send(&id, Some(principal)).await;
            assert_eq!(status, expected, "{call} as {principal}");
        }
        for credential in invalid.keys() {
            let status = send("uploads-x", *credential).await;
            let may_wait = *credential == Some("unknown-key") && status == 503;
            assert!(status == 401 || may_wait, "{call} {credential:?}: {status}");
        }
    }
}
