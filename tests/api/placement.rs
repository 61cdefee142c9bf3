//! How objects are stored: what is refused at create, what the record shows, and what cannot be read.

mod left_out;
mod policy;
mod ways;

use reqwest::redirect;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use upload_gateway_client::proto::v1::{
    DownloadRequest, Encryption, FileMetadata, Placement, SignDownloadRequest, SseKms, Upload,
    encryption::Method,
};

use crate::common::{
    self, TestGateway, bytes, chunk, finish, open_file, reason, signing_client::Client,
};

const BASE: &str = "/api/engine/v2/uploads";

/// A file of this size that is stored like this.
fn file(size: usize, placement: Placement) -> FileMetadata {
    FileMetadata {
        file_name: "film.mp4".into(),
        file_size: Some(i64::try_from(size).unwrap()),
        placement: Some(Box::new(placement)),
        ..FileMetadata::default()
    }
}

/// Streams a file of this size.
async fn stream(
    gateway: &TestGateway,
    size: usize,
    placement: Placement,
) -> Result<Upload, Status> {
    send(gateway, file(size, placement), &bytes(size)).await
}

async fn send(gateway: &TestGateway, file: FileMetadata, data: &[u8]) -> Result<Upload, Status> {
    let mut messages = vec![open_file(file)];
    let pieces = data.chunks(1 << 20).enumerate();
    messages.extend(pieces.map(|(index, piece)| chunk(index << 20, piece)));
    messages.push(finish());
    gateway.upload(messages).await
}

fn with_metadata<const N: usize>(entries: [(&str, &str); N]) -> Placement {
    let entries = entries.into_iter();
    Placement {
        metadata: entries
            .map(|(key, value)| (key.into(), value.into()))
            .collect(),
        ..Placement::default()
    }
}

#[tokio::test]
async fn metadata_that_fits_no_header_is_refused_by_key_and_limit() {
    let gateway = TestGateway::start().await;
    let long = "v".repeat(1025);
    for (placement, field, named) in [
        (with_metadata([("uploadid", "x")]), "metadata", "`uploadid`"),
        (with_metadata([("UPLOADID", "x")]), "metadata", "`UPLOADID`"),
        (
            with_metadata([("upload-id", "x")]),
            "metadata",
            "`upload-id`",
        ),
        (with_metadata([("a", "x"), ("A", "x")]), "metadata", "`A`"),
        (with_metadata([("a", "ä")]), "metadata", "`a`"),
        (with_metadata([("a", &long)]), "metadata", "1024"),
        (
            Placement {
                cache_control: "a\r\nb: c".into(),
                ..Placement::default()
            },
            "cache_control",
            "ASCII",
        ),
    ] {
        let status = stream(&gateway, 3, placement).await.unwrap_err();
        assert_eq!(
            reason(&status),
            (Code::InvalidArgument, "INVALID_FIELD".into())
        );
        let details = status.get_error_details();
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, format!("file.placement.{field}"));
        assert!(violation.description.contains(named), "{violation:?}");
    }
}

#[tokio::test]
async fn what_the_embedded_store_lacks_is_refused_when_the_upload_is_created() {
    let gateway = TestGateway::start().await;
    let mut client = Client::of(&gateway).await;
    let tagged = Placement {
        object_tags: [("team".into(), "media".into())].into(),
        ..Placement::default()
    };
    let tiered = Placement {
        storage_class: "STANDARD_IA".into(),
        ..Placement::default()
    };
    let encrypted = |method| Placement {
        encryption: Some(Encryption {
            method: Some(method),
        }),
        ..Placement::default()
    };
    for (placement, feature) in [
        (tagged, "object_tags"),
        (tiered, "storage_class"),
        (encrypted(Method::SseS3(())), "encryption"),
        (encrypted(Method::SseKms(SseKms::default())), "encryption"),
        (encrypted(Method::Scope("scope".into())), "encryption"),
    ] {
        let streamed = stream(&gateway, 3, placement.clone()).await.unwrap_err();
        let signed = client.create(file(3, placement)).await.unwrap_err();
        for status in [streamed, signed] {
            let expected = (Code::FailedPrecondition, "NOT_SUPPORTED".to_owned());
            assert_eq!(reason(&status), expected);
            let details = status.get_error_details();
            let metadata = &details.error_info().unwrap().metadata;
            assert_eq!(metadata["feature"], feature);
        }
    }
}

#[tokio::test]
async fn a_file_keeps_its_placement_over_grpc_and_http() {
    let gateway = TestGateway::start().await;
    let http = reqwest::Client::new();
    let base = format!("{}{BASE}", gateway.http);
    let placement = json!({"metadata": {"project": "42"}, "content_encoding": "gzip"});
    let body = json!({
        "file_name": "a.txt", "file_size": 3, "placement": placement,
        "cache_etag": "abc", "cache_modified": 1_700_000_000_u64,
    });
    let step = read(http.post(&base).body(body.to_string())).await.1;
    let signature = &step["signature"];
    assert_eq!(signature["headers"]["x-amz-meta-project"], "42");
    let mut put = http.put(signature["url"].as_str().unwrap());
    for (name, value) in signature["headers"].as_object().unwrap() {
        put = put.header(name, value.as_str().unwrap());
    }
    assert_eq!(put.body("abc").send().await.unwrap().status(), 200);
    let one = format!("{base}/{}", step["upload_id"].as_str().unwrap());
    assert_eq!(http.put(&one).send().await.unwrap().status(), 200);

    let list = read(http.get(&base)).await.1;
    let record = &list[0];
    assert_eq!(record["placement"], placement, "{list}");
    assert_eq!(
        (&record["cache_etag"], &record["cache_modified"]),
        (&json!("abc"), &json!("1700000000"))
    );
    let upload = gateway
        .get(step["upload_id"].as_str().unwrap())
        .await
        .unwrap();
    let kept = upload.file.unwrap().placement.unwrap();
    assert_eq!(
        (&*kept.metadata["project"], &*kept.content_encoding),
        ("42", "gzip")
    );
    let download = http.get(format!("{one}/download")).send().await.unwrap();
    assert_eq!(download.headers()["content-encoding"], "gzip");

    let invalid =
        json!({"file_name": "a.txt", "file_size": 3, "placement": {"metadata": {"A": "x"}}});
    let (status, refused) = read(http.post(&base).body(invalid.to_string())).await;
    assert_eq!(status, 400);
    assert_eq!(refused["parameter"], "placement", "{refused}");
    let message = refused["error"].as_str().unwrap();
    assert!(
        message.contains("placement.metadata") && message.contains("`A`"),
        "{message}"
    );
    let customers_key = json!({
        "file_name": "a.txt", "file_size": 3, "placement": {"encryption": {"method": "sse_c"}},
    });
    let refused = read(http.post(&base).body(customers_key.to_string())).await;
    assert_eq!(refused.0, 400);
}

#[tokio::test]
async fn an_archived_object_is_neither_read_nor_linked() {
    let (_server, azure) = common::memory_azure().await;
    let gateway = TestGateway::with(|config| config.storage = vec![azure.storage()]).await;
    let archived = Placement {
        storage_class: "Archive".into(),
        ..Placement::default()
    };
    for size in [1000, 5_000_001] {
        let upload = stream(&gateway, size, archived.clone()).await.unwrap();
        check_archived(&gateway, &upload.upload_id).await;
        // What a client sends is archived at completion, when it is verified.
        let mut client = Client::of(&gateway).await;
        let step = client.create(file(size, archived.clone())).await.unwrap();
        let id = step.upload_id.clone();
        if size == 1000 {
            client.deliver(&step, bytes(size)).await;
            client.complete(&id).await.unwrap();
        } else {
            client.begin(&step).await;
            client.put_part(&id, 1, &bytes(size)).await;
            client.finish(&id).await;
        }
        check_archived(&gateway, &id).await;
    }
    let hot = Placement {
        storage_class: "Cool".into(),
        ..Placement::default()
    };
    let upload = stream(&gateway, 1000, hot).await.unwrap();
    let link = format!("{}{BASE}/{}/url", gateway.http, upload.upload_id);
    let client = reqwest::Client::builder().redirect(redirect::Policy::none());
    let answer = client.build().unwrap().get(link).send().await.unwrap();
    assert_eq!(answer.status(), 303);
}

/// The status and the JSON of an answer.
async fn read(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap())
}

/// Checks that every way to the file is refused.
async fn check_archived(gateway: &TestGateway, id: &str) {
    let expected = (Code::FailedPrecondition, "OBJECT_ARCHIVED".to_owned());
    let request = DownloadRequest {
        upload_id: id.into(),
        ..DownloadRequest::default()
    };
    let failed = gateway.client().await.download(request).await;
    assert_eq!(reason(&failed.unwrap_err()), expected);
    let mut client = Client::of(gateway).await;
    let request = SignDownloadRequest {
        upload_id: id.into(),
        ..SignDownloadRequest::default()
    };
    let signed = client.signing.sign_download(request).await;
    assert_eq!(reason(&signed.unwrap_err()), expected);
    for path in ["url", "download"] {
        let url = format!("{}{BASE}/{id}/{path}", gateway.http);
        let answer = reqwest::get(url).await.unwrap();
        assert_eq!(answer.status(), 412, "{path}");
    }
}
