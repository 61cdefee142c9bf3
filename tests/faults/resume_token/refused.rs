//! Tokens that prove nothing.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use upload_gateway_client::proto::v1::{
    FileMetadata, Open, UploadRequest, open::Target, upload_request::Message,
};

use super::{
    client,
    common::{TestGateway, bytes, message, reason},
    sender::{Kept, PART, file, open_with},
};

/// An upload with one part, and its stream at its end.
async fn begun(gateway: &TestGateway, file: FileMetadata) -> Kept {
    let (kept, stream) = Kept::begin(gateway, file, &bytes(2 * PART), 1).await;
    drop(stream);
    kept
}

fn open_file_with(file: FileMetadata, token: &str, restart: bool) -> UploadRequest {
    message(Message::Open(Open {
        target: Some(Target::File(file)),
        resume_token: token.into(),
        restart,
        ..Open::default()
    }))
}

async fn refusal(gateway: &TestGateway, open: UploadRequest) -> Status {
    gateway.upload(vec![open]).await.unwrap_err()
}

fn assert_refused(status: &Status) {
    assert_eq!(
        reason(status),
        (Code::InvalidArgument, "INVALID_TOKEN".into())
    );
    let fields = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(fields[0].field, "open.resume_token");
}

/// The stream was opened, and ended for want of more.
fn assert_taken(status: &Status) {
    assert_eq!(
        reason(status),
        (Code::FailedPrecondition, "INCOMPLETE".into())
    );
}

#[tokio::test]
async fn a_token_that_was_changed_anywhere_is_refused() {
    let gateway = TestGateway::start().await;
    let kept = begun(&gateway, file(None)).await;
    let token = BASE64_URL_SAFE_NO_PAD.decode(&kept.token).unwrap();
    for at in (0..token.len()).step_by(37).chain(0..20) {
        let mut changed = token.clone();
        changed[at] ^= 1;
        let changed = BASE64_URL_SAFE_NO_PAD.encode(changed);
        assert_refused(&refusal(&gateway, open_with(&kept.upload_id, &changed)).await);
    }
    let shortened = &kept.token[..kept.token.len() - 8];
    for token in [shortened, "x", "not base64!", "AA"] {
        assert_refused(&refusal(&gateway, open_with(&kept.upload_id, token)).await);
    }
    assert_taken(&refusal(&gateway, open_with(&kept.upload_id, &kept.token)).await);
}

#[tokio::test]
async fn a_token_of_another_upload_is_refused() {
    let gateway = TestGateway::start().await;
    let (one, other) = (
        begun(&gateway, file(None)).await,
        begun(&gateway, file(None)).await,
    );
    assert_refused(&refusal(&gateway, open_with(&one.upload_id, &other.token)).await);
}

#[tokio::test]
async fn with_a_file_the_token_must_be_of_the_same_create() {
    let gateway = TestGateway::start().await;
    let data = bytes(2 * PART);
    let described = client::file("film.mp4", &data);
    let kept = begun(&gateway, described.clone()).await;
    let with = |file: &FileMetadata| open_file_with(file.clone(), &kept.token, false);
    assert_taken(&refusal(&gateway, with(&described)).await);
    let others = [
        FileMetadata {
            file_name: "other.mp4".into(),
            ..described.clone()
        },
        FileMetadata {
            file_size: None,
            ..described.clone()
        },
        FileMetadata {
            file_id: String::new(),
            ..described.clone()
        },
        client::file("film.mp4", &data[1..]),
    ];
    for other in &others {
        assert_refused(&refusal(&gateway, with(other)).await);
    }
    let restart = open_file_with(described, &kept.token, true);
    assert_refused(&refusal(&gateway, restart).await);
}
