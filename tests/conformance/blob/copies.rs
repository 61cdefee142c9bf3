//! Copies that a store makes by itself.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use upload_gateway_core::{
    blobs::{Commit, Copied, CopySource, NewObject, PartCopy, Put, Session, StoredPut},
    clock::Clock,
    error::{Error, Kind, Reason, Result},
    upload::{Checksum, Md5, Part, Placement, Timestamp, WriterTag},
};

use super::subject::{PART, Subject, bytes};

#[derive(Debug)]
struct Now;

impl Clock for Now {
    fn now(&self) -> Timestamp {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp(now.as_millis().try_into().unwrap())
    }
}

/// An object with these bytes, as the store reads it by itself.
async fn source(subject: &Subject, body: &[u8]) -> (NewObject, CopySource) {
    let mut object = subject.object();
    object.key = format!("media/{}/a b+ü.bin", object.upload_id);
    let etag = if body.len() <= PART {
        let put = subject.store.put_object(&object, body.to_vec().into());
        let Put::Stored(StoredPut { etag, .. }) = put.await.unwrap() else {
            panic!("the key is new");
        };
        etag
    } else {
        let id = subject.store.begin(&object).await.unwrap().id;
        let session = Session {
            key: &object.key,
            id: &id,
            scope: None,
        };
        let mut parts = Vec::new();
        for (number, part) in (1..).zip(body.chunks(PART)) {
            parts.push(subject.put(&session, number, part).await);
        }
        let commit = subject.store.commit(&session, &object, &parts).await;
        assert_eq!(commit.unwrap(), Commit::Done);
        let head = subject.store.head(&object.key).await.unwrap().unwrap();
        head.etag
    };
    let source = subject.store.copy_source(&object.key, &etag, &Now).await;
    (object, source.unwrap())
}

/// Whether the store does not copy objects by itself. Only those without sessions may refuse it.
fn is_refused<T>(subject: &Subject, copied: &Result<T>) -> bool {
    let is_refused =
        |error: &Error| error.kind() == Kind::Unimplemented && error.reason() == Reason::NotOffered;
    let refused = copied.as_ref().is_err_and(is_refused);
    assert!(!refused || !subject.sessions, "{:?}", copied.as_ref().err());
    refused
}

pub(crate) async fn an_object_is_copied_with_the_metadata_of_the_copy(subject: &Subject) {
    let store = &subject.store;
    for size in [0, 7, PART + 3] {
        let body = bytes(size, 9);
        let (_, source) = source(subject, &body).await;
        let copy = NewObject {
            mime: "image/png".into(),
            placement: Box::new(Placement {
                metadata: [("project".into(), "the copy's".into())].into(),
                cache_control: Some("no-store".into()),
                ..Placement::default()
            }),
            ..subject.object()
        };
        let copied = store.copy_object(&copy, &source).await;
        if is_refused(subject, &copied) {
            assert_eq!(store.head(&copy.key).await.unwrap(), None);
            continue;
        }
        copied.unwrap();
        let head = store.head(&copy.key).await.unwrap().unwrap();
        assert!(head.is_of(&copy.upload_id), "{head:?}");
        assert_eq!((head.md5, head.size), (Some(Md5::of(&body)), size as u64));
        assert_eq!(head.mime.as_deref(), Some("image/png"));
        assert_eq!(head.placement.cache_control.as_deref(), Some("no-store"));
        assert_eq!(head.metadata["project"], "the copy's");
        assert!(subject.read(&copy.key).await == body);
    }
}

/// Copies the bytes from `start` on as one part.
async fn copy_part(
    subject: &Subject,
    session: &Session<'_>,
    (number, start, body): (u32, usize, &[u8]),
    source: &CopySource,
) -> Result<Copied> {
    let part = PartCopy {
        number,
        writer: WriterTag::random(),
        range: start as u64..(start + body.len()) as u64,
        is_whole: false,
        md5: Some(Md5::of(body)),
    };
    subject.store.copy_part(session, &part, source).await
}

pub(crate) async fn parts_are_copied_from_ranges_of_an_object(subject: &Subject) {
    let store = &subject.store;
    let body = bytes(2 * PART + 9, 4);
    let (_, source) = source(subject, &body).await;
    let object = subject.object();
    let id = store.begin(&object).await.unwrap().id;
    let session = Session {
        key: &object.key,
        id: &id,
        scope: None,
    };
    let mut parts = Vec::new();
    // Other bounds than those of the parts of the source.
    for (number, start) in [(1, 1), (2, PART + 1)] {
        let range = start..(start + PART).min(body.len());
        let part = (number, start, &body[range.clone()]);
        let copied = copy_part(subject, &session, part, &source).await;
        let copied = copied.unwrap();
        assert_eq!(copied.md5, Some(Md5::of(part.2)));
        parts.push(Part {
            number,
            offset: 0,
            size: range.len() as u64,
            checksum: copied.md5.map(Checksum::Md5),
            receipt: copied.receipt,
            digest: None,
        });
    }
    let last = &body[..5];
    parts.push(subject.put(&session, 3, last).await);
    let listed = store.list_parts(&session).await.unwrap().unwrap();
    let receipts =
        |parts: &[Part]| -> Vec<String> { parts.iter().map(|part| part.receipt.clone()).collect() };
    let listed: Vec<_> = listed.into_iter().map(|part| part.receipt).collect();
    assert_eq!(listed, receipts(&parts));
    let commit = store.commit(&session, &object, &parts).await;
    assert_eq!(commit.unwrap(), Commit::Done);
    assert!(subject.read(&object.key).await == [&body[1..=2 * PART], last].concat());
}

pub(crate) async fn only_the_source_with_the_etag_is_copied(subject: &Subject) {
    let store = &subject.store;
    let (stored, source) = source(subject, b"first").await;
    let second = NewObject {
        md5: Some(Md5::of(b"other")),
        ..stored
    };
    store
        .replace(&second, (&b"other"[..]).into())
        .await
        .unwrap();
    let object = subject.object();
    let id = store.begin(&object).await.unwrap().id;
    let session = Session {
        key: &object.key,
        id: &id,
        scope: None,
    };
    let copied = copy_part(subject, &session, (1, 0, b"first"), &source).await;
    let error = copied.unwrap_err();
    assert_eq!(error.reason(), Reason::ObjectChanged, "{error:?}");
    let copied = store.copy_object(&object, &source).await;
    if !is_refused(subject, &copied) {
        let error = copied.unwrap_err();
        assert_eq!(error.reason(), Reason::ObjectChanged, "{error:?}");
    }
    assert_eq!(store.list_parts(&session).await.unwrap(), Some(Vec::new()));
    assert_eq!(store.head(&object.key).await.unwrap(), None);
}

pub(crate) async fn a_copied_part_with_other_bytes_is_noticed(subject: &Subject) {
    let (_, source) = source(subject, b"stored").await;
    let object = subject.object();
    let id = subject.store.begin(&object).await.unwrap().id;
    let session = Session {
        key: &object.key,
        id: &id,
        scope: None,
    };
    let copied = copy_part(subject, &session, (1, 0, b"wanted"), &source).await;
    match copied {
        Ok(copied) => assert_eq!(copied.md5, Some(Md5::of(b"stored"))),
        Err(error) => assert_eq!(error.reason(), Reason::ChecksumMismatch, "{error:?}"),
    }
}

pub(crate) async fn a_source_that_does_not_exist_is_refused(subject: &Subject) {
    let absent = subject.object();
    let source = subject.store.copy_source(&absent.key, "0x1", &Now).await;
    let source = source.unwrap();
    let store = Arc::clone(&subject.store);
    let object = subject.object();
    let id = store.begin(&object).await.unwrap().id;
    let session = Session {
        key: &object.key,
        id: &id,
        scope: None,
    };
    let copied = copy_part(subject, &session, (1, 0, b"absent"), &source).await;
    let error = copied.unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
    let error = store.copy_object(&object, &source).await.unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
}

pub(crate) async fn the_address_of_a_source_is_not_printed(subject: &Subject) {
    let (_, source) = source(subject, b"secret").await;
    let printed = format!("{source:?}");
    assert!(!printed.contains(&source.address), "{printed}");
    assert!(!printed.contains("sig="), "{printed}");
}
