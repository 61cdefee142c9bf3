//! Invalid input: each is refused with the field named, never as a fault of the gateway.

use sha2::{Digest, Sha256};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use upload_gateway::config::{Config, S3Profile};
use upload_gateway_client::proto::v1::{
    CreateUploadRequest, GetResidenceRequest, PartRef, Permissions, Residence, SignDownloadRequest,
    SignPartRequest, SignPartsRequest, UpdateUploadRequest, update_upload_request::Next,
};
use upload_gateway_core::upload::Md5;

use super::{
    client::{Client, PART, data, file, next_part},
    common::{self, TestGateway, bytes, open, open_file, reason},
    stores::{self, Stores},
};

const UNKNOWN: &str = "uploads-0123456789abcdef-0123456789abcdef0123456789abcdef";

async fn chunked() -> (Stores, TestGateway, Client, String) {
    let stores = stores::embedded();
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let mut described = file("film.mp4", b"");
    described.file_size = Some(3 * i64::try_from(PART).unwrap());
    let step = client.create(described).await.unwrap();
    client.begin(&step).await;
    (stores, gateway, client, step.upload_id)
}

#[track_caller]
fn assert_field(refused: &Status, field: &str) {
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    let violations = refused.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, field);
}

#[tokio::test]
async fn the_residence_is_returned_after_the_same_checks() {
    let (_stores, _gateway, mut client, _) = chunked().await;
    let request = GetResidenceRequest {
        file_name: "a.mp4".into(),
        file_size: 7_065_473,
        ..GetResidenceRequest::default()
    };
    let placed = client.signing.get_residence(request.clone()).await.unwrap();
    assert_eq!(placed.into_inner().residence(), Residence::AmazonS3);
    let refused = client.signing.get_residence(GetResidenceRequest {
        file_name: "../a".into(),
        ..request.clone()
    });
    assert_field(&refused.await.unwrap_err(), "file.file_name");
    let refused = client.signing.get_residence(GetResidenceRequest {
        storage_id: "nowhere".into(),
        ..request
    });
    assert_eq!(reason(&refused.await.unwrap_err()).1, "STORAGE_NOT_FOUND");
}

#[tokio::test]
async fn a_create_needs_name_size_and_valid_values() {
    let (_stores, _gateway, mut client, _) = chunked().await;
    let refused = client.signing.create_upload(CreateUploadRequest::default());
    assert_field(&refused.await.unwrap_err(), "file");
    let good = file("a.bin", b"seven b");
    let mut bad = good.clone();
    bad.file_size = None;
    assert_field(&client.create(bad).await.unwrap_err(), "file.file_size");
    let mut bad = good.clone();
    bad.file_size = Some(-1);
    assert_field(&client.create(bad).await.unwrap_err(), "file.file_size");
    let mut bad = good.clone();
    bad.file_id = "no MD5 of a small file".into();
    assert_field(&client.create(bad).await.unwrap_err(), "file.file_id");
    let mut bad = good.clone();
    bad.permissions = 77;
    assert_field(&client.create(bad).await.unwrap_err(), "file.permissions");
    let mut bad = good;
    bad.set_permissions(Permissions::Admin);
    bad.file_name = "CON".into();
    assert_field(&client.create(bad).await.unwrap_err(), "file.file_name");
}

#[tokio::test]
async fn parts_outside_the_plan_are_refused() {
    let (_stores, _gateway, mut client, id) = chunked().await;
    let file_id = Md5::of(b"part").to_string();
    for part in [0, -1, 4, 10_001, i32::MAX] {
        let request = SignPartRequest {
            upload_id: id.clone(),
            part,
            file_id: file_id.clone(),
        };
        let refused = client.signing.sign_part(request).await.unwrap_err();
        assert_field(&refused, "part");
        let refused = client.signing.sign_parts(SignPartsRequest {
            upload_id: id.clone(),
            parts: vec![PartRef {
                part,
                file_id: file_id.clone(),
            }],
        });
        // Only the plan of the upload says that a number from 1 is too large.
        let field = if part < 1 { "parts[0].part" } else { "part" };
        assert_field(&refused.await.unwrap_err(), field);
    }
    let known = client.report(&id, "", &[], None).await.unwrap();
    assert!(known.part_list.is_empty(), "nothing of it was stored");
    let refused = client.signing.sign_parts(SignPartsRequest {
        upload_id: id,
        parts: vec![PartRef::default(); 101],
    });
    assert_eq!(refused.await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_part_without_an_md5_and_an_md5_without_a_part_are_refused() {
    let (_stores, _gateway, mut client, id) = chunked().await;
    let ask = |part: i32, file_id: &str| UpdateUploadRequest {
        upload_id: id.clone(),
        next: Some(Next::Part(PartRef {
            part,
            file_id: file_id.into(),
        })),
        ..UpdateUploadRequest::default()
    };
    let md5 = Md5::of(b"part");
    let refused = client.signing.update_upload(ask(1, "")).await.unwrap_err();
    assert_field(&refused, "part.file_id");
    let refused = client.signing.update_upload(ask(0, &md5.to_string()));
    assert_field(&refused.await.unwrap_err(), "part.part");
    for malformed in [
        "abc",
        "5ymJIxM7GVLfTbMS6YI1B===",
        &"0".repeat(31),
        &"é".repeat(16),
    ] {
        let refused = client.signing.update_upload(ask(1, malformed));
        assert_field(&refused.await.unwrap_err(), "part.file_id");
    }
    let both = [md5.to_string(), md5.to_hex()].map(|text| ask(1, &text));
    for good in both {
        client.signing.update_upload(good).await.unwrap();
    }
    let mut report = ask(1, &md5.to_string());
    report.part_data = vec![data(1, md5), data(0, md5)];
    let refused = client.signing.update_upload(report).await.unwrap_err();
    assert_field(&refused, "part_data[1].part");
}

#[tokio::test]
async fn an_unknown_upload_is_not_found() {
    let (_stores, _gateway, mut client, _) = chunked().await;
    for id in [UNKNOWN, "uploads-JUea_g-EeY", "../../etc/passwd"] {
        let refusals = [
            client.sign_part(id, 1, b"part").await.map(drop),
            client.sign_finish(id).await.map(drop),
            client.complete(id).await.map(drop),
            client
                .report(id, "session", &[], next_part(1, b"part"))
                .await
                .map(drop),
            client
                .signing
                .sign_download(SignDownloadRequest {
                    upload_id: id.into(),
                    expiry_minutes: 5,
                })
                .await
                .map(drop),
        ];
        for refused in refusals {
            assert_eq!(refused.unwrap_err().code(), Code::NotFound, "{id}");
        }
    }
}

#[tokio::test]
async fn a_session_has_a_plain_name() {
    let (_stores, _gateway, mut client, id) = chunked().await;
    for session in ["a b", "ü", &"x".repeat(1025)] {
        let refused = client.report(&id, session, &[], None).await.unwrap_err();
        assert_field(&refused, "resumable_id");
    }
}

/// Clients report what the store answered, for example a block list.
#[tokio::test]
async fn a_session_on_azure_has_any_name() {
    let Some(stores) = stores::azure().await else {
        return;
    };
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let list = "<BlockList>\u{fffd}é\n</BlockList>".repeat(100);
    for (session, recorded) in [
        ("<BlockList/>\n", "<BlockList/>\n"),
        (
            &*list,
            &*Sha256::digest(&list)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>(),
        ),
    ] {
        let step = client
            .create(file(&format!("{}.mp4", recorded.len()), &bytes(PART + 1)))
            .await;
        let id = step.unwrap().upload_id;
        client.report(&id, session, &[], None).await.unwrap();
        client.report(&id, "another", &[], None).await.unwrap();
        assert_eq!(gateway.get(&id).await.unwrap().resumable_id, recorded);
        let refused = client.report(&id, &"x".repeat(65_537), &[], None).await;
        assert_field(&refused.unwrap_err(), "resumable_id");
    }
}

#[tokio::test]
async fn a_part_on_s3_is_signed_for_a_session_only() {
    let stores = stores::embedded();
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(PART + 1);
    let step = client.create(file("film.mp4", &sent)).await.unwrap();
    let refused = client.sign_part(&step.upload_id, 1, b"part").await;
    assert_eq!(reason(&refused.unwrap_err()).1, "SESSION_NOT_STARTED");
    let refused = client.sign_finish(&step.upload_id).await;
    assert_eq!(reason(&refused.unwrap_err()).1, "SESSION_NOT_STARTED");
}

#[tokio::test]
async fn an_upload_of_unknown_size_is_not_signed() {
    let stores = stores::embedded();
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", None)).await;
    let id = stream.next().await.unwrap().upload_id;
    let refusals = [
        client.sign_part(&id, 1, b"part").await.map(drop),
        client.sign_finish(&id).await.map(drop),
        client.complete(&id).await.map(drop),
    ];
    for refused in refusals {
        let refused = reason(&refused.unwrap_err());
        assert_eq!(refused, (Code::FailedPrecondition, "SIZE_UNKNOWN".into()));
    }
}

#[tokio::test]
async fn only_complete_uploads_are_downloaded() {
    let (_stores, _gateway, mut client, id) = chunked().await;
    let ask = |minutes| SignDownloadRequest {
        upload_id: id.clone(),
        expiry_minutes: minutes,
    };
    let refused = client.signing.sign_download(ask(5)).await.unwrap_err();
    assert_eq!(reason(&refused).1, "WRONG_PHASE");
    for minutes in [-1, 1441] {
        let refused = client.signing.sign_download(ask(minutes)).await;
        assert_field(&refused.unwrap_err(), "expiry_minutes");
    }
}

#[tokio::test]
async fn a_storage_accepts_only_what_its_filters_allow() {
    let Some(s3) = common::s3().await else { return };
    let mut storage = s3.storage(S3Profile::Compatible);
    storage.options.ext_filter = vec!["mp4".into(), "pdf".into()];
    storage.options.mime_filter = vec!["video/mp4".into()];
    let stores = stores::embedded();
    let gateway = TestGateway::over(Config {
        storage: vec![storage],
        ..stores.config.clone()
    })
    .await;
    let mut client = Client::of(&gateway).await;
    let refused = client.create(file("a.exe", b"MZ")).await.unwrap_err();
    assert_field(&refused, "file.file_name");
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.metadata["restriction"], "mp4,pdf");
    // By its extension, if the client sends no media type.
    let refused = client.create(file("a.pdf", b"%PDF")).await.unwrap_err();
    assert_field(&refused, "file.file_mime");
    let refused = gateway.upload(vec![open_file(file("a.pdf", b""))]).await;
    assert_field(&refused.unwrap_err(), "file.file_mime");
    client.create(file("A.MP4", b"film")).await.unwrap();
    // The same create does not bypass them.
    let mut found = file("A.MP4", b"film");
    found.file_mime = "text/html".into();
    let refused = client.create(found).await.unwrap_err();
    assert_field(&refused, "file.file_mime");
}
