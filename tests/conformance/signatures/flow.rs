//! What every store does with signed requests.

use std::time::Duration;

use upload_gateway_core::{
    blobs::{
        Session,
        sign::{ReadVerb, SHORTEST_LIFETIME, ToSign},
    },
    upload::Md5,
};

use super::{
    client::{expect_refusal, expect_status, send, send_bytes},
    subject::{DAY, PART, Subject, object, two_hours_ago},
};
use crate::common;

pub(crate) async fn a_file_is_put_whole(subject: &Subject) {
    let body = common::bytes(100_000);
    let object = object(&body);
    let request = ToSign::PutObject {
        object: &object,
        size: 100_000,
    };
    let request = subject.sign(request).await;
    assert_eq!(request.verb, "PUT");
    send_bytes(&request, body.clone()).await.expect_success();

    let head = subject.store.head(&object.key).await.unwrap().unwrap();
    assert_eq!(head.upload_id(), Some(object.upload_id.as_str()));
    assert_eq!((head.md5, head.size), (object.md5, 100_000));
    assert_eq!(subject.media_type(&object.key).await, "video/mp4");
    assert!(subject.read(&object.key).await == body);
}

pub(crate) async fn an_empty_file_is_put_whole(subject: &Subject) {
    let object = object(b"");
    let request = ToSign::PutObject {
        object: &object,
        size: 0,
    };
    let request = subject.sign(request).await;
    send_bytes(&request, Vec::new()).await.expect_success();
    let head = subject.store.head(&object.key).await.unwrap().unwrap();
    assert_eq!(head.size, 0);
}

pub(crate) async fn a_file_of_unknown_digest_is_put_once(subject: &Subject) {
    let mut object = object(b"");
    object.md5 = None;
    let request = ToSign::PutObject {
        object: &object,
        size: 5,
    };
    let request = subject.sign(request).await;
    send_bytes(&request, b"first".to_vec())
        .await
        .expect_success();
    // Azure has a permission for this, S3 a condition.
    expect_status(&request, b"later", &[403, 412]).await;
    assert_eq!(subject.read(&object.key).await, b"first");
}

pub(crate) async fn parts_become_a_file_without_any_credentials(subject: &Subject) {
    let body = common::bytes(PART + 1_000);
    let mut object = object(b"");
    object.md5 = None;
    let id = subject.begin(&object).await;
    let session = Session {
        key: &object.key,
        id: &id,
        scope: None,
    };
    subject.put(session, 2, &body[PART..]).await;
    subject.put(session, 1, &body[..PART]).await;
    let parts = subject.parts(session).await;
    assert_eq!(parts.len(), 2);

    let commit = ToSign::Commit {
        session,
        object: &object,
        parts: &parts,
    };
    send(&subject.sign(commit).await).await.expect_success();
    let head = subject.store.head(&object.key).await.unwrap().unwrap();
    assert_eq!(head.upload_id(), Some(object.upload_id.as_str()));
    assert_eq!((head.size, head.md5), (body.len() as u64, None));
    assert_eq!(subject.media_type(&object.key).await, "video/mp4");
    assert!(subject.read(&object.key).await == body);

    let read = ToSign::Read {
        verb: ReadVerb::Get,
        key: &object.key,
        file_name: "file.bin",
        mime: &object.mime,
        lifetime: DAY,
    };
    let answer = send(&subject.sign(read).await).await.expect_success();
    assert!(answer.body == body);
}

pub(crate) async fn a_list_names_the_stored_parts(subject: &Subject) {
    let object = object(b"");
    let id = subject.begin(&object).await;
    let session = Session {
        key: &object.key,
        id: &id,
        scope: None,
    };
    subject.put(session, 1, b"a part").await;
    let list = subject.sign(ToSign::ListParts { session }).await;
    assert_eq!((list.verb, list.headers.len()), ("GET", 0));
    let answer = send(&list).await.expect_success();
    assert_eq!(answer.element("Size").as_deref(), Some("6"));
    if let Some(upload_id) = answer.element("UploadId") {
        assert_eq!(upload_id, id);
    } else {
        assert_eq!(answer.element("Name").as_deref(), Some("MDAwMDAx"));
    }
}

pub(crate) async fn a_download_has_the_name_of_the_file(subject: &Subject) {
    let object = object(b"text");
    let put = subject.store.put_object(&object, (&b"text"[..]).into());
    put.await.unwrap();
    let read = ToSign::Read {
        verb: ReadVerb::Get,
        key: &object.key,
        file_name: "Grüße \"an\" 100%.txt",
        mime: "text/plain; charset=utf-8",
        lifetime: DAY,
    };
    let answer = send(&subject.sign(read).await).await.expect_success();
    assert_eq!(answer.body, b"text");
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(
        answer.header("content-disposition"),
        Some(
            "attachment; filename=\"Gr__e _an_ 100_.txt\"; \
             filename*=UTF-8''Gr%C3%BC%C3%9Fe%20%22an%22%20100%25.txt"
        )
    );
}

pub(crate) async fn the_headers_of_a_download_can_be_read(subject: &Subject) {
    let object = object(b"text");
    let put = subject.store.put_object(&object, (&b"text"[..]).into());
    put.await.unwrap();
    let read = ToSign::Read {
        verb: ReadVerb::Head,
        key: &object.key,
        file_name: "file.txt",
        mime: "text/plain",
        lifetime: DAY,
    };
    let signed = subject.sign(read).await;
    assert_eq!(signed.verb, "HEAD");
    let answer = send(&signed).await.expect_success();
    assert_eq!(answer.header("content-length"), Some("4"));
    assert_eq!(answer.body, b"");
}

pub(crate) async fn an_expired_signature_is_refused(subject: &Subject) {
    let object = object(b"x");
    let id = subject.begin(&object).await;
    let session = Session {
        key: &object.key,
        id: &id,
        scope: None,
    };
    subject.put(session, 1, b"there").await;
    let parts = subject.parts(session).await;
    for request in [
        ToSign::PutObject {
            object: &object,
            size: 1,
        },
        ToSign::PutPart {
            session,
            number: 2,
            cut: 0,
            size: 1,
            md5: Md5::of(b"x"),
        },
        ToSign::ListParts { session },
        ToSign::Commit {
            session,
            object: &object,
            parts: &parts,
        },
        ToSign::Read {
            verb: ReadVerb::Get,
            key: &object.key,
            file_name: "x",
            mime: "text/plain",
            lifetime: Duration::from_secs(60),
        },
    ] {
        assert!(request.lifetime() <= SHORTEST_LIFETIME);
        let signed = subject.store.sign(&request, &two_hours_ago()).await;
        let signed = signed.unwrap();
        let body = signed.body.clone().unwrap_or_else(|| "x".into());
        expect_refusal(&signed, body.as_bytes()).await;
    }
    assert_eq!(subject.store.head(&object.key).await.unwrap(), None);
    assert_eq!(subject.parts(session).await, parts);
}

pub(crate) async fn bytes_that_differ_from_the_signature_are_refused(subject: &Subject) {
    let object = object(b"meant");
    let id = subject.begin(&object).await;
    let session = Session {
        key: &object.key,
        id: &id,
        scope: None,
    };
    let part = subject.sign_part(session, 1, b"meant").await;
    expect_status(&part, b"other", &[400]).await;
    assert!(subject.parts(session).await.is_empty());

    let whole = ToSign::PutObject {
        object: &object,
        size: 5,
    };
    expect_status(&subject.sign(whole).await, b"other", &[400]).await;
    assert_eq!(subject.store.head(&object.key).await.unwrap(), None);
}
