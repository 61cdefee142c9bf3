//! What a signature is bound to on S3.

use upload_gateway_core::{
    blobs::{
        Session,
        sign::{ReadVerb, SignedRequest, ToSign},
    },
    upload::Md5,
};

use super::{
    client::{expect_refusal, send, send_bytes},
    subject::{DAY, Subject, named, object},
};

/// Begins a session and binds its object and session to the given names.
macro_rules! begin {
    ($subject:ident, $object:ident, $session:ident) => {
        let $object = object(b"part");
        let id = $subject.begin(&$object).await;
        let $session = Session {
            key: &$object.key,
            id: &id,
            scope: None,
        };
    };
}

pub(crate) async fn a_signed_part_cannot_be_put_elsewhere(subject: &Subject) {
    begin!(subject, first, session);
    begin!(subject, second, other);
    let signed = subject.sign_part(session, 1, b"part").await;
    for (from, to) in [
        ("partNumber=1", "partNumber=2"),
        (session.id, other.id),
        (first.upload_id.as_str(), second.upload_id.as_str()),
    ] {
        let mut changed = signed.clone();
        changed.url = signed.url.replacen(from, to, 1);
        assert_ne!(changed.url, signed.url, "{from}");
        expect_refusal(&changed, b"part").await;
    }
    for verb in ["GET", "DELETE", "POST"] {
        let changed = SignedRequest {
            verb,
            ..signed.clone()
        };
        expect_refusal(&changed, b"").await;
    }
    assert!(subject.parts(session).await.is_empty());
    assert!(subject.parts(other).await.is_empty());
    send_bytes(&signed, b"part".to_vec()).await.expect_success();
}

pub(crate) async fn the_headers_of_a_part_are_bound(subject: &Subject) {
    begin!(subject, object, session);
    let signed = subject.sign_part(session, 1, b"part").await;
    let names: Vec<_> = signed.headers.keys().map(AsRef::as_ref).collect();
    assert_eq!(names, ["Content-MD5", "Content-Type"]);

    // Other bytes with their MD5.
    let mut changed = signed.clone();
    let md5 = Md5::of(b"trap").to_string();
    changed.headers.insert("Content-MD5".into(), md5);
    expect_refusal(&changed, b"trap").await;
    refuse_without_each_header(&signed, b"part").await;
    // The MD5 of other bytes of another length.
    expect_refusal(&signed, b"party").await;
    assert!(subject.parts(session).await.is_empty());
}

pub(crate) async fn the_length_of_an_object_is_bound(subject: &Subject) {
    let mut object = object(b"");
    object.md5 = None;
    let request = ToSign::PutObject {
        object: &object,
        size: 5,
    };
    let signed = subject.sign(request).await;
    assert!(!signed.headers.contains_key("Content-Length"));
    for body in ["1234", "123456", ""] {
        expect_refusal(&signed, body.as_bytes()).await;
    }
    assert_eq!(subject.store.head(&object.key).await.unwrap(), None);
    let stored = send_bytes(&signed, b"12345".to_vec()).await;
    stored.expect_success();
}

pub(crate) async fn the_headers_of_an_object_are_bound(subject: &Subject) {
    let mut object = object(b"whole");
    for md5 in [object.md5, None] {
        object.md5 = md5;
        let request = ToSign::PutObject {
            object: &object,
            size: 5,
        };
        let signed = subject.sign(request).await;
        let count = 3 + usize::from(md5.is_some());
        assert_eq!(signed.headers.len(), count, "{signed:?}");
        refuse_without_each_header(&signed, b"whole").await;
        let foreign = "uploads-of-another-client".to_owned();
        for (name, value) in [
            ("Content-Type", "text/html".to_owned()),
            ("x-amz-meta-uploadid", foreign),
        ] {
            let mut changed = signed.clone();
            changed.headers.insert(name.into(), value);
            expect_refusal(&changed, b"whole").await;
        }
    }
    let begin = subject.sign(ToSign::Begin { object: &object }).await;
    assert_eq!(begin.headers.len(), 2, "{begin:?}");
    refuse_without_each_header(&begin, b"").await;
    assert_eq!(subject.store.head(&object.key).await.unwrap(), None);
}

pub(crate) async fn a_list_shows_no_other_upload(subject: &Subject) {
    begin!(subject, object, session);
    let second = subject.begin(&object).await;
    let mut list = subject.sign(ToSign::ListParts { session }).await;
    list.url = list.url.replace(session.id, &second);
    expect_refusal(&list, b"").await;
    list.verb = "DELETE";
    list.url = list.url.replace(&second, session.id);
    expect_refusal(&list, b"").await;
    assert!(subject.parts(session).await.is_empty());
}

pub(crate) async fn a_signed_request_does_not_copy_another_object(subject: &Subject) {
    let mut secret = object(b"other");
    secret.key = format!("{}/other", secret.upload_id);
    let put = subject.store.put_object(&secret, (&b"other"[..]).into());
    put.await.unwrap();
    let bucket = subject.store.bucket();
    let copying = |mut signed: SignedRequest| {
        let source = format!("{bucket}/{}", secret.key);
        signed.headers.insert("x-amz-copy-source".into(), source);
        signed
    };
    for md5 in [Some(Md5::of(b"whole")), None] {
        let mut object = object(b"whole");
        object.md5 = md5;
        let request = ToSign::PutObject {
            object: &object,
            size: 5,
        };
        let signed = copying(subject.sign(request).await);
        expect_refusal(&signed, b"whole").await;
        assert_eq!(subject.store.head(&object.key).await.unwrap(), None);
    }
    begin!(subject, object, session);
    let signed = copying(subject.sign_part(session, 1, b"part").await);
    expect_refusal(&signed, b"part").await;
    assert!(subject.parts(session).await.is_empty());
}

pub(crate) async fn the_body_of_a_commit_is_free(subject: &Subject) {
    begin!(subject, object, session);
    subject.put(session, 1, b"part").await;
    let commit = ToSign::Commit {
        session,
        object: &object,
        parts: &[named(1, "not the ETag".into())],
    };
    let commit = subject.sign(commit).await;
    assert_ne!(send(&commit).await.status, 200);
    let body = format!(
        "<CompleteMultipartUpload><Part><ETag>{}</ETag><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>",
        Md5::of(b"part").to_hex()
    );
    send_bytes(&commit, body.into_bytes())
        .await
        .expect_success();
    assert_eq!(subject.read(&object.key).await, b"part");
}

pub(crate) async fn a_download_keeps_its_type(subject: &Subject) {
    let object = object(b"whole");
    let put = subject.store.put_object(&object, (&b"whole"[..]).into());
    put.await.unwrap();
    let read = ToSign::Read {
        verb: ReadVerb::Get,
        key: &object.key,
        file_name: "file.txt",
        mime: "text/plain",
        lifetime: DAY,
    };
    let signed = subject.sign(read).await;
    for (from, to) in [
        ("text%2Fplain", "text%2Fhtml"),
        ("attachment", "inline"),
        ("X-Amz-Expires=86400", "X-Amz-Expires=86401"),
    ] {
        let mut changed = signed.clone();
        changed.url = signed.url.replacen(from, to, 1);
        assert_ne!(changed.url, signed.url, "{from}");
        expect_refusal(&changed, b"").await;
    }
    send(&signed).await.expect_success();
}

async fn refuse_without_each_header(signed: &SignedRequest, body: &[u8]) {
    for name in signed.headers.keys() {
        let mut changed = signed.clone();
        changed.headers.remove(name);
        expect_refusal(&changed, body).await;
    }
}
