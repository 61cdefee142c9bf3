//! What a signature with the account key is bound to on Azure: blob, permission and time.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use upload_gateway_core::{
    blobs::{
        Session,
        sign::{ReadVerb, SignedRequest, ToSign},
    },
    upload::Timestamp,
};

use super::{
    client::{expect_refusal, send, send_bytes},
    subject::{DAY, Subject, named, now, object},
};

/// A session of an object; its name does not matter.
macro_rules! session {
    ($object:ident) => {
        Session {
            key: &$object.key,
            id: "anything",
            scope: None,
        }
    };
}

pub(crate) async fn a_signature_is_for_one_blob(subject: &Subject) {
    let (first, second) = (object(b"part"), object(b"part"));
    let whole = ToSign::PutObject {
        object: &first,
        size: 4,
    };
    for mut signed in [
        subject.sign_part(session!(first), 1, b"part").await,
        subject.sign(whole).await,
    ] {
        let (from, to) = (first.upload_id.as_str(), second.upload_id.as_str());
        signed.url = signed.url.replacen(from, to, 1);
        expect_refusal(&signed, b"part").await;
    }
    assert!(subject.parts(session!(second)).await.is_empty());
    assert_eq!(subject.store.head(&second.key).await.unwrap(), None);
}

pub(crate) async fn a_signature_allows_what_it_names(subject: &Subject) {
    let object = object(b"whole");
    let whole = ToSign::PutObject {
        object: &object,
        size: 5,
    };
    let put = subject.sign(whole).await;
    send_bytes(&put, b"whole".to_vec()).await.expect_success();
    let read = ToSign::Read {
        verb: ReadVerb::Get,
        key: &object.key,
        file_name: "file.txt",
        mime: "text/plain",
        lifetime: DAY,
    };
    let read = subject.sign(read).await;
    let part = subject.sign_part(session!(object), 1, b"part").await;

    for (signed, verb) in [
        (&put, "GET"),
        (&put, "DELETE"),
        (&part, "GET"),
        (&part, "DELETE"),
        (&read, "DELETE"),
    ] {
        let changed = SignedRequest {
            verb,
            ..(*signed).clone()
        };
        expect_refusal(&changed, b"").await;
    }
    let mut over = put.clone();
    over.url.clone_from(&read.url);
    expect_refusal(&over, b"whole").await;
    for (signed, from, to) in [(&read, "sp=r&", "sp=rcwd&"), (&put, "sp=c&", "sp=cwd&")] {
        let mut changed = put.clone();
        changed.url = signed.url.replacen(from, to, 1);
        assert_ne!(changed.url, signed.url);
        expect_refusal(&changed, b"whole").await;
    }
    assert_eq!(subject.read(&object.key).await, b"whole");
}

pub(crate) async fn the_times_of_a_signature_are_bound(subject: &Subject) {
    let object = object(b"part");
    let session = session!(object);
    let signed = subject.sign_part(session, 1, b"part").await;
    let later = subject
        .store
        .sign(
            &ToSign::ListParts { session },
            &Timestamp(now().0 + 60 * 60 * 1_000),
        )
        .await
        .unwrap();
    expect_refusal(&later, b"").await;
    for name in ["st", "se"] {
        let [own, foreign] = [&signed, &later].map(|request| parameter(request, name));
        let mut changed = signed.clone();
        changed.url = signed.url.replacen(&own, &foreign, 1);
        assert_ne!(changed.url, signed.url);
        expect_refusal(&changed, b"part").await;
    }
    assert!(subject.parts(session).await.is_empty());
}

pub(crate) async fn a_block_list_has_the_form_that_placeos_documents(subject: &Subject) {
    let mut object = object(b"");
    object.md5 = None;
    let id = |number: u32| BASE64_STANDARD.encode(format!("{number:06}"));
    let parts: Vec<_> = (1..=4).map(|number| named(number, id(number))).collect();
    let commit = ToSign::Commit {
        session: session!(object),
        object: &object,
        parts: &parts,
    };
    let commit = subject.sign(commit).await;
    assert_eq!(
        commit.body.as_deref(),
        Some(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<BlockList><Latest>MDAwMDAx</Latest>\
             <Latest>MDAwMDAy</Latest><Latest>MDAwMDAz</Latest><Latest>MDAwMDA0</Latest></BlockList>\n"
        )
    );
    assert_eq!(commit.headers["Content-Type"], "binary/octet-stream");
    assert_eq!(commit.headers["x-ms-blob-content-type"], "video/mp4");
    assert!(!commit.headers.contains_key("x-ms-blob-content-md5"));
    let names = ["sv", "spr", "st", "se", "sp", "sr", "sig", "comp"];
    assert_eq!(parameters(&commit.url), names);
    assert_eq!(parameter(&commit, "sp"), "sp=cw");
}

pub(crate) async fn a_part_has_the_url_that_placeos_documents(subject: &Subject) {
    let object = object(b"");
    let part = subject.sign_part(session!(object), 1, b"part").await;
    let names = [
        "sv", "spr", "st", "se", "sp", "sr", "sig", "comp", "blockid",
    ];
    assert_eq!(parameters(&part.url), names);
    let start = "?sv=2024-05-04&spr=https%2Chttp&st=20";
    assert!(part.url.contains(start), "{}", part.url);
    assert!(part.url.contains("&sp=cw&sr=b&sig="), "{}", part.url);
    let end = "&comp=block&blockid=MDAwMDAx";
    assert!(part.url.ends_with(end), "{}", part.url);
}

pub(crate) async fn no_request_begins_a_session(subject: &Subject) {
    let object = object(b"");
    let begin = subject.sign(ToSign::Begin { object: &object }).await;
    assert_eq!((begin.verb, begin.url.as_str()), ("PUT", ""));
    assert_eq!(begin.headers["x-ms-blob-content-type"], "video/mp4");

    // A commit without parts makes an empty blob, which keeps its type.
    let commit = ToSign::Commit {
        session: session!(object),
        object: &object,
        parts: &[],
    };
    send(&subject.sign(commit).await).await.expect_success();
    assert_eq!(subject.media_type(&object.key).await, "video/mp4");
}

/// `name=value`, encoded as in the query.
fn parameter(request: &SignedRequest, name: &str) -> String {
    let (_, query) = request.url.split_once('?').unwrap();
    let pairs = query.split('&');
    let mut wanted = pairs.filter(|pair| pair.starts_with(&format!("{name}=")));
    wanted.next().unwrap().to_owned()
}

/// The names of the query parameters of a URL.
fn parameters(url: &str) -> Vec<&str> {
    let (_, query) = url.split_once('?').unwrap();
    let pairs = query.split('&');
    pairs.map(|pair| pair.split_once('=').unwrap().0).collect()
}
