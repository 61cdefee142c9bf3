//! Whose uploads a caller lists, finds and resumes, in every state store.

use std::{any::Any, fs};

use upload_gateway_client::proto::v1::{
    CreateUploadRequest, FileMetadata, GetUploadRequest, ListUploadsRequest, ListUploadsResponse,
    Open, SignedStep, Upload, UploadRequest, UploadResponse, open, upload_request::Message as Sent,
};

use super::guarded::Guarded;
use crate::common;

const LIST: &str = "UploadService/ListUploads";
const GET: &str = "UploadService/GetUpload";
const CREATE: &str = "SigningService/CreateUpload";

/// The state stores: keys of the configuration, and what keeps the servers running. Those that are not installed are missing.
async fn states() -> Vec<(String, Box<dyn Any + Send>)> {
    let mut states: Vec<(String, Box<dyn Any + Send>)> = vec![(String::new(), Box::new(()))];
    if let Some(redis) = common::redis().await {
        states.push((redis.toml(), Box::new(redis)));
    }
    if let Some(cluster) = common::redis_cluster() {
        let keys = format!(
            "redis_url = {:?}\nredis.mode = \"cluster\"\nredis.nodes = [{:?}]\n",
            cluster.urls[0], cluster.urls[1]
        );
        states.push((keys, Box::new(cluster)));
    }
    states
}

fn file(name: &str) -> CreateUploadRequest {
    let file = FileMetadata {
        file_name: name.into(),
        file_size: Some(20 << 20),
        file_id: "1B2M2Y8AsgTpgAmY7PhCfg==".into(),
        ..FileMetadata::default()
    };
    CreateUploadRequest { file: Some(file) }
}

async fn create(guarded: &Guarded, credential: &str, name: &str) -> Result<String, String> {
    let request = file(name);
    let step = guarded.ask::<SignedStep>(CREATE, credential, &request);
    step.await.map(|step| step.upload_id)
}

/// The ids of a listing, in pages of one.
async fn list(
    guarded: &Guarded,
    credential: &str,
    request: ListUploadsRequest,
) -> Result<Vec<String>, String> {
    let mut ids = Vec::new();
    let mut request = ListUploadsRequest {
        page_size: 1,
        ..request
    };
    loop {
        let page: ListUploadsResponse = guarded.ask(LIST, credential, &request).await?;
        ids.extend(page.uploads.into_iter().map(|upload| upload.upload_id));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(ids);
        }
    }
}

/// The first message of a stream, with its answer.
async fn open_stream(
    guarded: &Guarded,
    credential: &str,
    upload_id: &str,
    resume_token: &str,
) -> Result<UploadResponse, String> {
    let open = Open {
        target: Some(open::Target::UploadId(upload_id.into())),
        resume_token: resume_token.into(),
        ..Open::default()
    };
    let message = Some(Sent::Open(open));
    let sent = UploadRequest { message };
    guarded.ask("UploadService/Upload", credential, &sent).await
}

#[tokio::test]
async fn two_tenants_see_nothing_of_each_other() {
    for (keys, _server) in states().await {
        let Some(guarded) = Guarded::start_on(&keys, "") else {
            return;
        };
        let all = ListUploadsRequest {
            all_owners: true,
            ..ListUploadsRequest::default()
        };
        let mut ids = Vec::new();
        for credential in ["owner", "other-tenant"] {
            for name in ["same.bin", "second.bin"] {
                ids.push(create(&guarded, credential, name).await.unwrap());
                // The same create finds the upload, but only that of its own caller.
                let again = create(&guarded, credential, name).await;
                assert_eq!(again.as_ref().ok(), ids.last());
            }
        }
        let [first, second, other_first, other_second] = &ids[..] else {
            unreachable!()
        };
        // A page token of another listing is only a position.
        let page = ListUploadsRequest {
            page_size: 1,
            ..ListUploadsRequest::default()
        };
        let page: ListUploadsResponse = guarded.ask(LIST, "other-tenant", &page).await.unwrap();
        for (credential, request, expected) in [
            ("owner", ListUploadsRequest::default(), vec![second, first]),
            (
                "other-tenant",
                ListUploadsRequest::default(),
                vec![other_second, other_first],
            ),
            ("support", ListUploadsRequest::default(), vec![]),
            ("support", all.clone(), vec![second, first]),
            ("other-admin", all.clone(), vec![other_second, other_first]),
            (
                "other-admin",
                // The subject of an owner in another tenant, too.
                ListUploadsRequest {
                    owner: "owner".into(),
                    ..ListUploadsRequest::default()
                },
                vec![other_second, other_first],
            ),
            (
                "operator",
                ListUploadsRequest {
                    tenant: "a".into(),
                    ..ListUploadsRequest::default()
                },
                vec![second, first],
            ),
            (
                "owner",
                ListUploadsRequest {
                    page_token: page.next_page_token,
                    ..ListUploadsRequest::default()
                },
                vec![second, first],
            ),
        ] {
            let listed = list(&guarded, credential, request.clone()).await.unwrap();
            assert!(
                listed.iter().eq(expected),
                "{credential} {request:?}: {listed:?}"
            );
        }
        nothing_of_others_is_listed(&guarded, &all).await;
        a_resume_token_is_only_for_its_owner(&guarded, first, other_first).await;
    }
}

async fn nothing_of_others_is_listed(guarded: &Guarded, all: &ListUploadsRequest) {
    for (credential, request) in [
        ("owner", all.clone()),
        (
            "support",
            ListUploadsRequest {
                tenant: "b".into(),
                ..all.clone()
            },
        ),
        (
            "admin",
            ListUploadsRequest {
                tenant: "no-such-tenant".into(),
                ..all.clone()
            },
        ),
    ] {
        let refused = list(guarded, credential, request).await;
        assert_eq!(refused.unwrap_err(), "ROLE_MISSING", "{credential}");
    }
}

async fn a_resume_token_is_only_for_its_owner(guarded: &Guarded, first: &str, other_first: &str) {
    // A resume token is for its owner only, with its own id and with another one.
    let get = GetUploadRequest {
        upload_id: first.to_owned(),
    };
    let upload: Upload = guarded.ask(GET, "owner", &get).await.unwrap();
    assert!(!upload.resume_token.is_empty());
    for id in [first, other_first] {
        let opened = open_stream(guarded, "other-tenant", id, &upload.resume_token).await;
        assert_eq!(opened.unwrap_err(), "INVALID_TOKEN");
    }
    let opened = open_stream(guarded, "other-tenant", first, "").await;
    assert_eq!(opened.unwrap_err(), "UPLOAD_NOT_FOUND");
}

#[tokio::test]
async fn an_owner_at_its_share_does_not_stop_another_one() {
    for (keys, _server) in states().await {
        let limits = "[limits.per_owner]\nmax_open_uploads = 3\n";
        let Some(guarded) = Guarded::start_on(&keys, limits) else {
            return;
        };
        for number in 0..3 {
            create(&guarded, "owner", &format!("{number}.bin"))
                .await
                .unwrap();
        }
        let refused = create(&guarded, "owner", "3.bin").await;
        assert_eq!(refused.unwrap_err(), "OVERLOADED");
        let known = create(&guarded, "owner", "2.bin").await.unwrap();
        create(&guarded, "same-tenant", "3.bin").await.unwrap();
        let delete = GetUploadRequest { upload_id: known };
        let deleted: Upload = guarded
            .ask("UploadService/DeleteUpload", "owner", &delete)
            .await
            .unwrap();
        assert_eq!(
            deleted.phase(),
            upload_gateway_client::proto::v1::Phase::Aborted
        );
        create(&guarded, "owner", "3.bin").await.unwrap();
    }
}

#[tokio::test]
async fn uploads_without_an_owner_are_adopted() {
    for (keys, _server) in states().await {
        let Some(mut guarded) = Guarded::start_on(&keys, "") else {
            return;
        };
        let file = guarded.server.directory().join("config.toml");
        let required = fs::read_to_string(&file).unwrap();
        // Without authentication.
        guarded.restart_with(&keys);
        let id = create(&guarded, "owner", "old.bin").await.unwrap();
        let get = GetUploadRequest {
            upload_id: id.clone(),
        };
        let upload: Upload = guarded.ask(GET, "owner", &get).await.unwrap();

        guarded.restart_with(&required);
        assert_eq!(
            list(&guarded, "owner", ListUploadsRequest::default())
                .await
                .unwrap(),
            [""; 0]
        );
        let unseen = guarded.ask::<Upload>(GET, "owner", &get).await;
        assert_eq!(unseen.unwrap_err(), "UPLOAD_NOT_FOUND");

        guarded.server.stop();
        let adopt = |more: &[&str]| {
            let output = common::binary()
                .args([
                    "records", "adopt", "--tenant", "a", "--owner", "owner", "--config",
                ])
                .arg(&file)
                .arg("--data-dir")
                .arg(guarded.server.directory().join("data"))
                .args(more)
                .output()
                .unwrap();
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{error}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(adopt(&["--dry-run"]), "1  uploads adopted");
        assert_eq!(adopt(&["--json"]), r#"{"adopted":1,"busy":0}"#);
        assert_eq!(adopt(&[]), "0  uploads adopted");
        guarded.restart_with(&required);
        let listed = list(&guarded, "owner", ListUploadsRequest::default()).await;
        assert_eq!(listed.unwrap(), std::slice::from_ref(&id));
        // By its id only: not by its old token, nor by the same create.
        let opened = open_stream(&guarded, "owner", &id, &upload.resume_token).await;
        assert_eq!(opened.unwrap_err(), "INVALID_TOKEN");
        assert_ne!(create(&guarded, "owner", "old.bin").await.unwrap(), id);
        let found: Upload = guarded.ask(GET, "owner", &get).await.unwrap();
        let opened = open_stream(&guarded, "owner", &id, &found.resume_token).await;
        assert_ne!(opened.unwrap_err(), "INVALID_TOKEN");
    }
}
