//! Sessions and parts.

use futures::{StreamExt, TryStreamExt, stream};
use upload_gateway_core::{
    blobs::{Commit, Session},
    error::{Kind, Reason},
    upload::{Checksum, CompositeMd5, Crc64Nvme, Integrity, Md5, Part, WriterTag},
};

use super::subject::{PART, Subject, bytes};

/// Begins a session and binds its object and session to the given names.
macro_rules! begin {
    ($subject:ident, $object:ident, $session:ident) => {
        let $object = $subject.object();
        let id = $subject.store.begin(&$object).await.unwrap().id;
        let $session = Session {
            key: &$object.key,
            id: &id,
            scope: None,
        };
    };
}

pub(crate) async fn parts_put_out_of_order_make_the_object_in_order(subject: &Subject) {
    begin!(subject, object, session);
    let (first, second, last) = (bytes(PART, 1), bytes(PART, 2), bytes(3, 3));
    let writer = WriterTag::random();
    let last_part = subject.put_as(writer, &session, 3, &last).await;
    let first_part = subject.put_as(writer, &session, 1, &first).await;
    let second_part = subject.put_as(writer, &session, 2, &second).await;

    let listed = subject.store.list_parts(&session).await.unwrap().unwrap();
    let parts = [first_part, second_part, last_part];
    for (listed, part) in listed.iter().zip(&parts) {
        assert_eq!(listed.number, Some(part.number));
        // S3 lists the MD5, Azure the writer of the part.
        let (md5, crc64, by) = if subject.sessions {
            (part.probable_md5(), part.crc64nvme(), None)
        } else {
            (None, None, Some(writer))
        };
        assert_eq!((listed.md5, listed.writer), (md5, by));
        assert_eq!(listed.crc64nvme, crc64);
        assert_eq!((&listed.receipt, listed.size), (&part.receipt, part.size));
    }
    assert_eq!(listed.len(), 3);

    let commit = subject.store.commit(&session, &object, &parts).await;
    assert_eq!(commit.unwrap(), Commit::Done);
    let head = subject.store.head(&object.key).await.unwrap().unwrap();
    assert_eq!(head.size, 2 * PART as u64 + 3);
    assert!(!head.etag.is_empty() && !head.etag.contains('"'));
    assert_eq!(head.md5, None, "no digest of the whole is proven");
    let composite = CompositeMd5::of(parts.iter().filter_map(Part::probable_md5));
    let composite = subject.sessions.then_some(composite);
    assert_eq!(head.composite, composite);
    if subject.sessions && subject.integrity == Integrity::Crc64Nvme {
        let whole = Crc64Nvme::of(&[&*first, &second, &last].concat());
        assert_eq!(head.crc64nvme, Some(whole));
    }
    assert!(subject.read(&object.key).await == [first, second, last].concat());
}

pub(crate) async fn a_part_put_again_replaces_itself(subject: &Subject) {
    begin!(subject, object, session);
    let writer = WriterTag::random();
    subject.put_as(writer, &session, 1, b"first").await;
    let part = subject.put_as(writer, &session, 1, b"second try").await;

    let listed = subject.store.list_parts(&session).await.unwrap().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].receipt, listed[0].size), (&part.receipt, 10));
    let commit = subject.store.commit(&session, &object, &[part]).await;
    assert_eq!(commit.unwrap(), Commit::Done);
    assert_eq!(subject.read(&object.key).await, b"second try");
}

pub(crate) async fn a_damaged_part_is_refused_and_not_kept(subject: &Subject) {
    begin!(subject, object, session);
    let mut part = subject.part(WriterTag::random(), 1, b"sent");
    part.checksum = Checksum::of(subject.integrity, b"meant");
    let error = subject.store.put_part(&session, part).await.unwrap_err();
    assert_eq!(error.kind(), Kind::DataLoss, "{error:?}");
    let listed = subject.store.list_parts(&session).await.unwrap();
    assert_eq!(listed, Some(Vec::new()));
}

pub(crate) async fn a_wrong_receipt_is_part_replaced(subject: &Subject) {
    begin!(subject, object, session);
    let part = subject.put(&session, 1, b"part").await;
    let mut wrong = part.clone();
    wrong.receipt = subject.foreign_receipt();
    let commit = subject.store.commit(&session, &object, &[wrong]).await;
    assert_eq!(commit.unwrap(), Commit::PartReplaced);
    assert_eq!(subject.store.head(&object.key).await.unwrap(), None);

    let commit = subject.store.commit(&session, &object, &[part]).await;
    assert_eq!(commit.unwrap(), Commit::Done, "the refusal changed nothing");
}

pub(crate) async fn a_part_that_was_never_put_is_part_replaced(subject: &Subject) {
    begin!(subject, object, session);
    let first = subject.put(&session, 1, &bytes(PART, 1)).await;
    let mut absent = first.clone();
    absent.number = 2;
    absent.receipt = subject.foreign_receipt();
    let commit = subject
        .store
        .commit(&session, &object, &[first, absent])
        .await;
    assert_eq!(commit.unwrap(), Commit::PartReplaced);
    assert_eq!(subject.store.head(&object.key).await.unwrap(), None);
}

pub(crate) async fn a_commit_may_be_repeated(subject: &Subject) {
    begin!(subject, object, session);
    let parts = [subject.put(&session, 1, b"part").await];
    let commit = subject.store.commit(&session, &object, &parts).await;
    assert_eq!(commit.unwrap(), Commit::Done);
    let commit = subject.store.commit(&session, &object, &parts).await;
    assert_eq!(commit.unwrap(), subject.repeated_commit);
    assert_eq!(subject.read(&object.key).await, b"part");
}

pub(crate) async fn an_unknown_session_is_distinguished_from_an_empty_one(subject: &Subject) {
    begin!(subject, object, session);
    let listed = subject.store.list_parts(&session).await.unwrap();
    assert_eq!(listed, Some(Vec::new()), "nothing was put yet");

    let unknown = Session {
        key: session.key,
        id: "00000000-0000-0000-0000-000000000000",
        scope: None,
    };
    let part = subject.part(WriterTag::random(), 1, b"part");
    let put = subject.store.put_part(&unknown, part).await;
    let listed = subject.store.list_parts(&unknown).await.unwrap();
    if subject.sessions {
        assert_eq!(listed, None);
        let error = put.unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition, "{error:?}");
        assert_eq!(error.reason(), Reason::SessionLost);
        let commit = subject.store.commit(&unknown, &object, &[]).await;
        // Without parts some stores refuse the request before they look for the session.
        let refused = [Commit::SessionGone, Commit::Refused];
        assert!(commit.is_err() || refused.contains(&commit.unwrap()));
    } else {
        assert_eq!(listed.unwrap().len(), 1, "only the key matters");
        assert!(put.is_ok());
    }
}

pub(crate) async fn an_aborted_session_may_be_aborted_again(subject: &Subject) {
    begin!(subject, object, session);
    let part = subject.put(&session, 1, b"part").await;
    subject.store.abort(&session).await.unwrap();
    subject.store.abort(&session).await.unwrap();
    assert_eq!(subject.store.head(&object.key).await.unwrap(), None);
    if subject.sessions {
        assert_eq!(subject.store.list_parts(&session).await.unwrap(), None);
        let commit = subject.store.commit(&session, &object, &[part]).await;
        assert_eq!(commit.unwrap(), Commit::SessionGone);
        let late = subject.part(WriterTag::random(), 1, b"late");
        let error = subject.store.put_part(&session, late).await.unwrap_err();
        assert_eq!(error.reason(), Reason::SessionLost);
    }
}

pub(crate) async fn another_writer_never_changes_what_a_commit_names(subject: &Subject) {
    begin!(subject, object, session);
    let recorded = subject.put(&session, 1, b"recorded").await;
    subject.put(&session, 1, b"another writer's").await;
    let commit = subject.store.commit(&session, &object, &[recorded]).await;
    if subject.sessions {
        assert_eq!(commit.unwrap(), Commit::PartReplaced);
    } else {
        assert_eq!(commit.unwrap(), Commit::Done);
        assert_eq!(subject.read(&object.key).await, b"recorded");
    }
}

pub(crate) async fn more_parts_than_one_page_are_listed(subject: &Subject) {
    begin!(subject, _object, session);
    let writer = WriterTag::random();
    stream::iter(1..=1_005)
        .map(|number| {
            subject
                .store
                .put_part(&session, subject.part(writer, number, b"x"))
        })
        .buffer_unordered(16)
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    let listed = subject.store.list_parts(&session).await.unwrap().unwrap();
    let numbers: Vec<_> = listed.iter().filter_map(|part| part.number).collect();
    assert_eq!(numbers, (1..=1_005).collect::<Vec<_>>());
}

pub(crate) async fn a_commit_keeps_a_proven_digest_if_the_store_can(subject: &Subject) {
    begin!(subject, object, session);
    let mut object = object.clone();
    (object.md5, object.crc64nvme) = (Some(Md5::of(b"part")), Some(Crc64Nvme::of(b"part")));
    let parts = [subject.put(&session, 1, b"part").await];
    let commit = subject.store.commit(&session, &object, &parts).await;
    assert_eq!(commit.unwrap(), Commit::Done);
    let head = subject.store.head(&object.key).await.unwrap().unwrap();
    let kept = if subject.sessions { None } else { object.md5 };
    assert_eq!(head.md5, kept);
}

pub(crate) async fn an_object_lists_its_parts_if_the_store_can(subject: &Subject) {
    begin!(subject, object, session);
    let absent = subject.store.composition(&object.key).await.unwrap();
    assert_eq!(absent, None);
    let first = subject.put(&session, 1, &bytes(PART, 1)).await;
    let unused = subject.put(&session, 1, b"never committed").await;
    let last = subject.put(&session, 2, b"last").await;
    let uncommitted = subject.store.composition(&object.key).await.unwrap();
    assert!(uncommitted.is_none_or(|parts| parts.is_empty()));
    let mut parts = [first, last];
    if subject.sessions {
        parts[0] = subject.put(&session, 1, &bytes(PART, 1)).await;
    }
    let commit = subject.store.commit(&session, &object, &parts).await;
    assert_eq!(commit.unwrap(), Commit::Done);

    let listed = subject.store.composition(&object.key).await.unwrap();
    if subject.sessions {
        assert_eq!(listed, None);
        return;
    }
    let listed = listed.unwrap();
    let receipts: Vec<_> = listed
        .iter()
        .map(|part| (&part.receipt, part.size))
        .collect();
    let committed = parts.each_ref().map(|part| (&part.receipt, part.size));
    assert_eq!(receipts, committed);
    assert!(listed.iter().all(|part| part.receipt != unused.receipt));
    assert_eq!([listed[0].number, listed[1].number], [Some(1), Some(2)]);

    let whole = subject.object();
    let put = subject.store.put_object(&whole, (&b"whole"[..]).into());
    put.await.unwrap();
    let listed = subject.store.composition(&whole.key).await.unwrap();
    assert_eq!(listed, Some(Vec::new()));
}
