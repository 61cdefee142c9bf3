//! Whole objects.

use bytes::Bytes;
use futures::TryStreamExt;
use upload_gateway_core::{
    blobs::{Commit, NewObject, Put, Session, StoredPut},
    error::{Error, Kind, Reason},
    upload::{Crc64Nvme, Md5, Placement},
};

use super::subject::{PART, Subject, bytes, collect};

pub(crate) async fn a_whole_object_is_never_replaced(subject: &Subject) {
    let mut object = subject.object();
    (object.md5, object.crc64nvme) = (Some(Md5::of(b"first")), Some(Crc64Nvme::of(b"first")));
    let put = subject
        .store
        .put_object(&object, (&b"first"[..]).into())
        .await;
    let Put::Stored(StoredPut { etag, .. }) = put.unwrap() else {
        panic!("there was no object of that key");
    };
    let head = subject.store.head(&object.key).await.unwrap().unwrap();
    assert_eq!((&head.etag, head.size), (&etag, 5));
    assert_eq!((head.md5, head.composite), (object.md5, None));

    let mut other = object.clone();
    (other.md5, other.crc64nvme) = (Some(Md5::of(b"second")), Some(Crc64Nvme::of(b"second")));
    let put = subject
        .store
        .put_object(&other, (&b"second"[..]).into())
        .await;
    assert_eq!(put.unwrap(), Put::Exists);
    assert_eq!(subject.store.head(&object.key).await.unwrap(), Some(head));
    assert_eq!(subject.read(&object.key).await, b"first");
}

pub(crate) async fn a_damaged_object_is_refused_and_not_kept(subject: &Subject) {
    let mut object = subject.object();
    (object.md5, object.crc64nvme) = (Some(Md5::of(b"meant")), Some(Crc64Nvme::of(b"meant")));
    let put = subject
        .store
        .put_object(&object, (&b"sent"[..]).into())
        .await;
    let error = put.unwrap_err();
    assert_eq!(error.kind(), Kind::DataLoss, "{error:?}");
    assert_eq!(subject.store.head(&object.key).await.unwrap(), None);
}

pub(crate) async fn an_object_without_a_known_digest_is_put(subject: &Subject) {
    let object = subject.object();
    let body = bytes(4_999_999, 1);
    let put = subject.store.put_object(&object, body.clone().into()).await;
    assert!(matches!(put.unwrap(), Put::Stored(_)));
    assert!(subject.read(&object.key).await == body);
}

pub(crate) async fn an_empty_object_is_an_object(subject: &Subject) {
    let mut object = subject.object();
    (object.md5, object.crc64nvme) = (Some(Md5::of(b"")), Some(Crc64Nvme::of(b"")));
    let put = subject.store.put_object(&object, Default::default()).await;
    assert!(matches!(put.unwrap(), Put::Stored(_)));
    let head = subject.store.head(&object.key).await.unwrap().unwrap();
    assert_eq!((head.size, head.md5), (0, object.md5));
    assert_eq!(subject.read(&object.key).await, b"");
}

pub(crate) async fn owner_and_media_type_are_returned(subject: &Subject) {
    let whole = NewObject {
        size: Some(5),
        ..subject.object_of(b"whole")
    };
    let put = subject
        .store
        .put_object(&whole, (&b"whole"[..]).into())
        .await;
    put.unwrap();
    let parted = subject.object();
    let id = subject.store.begin(&parted).await.unwrap().id;
    let session = Session {
        key: &parted.key,
        id: &id,
        scope: None,
    };
    let part = subject.put(&session, 1, b"part").await;
    let commit = subject.store.commit(&session, &parted, &[part]).await;
    assert_eq!(commit.unwrap(), Commit::Done);

    for object in [whole, parted] {
        let head = subject.store.head(&object.key).await.unwrap().unwrap();
        assert!(head.is_of(&object.upload_id), "{head:?}");
        assert_eq!(head.written_size(), object.size);
        assert_eq!(head.written_md5(), object.md5);
        let media_type = subject.media_type(&object.key).await;
        assert_eq!(media_type.as_deref(), Some("video/mp4"));
    }
}

pub(crate) async fn ranges_can_cross_part_boundaries(subject: &Subject) {
    let object = subject.object();
    let id = subject.store.begin(&object).await.unwrap().id;
    let session = Session {
        key: &object.key,
        id: &id,
        scope: None,
    };
    let body = bytes(PART + 1_000, 7);
    let (first, second) = body.split_at(PART);
    let parts = [
        subject.put(&session, 1, first).await,
        subject.put(&session, 2, second).await,
    ];
    let commit = subject.store.commit(&session, &object, &parts).await;
    assert_eq!(commit.unwrap(), Commit::Done);

    let (border, end) = (first.len(), body.len());
    for range in [
        0..1,
        border - 3..border + 4,
        border..end,
        end - 1..end + 9,
        9..9,
    ] {
        let read = range.start as u64..range.end as u64;
        let read = collect(&*subject.store, &object.key, Some(read)).await;
        assert!(read == body[range.start..range.end.min(end)], "{range:?}");
    }
    assert!(subject.read(&object.key).await == body);
}

pub(crate) async fn a_missing_object_is_not_found(subject: &Subject) {
    let object = subject.object();
    assert_eq!(subject.store.head(&object.key).await.unwrap(), None);
    let Err(error) = subject.store.read(&object.key, None, None).await else {
        panic!("there is no object to read");
    };
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
    subject.store.delete(&object.key).await.unwrap();

    let put = subject
        .store
        .put_object(&object, (&b"here"[..]).into())
        .await;
    put.unwrap();
    subject.store.delete(&object.key).await.unwrap();
    subject.store.delete(&object.key).await.unwrap();
    assert_eq!(subject.store.head(&object.key).await.unwrap(), None);
}

pub(crate) async fn only_the_object_with_the_etag_is_read(subject: &Subject) {
    let object = subject.object();
    let put = subject.store.put_object(&object, (&b"here"[..]).into());
    let Put::Stored(StoredPut { etag, .. }) = put.await.unwrap() else {
        panic!("the key is new");
    };
    let read = async |etag| {
        let read = subject.store.read(&object.key, Some(1..3), Some(etag));
        let pieces: Vec<Bytes> = read.await?.try_collect().await?;
        Ok::<_, Error>(pieces.concat())
    };
    assert_eq!(read(&etag).await.unwrap(), b"er");
    let error = read("0x8D4BCC2E4835CD0").await.unwrap_err();
    let expected = (Kind::DataLoss, Reason::ObjectChanged);
    assert_eq!((error.kind(), error.reason()), expected);
    subject.store.delete(&object.key).await.unwrap();
    // The emulator of Azure compares the ETag first.
    let kind = read(&etag).await.unwrap_err().kind();
    assert!(matches!(kind, Kind::NotFound | Kind::DataLoss), "{kind:?}");
}

pub(crate) async fn keys_are_kept_unchanged(subject: &Subject) {
    let mut put = Vec::new();
    for name in [
        "sp_ter___mehr_.bin",
        "a b+c&d=e#f%20g.txt",
        "später/图片.png",
    ] {
        let mut object = subject.object();
        object.key = format!("media/{}/{name}", object.upload_id);
        let stored = subject.store.put_object(&object, (&b"x"[..]).into()).await;
        stored.unwrap();
        assert_eq!(subject.read(&object.key).await, b"x");
        put.push(object.key);
    }
    let mut keys = subject.keys().await;
    keys.sort();
    put.sort();
    assert_eq!(keys, put);
}

pub(crate) async fn an_object_is_replaced(subject: &Subject) {
    let object = |body: &[u8]| NewObject {
        ..subject.object_of(body)
    };
    let first = object(b"first");
    let store = &subject.store;
    store.replace(&first, (&b"first"[..]).into()).await.unwrap();
    let second = NewObject {
        key: first.key.clone(),
        ..object(b"second")
    };
    let replaced = store.replace(&second, (&b"second"[..]).into()).await;
    replaced.unwrap();
    let head = store.head(&first.key).await.unwrap().unwrap();
    assert!(head.is_of(&second.upload_id) && head.size == 6, "{head:?}");
    assert!(head.modified_at.is_some() && head.mime.as_deref() == Some("video/mp4"));
    assert_eq!(subject.read(&first.key).await, b"second");
    let damaged = store.replace(&second, (&b"damage"[..]).into()).await;
    assert_eq!(damaged.unwrap_err().kind(), Kind::DataLoss);
    assert_eq!(subject.read(&first.key).await, b"second");
}

pub(crate) async fn keys_are_listed_by_prefix_and_in_pages(subject: &Subject) {
    let base = subject.object().key;
    let key = |name: &str| format!("{base}/{name}");
    let mut expected = Vec::new();
    for number in 0..1_003 {
        expected.push(key(&format!("in/{number:04}")));
    }
    let others = [key("into"), key("i/x")];
    let keys: Vec<String> = expected.iter().chain(&others).cloned().collect();
    for chunk in keys.chunks(64) {
        let puts = chunk.iter().map(|key| async {
            let object = NewObject {
                key: key.clone(),
                ..subject.object_of(b"")
            };
            subject.store.replace(&object, Default::default()).await
        });
        futures::future::try_join_all(puts).await.unwrap();
    }
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = subject.store.list(&key("in/"), after.as_deref()).await;
        let page = page.unwrap();
        assert!(page.keys.len() <= 5_000);
        listed.extend(page.keys);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    listed.sort();
    assert_eq!(listed, expected);
    let none = subject.store.list(&key("else"), None).await.unwrap();
    assert_eq!((none.keys.len(), none.next), (0, None));
}

pub(crate) async fn a_placement_is_kept(subject: &Subject) {
    let mut whole = subject.object();
    *whole.placement = placement();
    let put = subject.store.put_object(&whole, (&b"whole"[..]).into());
    assert!(matches!(put.await.unwrap(), Put::Stored(_)));
    let mut parted = subject.object();
    parted.placement = whole.placement.clone();
    let id = subject.store.begin(&parted).await.unwrap().id;
    let session = Session {
        key: &parted.key,
        id: &id,
        scope: None,
    };
    let part = subject.put(&session, 1, b"part").await;
    let commit = subject.store.commit(&session, &parted, &[part]).await;
    assert_eq!(commit.unwrap(), Commit::Done);
    for object in [&whole, &parted] {
        check_placement(subject, object).await;
    }
}

/// A store whose signed requests do not bind how an object is stored gets it afterwards.
pub(crate) async fn a_placement_that_was_left_out_is_set(subject: &Subject) {
    if subject.store.capabilities().binds_placement {
        return;
    }
    let bare = subject.object();
    let put = subject.store.put_object(&bare, (&b"whole"[..]).into());
    assert!(matches!(put.await.unwrap(), Put::Stored(_)));
    let found = subject.store.head(&bare.key).await.unwrap().unwrap();
    let meant = NewObject {
        mime: "image/png".into(),
        size: Some(5),
        md5: Some(Md5::of(b"whole")),
        placement: Box::new(Placement {
            object_tags: [("team".into(), "a+b c".into())].into(),
            storage_class: Some("Cool".into()),
            ..placement()
        }),
        ..bare
    };
    let set = subject.store.put_placement(&meant, &found).await.unwrap();
    check_placement(subject, &meant).await;
    assert_eq!(set.placement.storage_class.as_deref(), Some("Cool"));
    assert_eq!(set.md5, meant.md5);
    // Nothing is left to set, so nothing changes.
    let again = subject.store.put_placement(&meant, &set).await.unwrap();
    assert_eq!(again, set);
    assert_eq!(subject.read(&meant.key).await, b"whole");

    let other = retyped(&meant);
    let stale = subject.store.put_placement(&other, &found).await;
    assert_eq!(stale.unwrap_err().kind(), Kind::Unavailable);
}

/// The same object with another media type.
fn retyped(object: &NewObject) -> NewObject {
    NewObject {
        mime: "text/plain".into(),
        ..object.clone()
    }
}

fn placement() -> Placement {
    Placement {
        metadata: [("project".into(), "a; b=\"c\"".into())].into(),
        cache_control: Some("private, max-age=60".into()),
        content_disposition: Some("inline".into()),
        content_encoding: Some("gzip".into()),
        ..Placement::default()
    }
}

async fn check_placement(subject: &Subject, object: &NewObject) {
    let head = subject.store.head(&object.key).await.unwrap().unwrap();
    let (asked, found) = (&object.placement, &head.placement);
    for (key, value) in object.metadata() {
        assert_eq!(head.metadata.get(&*key), Some(&value), "{key}");
    }
    assert!(head.is_of(&object.upload_id));
    assert_eq!(head.mime.as_ref(), Some(&object.mime));
    assert_eq!(found.cache_control, asked.cache_control);
    assert_eq!(found.content_disposition, asked.content_disposition);
    assert_eq!(found.content_encoding, asked.content_encoding);
    assert!(!head.is_archived);
}
