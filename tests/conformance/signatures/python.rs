//! Signatures equal those of the Python libraries of AWS and Microsoft.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use upload_gateway::blobs::{
    azure::{
        AzureConfig, AzureStore,
        sas::{Answer, DelegationKey, Grant, VERSION},
    },
    s3::{Profile, S3Config, S3Store},
};
use upload_gateway_core::{
    blobs::{
        NewObject, Session,
        sign::{ReadVerb, SignedRequest, Signer, ToSign},
    },
    upload::{Md5, Timestamp},
};

use super::subject::{DAY, object};
use crate::common;

/// 2025-11-26, 02:05:20.
const NOW: u64 = 1_764_122_720;
const FIVE_MINUTES: u64 = 300;
const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const ACCOUNT_KEY: &str = "bm90IGEga2V5IG9mIGFueWJvZHk=";
const SESSION: &str = "session~id._-/+=";
const FILE_NAME: &str = "Grüße \"an\" 100%.txt";
const MIME: &str = "text/plain; charset=utf-8";

#[tokio::test]
async fn s3_urls_equal_those_of_botocore() {
    if common::python().is_none() {
        return;
    }
    let aws = S3Config {
        region: Some("eu-central-1".into()),
        ..S3Config::new("media-bucket")
    };
    let compatible = S3Config {
        region: Some("us-east-1".into()),
        endpoint: Some("http://127.0.0.1:9000".parse().unwrap()),
        public_endpoint: Some("https://files.example:8443".parse().unwrap()),
        profile: Some(Profile::Compatible),
        acl: Some("bucket-owner-full-control".into()),
        ..S3Config::new("media-bucket")
    };
    let (mut own, mut cases) = (Vec::new(), Vec::new());
    for config in [aws, compatible] {
        let config = S3Config {
            access_key_id: Some(ACCESS_KEY.into()),
            secret_access_key: Some(SECRET_KEY.into()),
            ..config
        };
        let store = S3Store::connect(config.clone()).await.unwrap();
        for md5 in [true, false] {
            let mut object = object(b"whole");
            object.md5 = object.md5.filter(|_| md5);
            for (request, operation, parameters, length) in s3_requests(&object) {
                let now = Timestamp(NOW * 1_000 + 999);
                let signed = store.sign(&request, &now).await.unwrap();
                cases.push(s3_case(&config, &signed, operation, parameters, length));
                own.push(signed.url);
            }
        }
    }
    assert_eq!(own, python(&cases));
}

#[tokio::test]
async fn queries_with_an_account_key_equal_those_of_the_azure_library() {
    if common::python().is_none() {
        return;
    }
    let mut object = object(b"whole");
    object.key = "a/später & mehr+.bin".into();
    let (mut own, mut cases) = (Vec::new(), Vec::new());
    for public_endpoint in [None, Some("http://127.0.0.1:10000/account")] {
        let store = AzureStore::connect(AzureConfig {
            public_endpoint: public_endpoint.map(|url| url.parse().unwrap()),
            account_key: Some(ACCOUNT_KEY.into()),
            ..AzureConfig::new("account", "media")
        });
        let store = store.unwrap();
        let protocol = public_endpoint.map_or("https", |_| "https,http");
        for (request, permission) in azure_requests(&object) {
            let now = Timestamp(NOW * 1_000 + 999);
            let signed = store.sign(&request, &now).await.unwrap();
            let base = public_endpoint.unwrap_or("https://account.blob.core.windows.net");
            let base = format!("{base}/media/a/sp%C3%A4ter%20%26%20mehr%2B.bin?");
            assert!(signed.url.starts_with(&base), "{}", signed.url);
            let mut case = azure_case(&object.key, permission, request.lifetime(), protocol);
            case["account_key"] = json!(ACCOUNT_KEY);
            case["version"] = json!(VERSION);
            if let ToSign::Read { .. } = request {
                override_answer(&mut case);
            }
            cases.push(case);
            own.push(signature_of(&signed.url));
        }
    }
    let theirs: Vec<_> = python(&cases).iter().map(|url| signature_of(url)).collect();
    assert_eq!(own, theirs);
}

#[test]
fn queries_with_a_user_delegation_key_equal_those_of_the_azure_library() {
    if common::python().is_none() {
        return;
    }
    let key = DelegationKey {
        signed_oid: "00000000-1111-2222-3333-444444444444".into(),
        signed_tid: "55555555-6666-7777-8888-999999999999".into(),
        signed_start: "2025-11-26T00:00:00Z".into(),
        signed_expiry: "2025-12-02T00:00:00Z".into(),
        signed_service: "b".into(),
        signed_version: "2025-11-05".into(),
        value: ACCOUNT_KEY.into(),
    };
    let query = [
        ("comp", "block".to_owned()),
        ("blockid", "MDAwMDAx".to_owned()),
    ];
    let md5 = Md5::of(b"part");
    let (digest, scope) = (md5.to_string(), "scope-1");
    let headers = [
        ("content-md5".to_owned(), digest.as_str()),
        ("x-ms-encryption-scope".to_owned(), scope),
    ];
    let disposition = "attachment; filename=\"a b.txt\"";
    let plain = Grant {
        container: "media",
        blob: Some("a/später & mehr+.bin"),
        permissions: "cw",
        lifetime: Duration::from_secs(FIVE_MINUTES),
        https_only: true,
        ..Grant::default()
    };
    let part = Grant {
        query: &query,
        headers: &headers,
        scope: Some(scope),
        ..plain
    };
    let read = Grant {
        permissions: "r",
        https_only: false,
        answer: Some(Answer {
            disposition,
            mime: MIME,
        }),
        ..plain
    };
    let (mut own, mut cases) = (Vec::new(), Vec::new());
    for grant in [plain, part, read] {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(NOW * 1_000 + 999);
        let signed = signature_of(&key.sign("account", &grant, now).unwrap());
        let protocol = if grant.https_only {
            "https"
        } else {
            "https,http"
        };
        let blob = grant.blob.unwrap();
        let mut case = azure_case(blob, grant.permissions, grant.lifetime, protocol);
        case["version"] = json!(signed["sv"]);
        case["delegation_key"] = key_of(&key);
        if !grant.headers.is_empty() {
            // In the order of their names: the signing library sorts them.
            case["request_query"] = json!({"blockid": "MDAwMDAx", "comp": "block"});
            case["request_headers"] =
                json!({"content-md5": digest, "x-ms-encryption-scope": scope});
            case["encryption_scope"] = json!(scope);
            assert_eq!(signed["srq"], "blockid,comp");
            assert_eq!(signed["srh"], "content-md5,x-ms-encryption-scope");
        }
        if let Some(answer) = grant.answer {
            case["content_disposition"] = json!(answer.disposition);
            case["content_type"] = json!(answer.mime);
        }
        cases.push(case);
        own.push(signed);
    }
    let theirs: Vec<_> = python(&cases).iter().map(|url| signature_of(url)).collect();
    assert_eq!(own, theirs);
}

/// A key as the library takes it.
fn key_of(key: &DelegationKey) -> Value {
    json!({
        "signed_oid": key.signed_oid, "signed_tid": key.signed_tid, "signed_start": key.signed_start,
        "signed_expiry": key.signed_expiry, "signed_service": key.signed_service,
        "signed_version": key.signed_version, "value": key.value,
    })
}

/// Every kind of request, its name in botocore, and the length of its body if that is bound.
fn s3_requests(object: &NewObject) -> Vec<(ToSign<'_>, &'static str, Value, Option<u64>)> {
    let session = Session {
        key: &object.key,
        id: SESSION,
        scope: None,
    };
    let size = 123_456_789;
    let part = ToSign::PutPart {
        session,
        number: 17,
        cut: 0,
        size,
        md5: Md5::of(b"part"),
    };
    let commit = ToSign::Commit {
        session,
        object,
        parts: &[],
    };
    vec![
        (
            ToSign::PutObject { object, size },
            "put_object",
            json!({}),
            Some(size),
        ),
        (
            ToSign::Begin { object },
            "create_multipart_upload",
            json!({}),
            None,
        ),
        (
            part,
            "upload_part",
            json!({"PartNumber": 17, "UploadId": SESSION}),
            Some(size),
        ),
        (
            ToSign::ListParts { session },
            "list_parts",
            json!({"UploadId": SESSION}),
            None,
        ),
        (
            commit,
            "complete_multipart_upload",
            json!({"UploadId": SESSION}),
            None,
        ),
        (
            read(&object.key),
            "get_object",
            json!({"ResponseContentDisposition": disposition(), "ResponseContentType": MIME}),
            None,
        ),
    ]
    .into_iter()
    .map(|(request, operation, mut parameters, length)| {
        parameters["Bucket"] = json!("media-bucket");
        parameters["Key"] = json!(object.key);
        (request, operation, parameters, length)
    })
    .collect()
}

/// A case for botocore, with the headers that the client has to send, and the length.
fn s3_case(
    config: &S3Config,
    signed: &SignedRequest,
    operation: &str,
    parameters: Value,
    length: Option<u64>,
) -> Value {
    let mut headers = json!(signed.headers);
    if let Some(length) = length {
        headers["Content-Length"] = json!(length.to_string());
    }
    let endpoint = config.public_endpoint.as_ref();
    let (_, query) = signed.url.split_once("X-Amz-Expires=").unwrap();
    let (expires, _) = query.split_once('&').unwrap();
    json!({
        "kind": "s3", "now": NOW, "region": config.region, "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY, "endpoint": endpoint.map(upload_gateway::values::Endpoint::as_str),
        "addressing_style": if config.profile() == Profile::Aws { "virtual" } else { "path" },
        "headers": headers, "operation": operation, "parameters": parameters,
        "expires": expires.parse::<u64>().unwrap(),
    })
}

/// Every kind of request on Azure, and the permission that it needs.
fn azure_requests(object: &NewObject) -> Vec<(ToSign<'_>, &'static str)> {
    let session = Session {
        key: &object.key,
        id: SESSION,
        scope: None,
    };
    let part = ToSign::PutPart {
        session,
        number: 17,
        cut: 0,
        size: 500 << 20,
        md5: Md5::of(b"part"),
    };
    let commit = ToSign::Commit {
        session,
        object,
        parts: &[],
    };
    vec![
        (ToSign::PutObject { object, size: 5 }, "c"),
        (part, "cw"),
        (ToSign::ListParts { session }, "r"),
        (commit, "cw"),
        (read(&object.key), "r"),
    ]
}

fn azure_case(blob: &str, permission: &str, lifetime: Duration, protocol: &str) -> Value {
    json!({
        "kind": "azure", "account": "account", "container": "media", "blob": blob, "permission": permission,
        "start": NOW - FIVE_MINUTES, "expiry": NOW + lifetime.as_secs(), "protocol": protocol,
    })
}

fn override_answer(case: &mut Value) {
    case["content_disposition"] = json!(disposition());
    case["content_type"] = json!(MIME);
}

fn read(key: &str) -> ToSign<'_> {
    ToSign::Read {
        verb: ReadVerb::Get,
        key,
        file_name: FILE_NAME,
        mime: MIME,
        lifetime: DAY,
    }
}

fn disposition() -> &'static str {
    "attachment; filename=\"Gr__e _an_ 100_.txt\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe%20%22an%22%20100%25.txt"
}

/// The parameters of a shared access signature, decoded, in any order.
fn signature_of(url: &str) -> BTreeMap<String, String> {
    let query = url.split_once('?').map_or(url, |(_, query)| query);
    url::form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| !matches!(&**name, "comp" | "blockid" | "blocklisttype"))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

/// The signatures that the Python libraries make for the cases.
fn python(cases: &[Value]) -> Vec<String> {
    let mut child = Command::new(common::python().unwrap())
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/conformance/signatures/sign.py"
        ))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = serde_json::to_vec(cases).unwrap();
    child.stdin.take().unwrap().write_all(&input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}
