//! What callers may do with uploads, and what they see of them.

use prost::Message;
use upload_gateway_client::proto::v1::{
    CompleteUploadRequest, CreateUploadRequest, DeleteUploadRequest, FileMetadata,
    GetLimitsRequest, GetUploadRequest, Limits, ListUploadsRequest, ListUploadsResponse,
    Permissions, SignDownloadRequest, SignPartRequest, SignedStep, Upload, WatchUploadRequest,
};

use super::guarded::{Call, Guarded, reason};

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
    // A complete upload: no part of it can be signed. It is deleted at last.
    let phase = "WRONG_PHASE";
    for (credential, permissions, expected) in [
        (
            "owner",
            Permissions::Admin,
            ["OK", "OK", phase, "OK", "OK", "OK"],
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
            ["OK", "OK", missing, "OK", "OK", "OK"],
        ),
        (
            "support",
            Permissions::Admin,
            ["OK", "OK", missing, "OK", missing, "OK"],
        ),
        (
            "admin",
            Permissions::Admin,
            ["OK", "OK", missing, "OK", "OK", "OK"],
        ),
        (
            "operator",
            Permissions::None,
            ["OK", "OK", missing, missing, missing, "OK"],
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
