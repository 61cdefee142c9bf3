//! Cases for uploads that have ended, and for those whose files are deleted.

use std::{slice, time::Duration};

use upload_gateway_core::{
    state::{Creation, ListQuery, StateStore, Update, listings},
    upload::{Cleanup, Object, Owner, Part, Phase, Timestamp, Upload, UploadId},
};

use super::{samples::*, sweeping::due};

/// The phases of uploads that have ended.
const ENDED: [Phase; 3] = [Phase::Complete, Phase::Aborted, Phase::Deleting];

pub(crate) async fn an_upload_that_has_ended_keeps_no_parts_and_claims(store: &dyn StateStore) {
    for phase in ENDED {
        let mut upload = sized(findable(&owner(), "a"), 5);
        create(store, &upload).await;
        let long = [Part {
            receipt: "\"long\"".into(),
            ..part(2)
        }];
        let recorded = store.record_parts(&upload.id, writer(1), 0, &long, times());
        recorded.await.unwrap();
        record(store, &upload.id, [1, 4]).await;
        let claims = [claim(3)];
        let claimed = store.claim(&upload.id, &upload.owner, &claims, times());
        claimed.await.unwrap();
        upload.phase = phase;
        // Also if the answer to the first call was lost.
        for _ in 0..2 {
            let ended = store.update(&upload, upload.writer).await.unwrap();
            assert_eq!(ended, Update::Updated(2));
        }
        upload.version = 2;
        assert_eq!(get(store, &upload.id).await, upload);
        assert_eq!(store.summary(&upload.id).await.unwrap(), Some(upload));
    }
}

/// A COMPLETE upload in the store.
pub(crate) async fn complete(store: &dyn StateStore) -> Upload {
    complete_of(store, &owner()).await
}

/// A COMPLETE upload of this owner in the store.
pub(crate) async fn complete_of(store: &dyn StateStore, owner: &Owner) -> Upload {
    let mut upload = sized(upload(owner), 3);
    create(store, &upload).await;
    upload.phase = Phase::Complete;
    upload.session = None;
    upload.object = Some(Object {
        bucket: "media".into(),
        key: upload.object_key.clone(),
        etag: "d41d8cd98f00b204e9800998ecf8427e-3".into(),
        size: 3 * 5_242_880,
        md5: part(1).md5(),
        crc64nvme: None,
    });
    let completed = store.update(&upload, upload.writer).await.unwrap();
    assert_eq!(completed, Update::Updated(2));
    Upload {
        version: 2,
        ..upload
    }
}

pub(crate) async fn an_upload_whose_file_is_deleted_is_not_listed(store: &dyn StateStore) {
    let mut upload = complete(store).await;
    let listing = || upload.owner.clone().into();
    let query = ListQuery {
        listing: listing(),
        after: None,
        skip: 0,
        limit: 9,
    };
    assert_eq!(store.list(&query).await.unwrap().uploads, [upload.clone()]);
    assert!(due(store, Timestamp::never(), 9).await.is_empty());

    (upload.phase, upload.cleanup) = (Phase::Deleting, Cleanup::Now);
    store.update(&upload, upload.writer).await.unwrap();
    upload.version += 1;
    assert!(store.list(&query).await.unwrap().uploads.is_empty());
    assert_eq!(store.count(&query.listing).await.unwrap(), 0);
    assert_eq!(get(store, &upload.id).await, upload);
    // The sweeper finds it until it has deleted the file.
    assert_eq!(due(store, now(), 9).await, [upload.id.clone()]);
    upload.cleanup = Cleanup::Done;
    store.update(&upload, upload.writer).await.unwrap();
    assert!(due(store, Timestamp::never(), 9).await.is_empty());
    assert!(store.list(&query).await.unwrap().uploads.is_empty());
}

/// The record is removed at its own time, not when an open one would be.
pub(crate) async fn an_upload_that_has_ended_is_kept_until_its_time(store: &dyn StateStore) {
    let kept = complete(store).await;
    let mut removed = complete(store).await;
    removed.kept_until = Some(now().plus(Duration::from_millis(50)));
    store.update(&removed, removed.writer).await.unwrap();
    let end = now().plus(Duration::from_secs(30));
    loop {
        // The embedded store removes them here, Redis by itself.
        due(store, now(), 9).await;
        match store.get(&removed.id).await.unwrap() {
            None => break,
            Some(_) if now() > end => panic!("the record is still there"),
            Some(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    assert_eq!(get(store, &kept.id).await, kept);
}

/// A record that was rebuilt is COMPLETE from the beginning, and nothing limits how many an owner has.
pub(crate) async fn a_rebuilt_record_is_created_listed_and_due(store: &dyn StateStore) {
    let known = complete(store).await;
    let owner = Owner {
        tenant: "tenant".into(),
        subject: "rebuilt".into(),
    };
    let rebuilt = Upload {
        id: UploadId::generate(None),
        version: 1,
        ends_at: Timestamp::never(),
        file_expires_at: Some(now()),
        fingerprint: None,
        owner,
        ..known
    };
    assert_eq!(
        store.create(&rebuilt, u64::MAX).await.unwrap(),
        Creation::Created
    );
    assert_eq!(get(store, &rebuilt.id).await, rebuilt);
    for listing in listings(&rebuilt.owner) {
        let query = ListQuery {
            listing,
            after: None,
            skip: 0,
            limit: 9,
        };
        let listed = store.list(&query).await.unwrap().uploads;
        assert_eq!(listed, slice::from_ref(&rebuilt));
    }
    assert_eq!(due(store, now(), 9).await, [rebuilt.id]);
}
