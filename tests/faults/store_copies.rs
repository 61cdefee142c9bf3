//! Copies that the store makes by itself, and what happens if it does not.

mod guard;
mod guarded;
mod other_bytes;

use std::{sync::Arc, time::Duration};

use upload_gateway_core::{
    blobs::{Commit, NewObject, NewPart, Session},
    error::Reason,
    gateway::{Caller, Counts, Settings},
    upload::{DigestChoice, FileMetadata, Md5, Object, Part, Phase, Upload, WriterTag},
};

use self::{
    guard::{Guard, Refusal},
    guarded::{Guarded, azure, s3},
};
use super::{
    common::bytes,
    copies::{Copying, copy, copy_to, copying, get, move_to},
    object_records::{collect, upload},
    world::{PART, World, file, in_time, settings},
};

/// Copied with one request, and put with one.
const SMALL: usize = 1000;

/// Copied with one request, and put in parts.
const MIDDLE: usize = 2 * PART + 1;

/// Copied and put in 14 parts.
const LARGE: usize = 66 * 1024 * 1024 + 5;
const LARGE_PARTS: usize = 14;

/// Checks that the copy has the bytes of its source, and what is known of them.
async fn check(world: &World, source: &Upload, copied: &Upload) {
    assert_eq!(copied.phase, Phase::Complete);
    assert_eq!(copied.copy_of.as_ref(), Some(&source.id));
    let (of, object) = (source.object.as_ref().unwrap(), copied.object.as_ref());
    assert_eq!(object.unwrap().md5, of.md5);
    let size = usize::try_from(of.size).unwrap();
    assert!(collect(&*world.store(), &copied.object_key).await == bytes(size));
}

#[tokio::test]
async fn the_store_copies_by_itself() {
    in_time(async {
        let Guarded { world, guard } = s3().await;
        let gateway = world.gateway().await;
        for (size, requests) in [(SMALL, 1), (MIDDLE, 1), (LARGE, LARGE_PARTS)] {
            let source = upload(&gateway, file(size)).await;
            for storage_id in ["", "archive"] {
                let (before, _) = (guard.copied(), guard.moved());
                let copied = copy_to(&gateway, &source.id, storage_id).await.unwrap();
                assert_eq!(guard.copied() - before, requests, "{size}");
                assert_eq!(guard.moved(), (0, 0), "{size}");
                check(&world, &source, &copied).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_store_that_does_not_copy_gets_the_bytes() {
    in_time(async {
        let Guarded { world, guard } = s3().await;
        let gateway = world.gateway().await;
        let middle = upload(&gateway, file(MIDDLE)).await;
        for (refusal, size) in [
            (Refusal::Code(501, "NotImplemented"), SMALL),
            (Refusal::Code(501, "NotImplemented"), LARGE),
            (Refusal::Code(403, "AccessDenied"), MIDDLE),
            (Refusal::Code(403, "AccessDenied"), LARGE),
            (Refusal::Bare(501), MIDDLE),
            (Refusal::Bare(403), SMALL),
            (Refusal::Ignored, SMALL),
            (Refusal::Ignored, LARGE),
        ] {
            let source = match size {
                MIDDLE => middle.clone(),
                size => upload(&gateway, file(size)).await,
            };
            guard.refuse(refusal, usize::MAX);
            let (before, _) = (guard.copied(), guard.moved());
            let copied = copy(&gateway, &source.id).await.unwrap();
            assert_eq!(guard.copied(), before, "{refusal:?}");
            let (read, put) = guard.moved();
            assert!(read >= 1 && put >= 1, "{refusal:?}: {read} {put}");
            check(&world, &source, &copied).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_empty_file_is_copied_whatever_the_store_copies() {
    in_time(async {
        let Guarded { world, guard } = s3().await;
        let gateway = world.gateway().await;
        let source = upload(&gateway, file(0)).await;
        check(&world, &source, &copy(&gateway, &source.id).await.unwrap()).await;
        guard.refuse(Refusal::Code(501, "NotImplemented"), usize::MAX);
        check(&world, &source, &copy(&gateway, &source.id).await.unwrap()).await;
    })
    .await;
}

#[tokio::test]
async fn a_store_that_always_fails_to_copy_gets_the_bytes() {
    in_time(async {
        let Guarded { world, guard } = s3().await;
        let hasty = Settings {
            store_retry_timeout: Duration::from_millis(100),
            ..settings()
        };
        let (clock, storages) = (world.clock.clone(), world.backends.storages.clone());
        let gateway = world.gateway_with(hasty, clock, storages).await;
        for size in [SMALL, LARGE] {
            let source = upload(&gateway, file(size)).await;
            guard.refuse(Refusal::Bare(500), usize::MAX);
            let copied = copy(&gateway, &source.id).await.unwrap();
            check(&world, &source, &copied).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_store_that_is_unavailable_is_asked_again() {
    in_time(async {
        let Guarded { world, guard } = s3().await;
        let gateway = world.gateway().await;
        for size in [SMALL, LARGE] {
            let source = upload(&gateway, file(size)).await;
            for refusal in [Refusal::Code(503, "SlowDown"), Refusal::Bare(500)] {
                guard.refuse(refusal, 2);
                guard.moved();
                let copied = copy(&gateway, &source.id).await.unwrap();
                assert_eq!(guard.moved(), (0, 0), "{refusal:?}");
                check(&world, &source, &copied).await;
            }
        }
        assert_eq!(guard.refused(), 8);
    })
    .await;
}

/// A copy of a large file of which some parts are made, and others are held.
async fn begun(world: &World, guard: &Guard, source: &Upload) -> Upload {
    let gateway = world.gateway().await;
    guard.allow(3);
    let Copying {
        to,
        opened,
        mut counts,
        ..
    } = copying("");
    let id = source.id.clone();
    let running = tokio::spawn({
        let gateway = Arc::clone(&gateway);
        async move {
            let caller = Caller::default();
            Box::pin(gateway.copy_upload(&caller, &id, to)).await
        }
    });
    let begun = opened.await.unwrap();
    let has_two = |counts: &Counts| counts.committed_size >= 2 * PART as u64;
    counts.wait_for(has_two).await.unwrap();
    guard.holds_one().await;
    // As if the process were killed.
    running.abort();
    let _ = running.await;
    begun
}

#[tokio::test]
async fn a_copy_that_was_killed_is_continued_by_the_same_call() {
    in_time(async {
        let Guarded { world, guard } = s3().await;
        let source = upload(&*world.gateway().await, file(LARGE)).await;
        let begun = begun(&world, &guard, &source).await;
        guard.allow(1 << 20);
        let (gateway, before) = (world.gateway().await, guard.copied());
        guard.moved();
        let copied = copy(&gateway, &source.id).await.unwrap();
        assert_eq!(copied.id, begun.id);
        assert_eq!(guard.moved(), (0, 0));
        assert!(guard.copied() - before <= LARGE_PARTS - 2);
        check(&world, &source, &copied).await;
    })
    .await;
}

#[tokio::test]
async fn a_copy_that_the_store_began_is_finished_with_the_bytes() {
    in_time(async {
        let Guarded { world, guard } = s3().await;
        let source = upload(&*world.gateway().await, file(LARGE)).await;
        let begun = begun(&world, &guard, &source).await;
        guard.allow(1 << 20);
        guard.refuse(Refusal::Code(403, "AccessDenied"), usize::MAX);
        guard.moved();
        let copied = copy(&*world.gateway().await, &source.id).await.unwrap();
        assert_eq!(copied.id, begun.id);
        // The parts that the store made are only compared.
        let (_, put) = guard.moved();
        assert!((1..=LARGE_PARTS - 2).contains(&put), "{put}");
        check(&world, &source, &copied).await;
    })
    .await;
}

#[tokio::test]
async fn a_copy_is_cancelled_by_deleting_it() {
    in_time(async {
        let Guarded { world, guard } = s3().await;
        let source = upload(&*world.gateway().await, file(LARGE)).await;
        let begun = begun(&world, &guard, &source).await;
        let found = world.get(&begun.id).await;
        assert!(world.has_session(&found).await);
        let gateway = world.gateway().await;
        let deleted = gateway.delete_upload(&Caller::default(), &begun.id).await;
        assert_eq!(deleted.unwrap().phase, Phase::Aborted);
        assert!(!world.has_session(&found).await);
        let source = get(&gateway, &source.id).await.unwrap();
        assert_eq!(source.phase, Phase::Complete);
    })
    .await;
}

/// The same object, made of other bytes.
async fn replace(world: &World, source: &Upload) {
    let object = NewObject {
        md5: Some(Md5::of(b"other")),
        ..world.object_of(source)
    };
    let store = world.store();
    let replaced = store.replace(&object, (&b"other"[..]).into());
    replaced.await.unwrap();
}

#[tokio::test]
async fn a_source_that_changes_between_two_parts_is_noticed() {
    in_time(async {
        let Guarded { world, guard } = s3().await;
        let source = upload(&*world.gateway().await, file(LARGE)).await;
        let begun = begun(&world, &guard, &source).await;
        replace(&world, &source).await;
        guard.allow(1 << 20);
        let gateway = world.gateway().await;
        let error = copy(&gateway, &source.id).await.unwrap_err();
        assert_eq!(error.reason(), Reason::ObjectChanged, "{error:?}");
        let found = get(&gateway, &begun.id).await.unwrap();
        assert_eq!(found.phase, Phase::Open);
        let source = get(&gateway, &source.id).await.unwrap();
        assert!(source.object_changed_at.is_some());
    })
    .await;
}

#[tokio::test]
async fn an_object_whose_digest_proves_nothing_is_copied_with_the_bytes() {
    in_time(async {
        let Guarded { world, guard } = s3().await;
        let gateway = world.gateway().await;
        let sources = [SMALL, MIDDLE].map(|size| upload(&gateway, file(size)));
        let sources = futures::future::join_all(sources).await;
        guard.describe("x-amz-server-side-encryption", "aws:kms");
        for source in sources {
            guard.moved();
            let copied = copy(&gateway, &source.id).await.unwrap();
            let (read, put) = guard.moved();
            assert!(read >= 1 && put >= 1, "{read} {put}");
            check(&world, &source, &copied).await;
        }
    })
    .await;
}

/// Makes the object of `source` of the same bytes in parts of these sizes, and notes that in the record.
async fn cut(world: &World, source: &Upload, sizes: &[usize]) {
    let (store, object) = (world.store(), world.object_of(source));
    let id = store.begin(&object).await.unwrap().id;
    let session = Session {
        key: &object.key,
        id: &id,
        scope: None,
    };
    let (data, mut parts, mut offset) = (bytes(sizes.iter().sum()), Vec::new(), 0);
    for (number, size) in (1..).zip(sizes) {
        let body = &data[offset..offset + size];
        let part = NewPart {
            number,
            writer: WriterTag::random(),
            checksum: Md5::of(body).into(),
            body: body.to_vec().into(),
        };
        let receipt = store.put_part(&session, part).await.unwrap();
        parts.push(Part {
            number,
            offset: offset as u64,
            size: *size as u64,
            checksum: Some(Md5::of(body).into()),
            receipt,
            digest: None,
        });
        offset += size;
    }
    let commit = store.commit(&session, &object, &parts).await;
    assert_eq!(commit.unwrap(), Commit::Done);
    let found = store.head(&object.key).await.unwrap().unwrap();
    let current = world.get(&source.id).await;
    let object = current.object.clone().unwrap();
    let changed = Upload {
        object: Some(Object {
            etag: found.etag,
            ..object
        }),
        ..current
    };
    let state = world.state();
    state.update(&changed, changed.writer).await.unwrap();
}

#[tokio::test]
async fn a_source_with_other_parts_is_compared_while_the_store_copies_it() {
    in_time(async {
        let Guarded { world, guard } = s3().await;
        let gateway = world.gateway().await;
        let mib = 1024 * 1024;
        // As many parts as the copy has, and fewer.
        let same_count: Vec<usize> = [6 * mib].into_iter().chain([5 * mib; 12]).collect();
        let same_count = [same_count, vec![LARGE - 66 * mib]].concat();
        let fewer = vec![40 * mib, LARGE - 40 * mib];
        for (sizes, copies) in [(same_count, 14), (fewer, 14)] {
            let source = upload(&gateway, file(LARGE)).await;
            cut(&world, &source, &sizes).await;
            let source = get(&gateway, &source.id).await.unwrap();
            let (before, _) = (guard.copied(), guard.moved());
            let copied = copy(&gateway, &source.id).await.unwrap();
            assert_eq!(guard.copied() - before, copies);
            let (read, put) = guard.moved();
            assert!(read >= 1 && put == 0, "{read} {put}");
            check(&world, &source, &copied).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_move_deletes_its_source_after_either_kind_of_copy() {
    in_time(async {
        let Guarded { world, guard } = s3().await;
        let gateway = world.gateway().await;
        for refused in [0, usize::MAX] {
            for size in [SMALL, MIDDLE, LARGE] {
                let source = upload(&gateway, file(size)).await;
                guard.refuse(Refusal::Code(403, "AccessDenied"), refused);
                let moved = move_to(&gateway, &source.id).await.unwrap();
                check(&world, &source, &moved).await;
                let left = world.store().head(&source.object_key).await.unwrap();
                assert_eq!(left, None);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_file_without_an_md5_is_copied() {
    in_time(async {
        let Guarded { world, guard } = s3().await;
        let gateway = world.gateway().await;
        let choices = [DigestChoice::None, DigestChoice::Crc64Nvme];
        let cases = choices.map(|choice| [SMALL, MIDDLE, LARGE].map(|size| (choice, size)));
        for (file_digest, size) in cases.concat() {
            let plain = FileMetadata {
                file_digest,
                ..file(size)
            };
            let source = upload(&gateway, plain).await;
            guard.moved();
            let copied = copy(&gateway, &source.id).await.unwrap();
            check(&world, &source, &copied).await;
            let crc64nvme = |upload: &Upload| upload.object.as_ref().unwrap().crc64nvme;
            // The store reports that of each object, but a file that is put whole without a digest is not described.
            let is_known = file_digest != DigestChoice::None || size > SMALL;
            assert_eq!(crc64nvme(&copied).is_some(), is_known);
            // The ETag of an object of parts is a digest, too, and that of a file that was put whole if its MD5 was computed.
            let (_, put) = guard.moved();
            let is_proven = size > SMALL || file_digest != DigestChoice::None;
            assert_eq!(put, usize::from(!is_proven));
        }
    })
    .await;
}

#[tokio::test]
async fn azure_copies_the_blocks_that_the_gateway_compares() {
    in_time(async {
        let Guarded { world, guard } = azure().await;
        let gateway = world.gateway().await;
        for (size, (blocks, puts)) in [(0, (0, 0)), (SMALL, (0, 1)), (MIDDLE, (3, 0))] {
            let source = upload(&gateway, file(size)).await;
            for storage_id in ["", "archive"] {
                let (before, _) = (guard.copied(), guard.moved());
                let copied = copy_to(&gateway, &source.id, storage_id).await.unwrap();
                assert_eq!(guard.copied() - before, blocks, "{size}");
                let (_, put) = guard.moved();
                assert_eq!(put, puts, "{size}");
                check(&world, &source, &copied).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_azure_that_does_not_copy_gets_the_bytes() {
    in_time(async {
        let Guarded { world, guard } = azure().await;
        let gateway = world.gateway().await;
        let source = upload(&gateway, file(MIDDLE)).await;
        for refusal in [
            Refusal::Code(501, "APINotImplemented"),
            Refusal::Code(403, "CannotVerifyCopySource"),
            Refusal::Code(403, "AuthorizationFailure"),
            Refusal::Bare(501),
            Refusal::Ignored,
        ] {
            guard.refuse(refusal, usize::MAX);
            guard.moved();
            let copied = copy(&gateway, &source.id).await.unwrap();
            let (_, put) = guard.moved();
            assert_eq!((guard.copied(), put), (0, 3), "{refusal:?}");
            check(&world, &source, &copied).await;
        }
        guard.refuse(Refusal::Code(503, "ServerBusy"), 2);
        let copied = copy(&gateway, &source.id).await.unwrap();
        assert_eq!((guard.copied(), guard.moved().1), (3, 0));
        check(&world, &source, &copied).await;
    })
    .await;
}

#[tokio::test]
async fn a_copy_that_was_killed_in_azure_is_continued() {
    in_time(async {
        let Guarded { world, guard } = azure().await;
        let source = upload(&*world.gateway().await, file(LARGE)).await;
        let begun = begun(&world, &guard, &source).await;
        guard.allow(1 << 20);
        let (gateway, before) = (world.gateway().await, guard.copied());
        guard.moved();
        let copied = copy(&gateway, &source.id).await.unwrap();
        assert_eq!(copied.id, begun.id);
        assert!(guard.copied() - before <= LARGE_PARTS - 2);
        let (_, put) = guard.moved();
        assert_eq!(put, 0);
        check(&world, &source, &copied).await;
    })
    .await;
}

#[tokio::test]
async fn a_source_in_azure_that_changes_between_two_blocks_is_noticed() {
    in_time(async {
        let Guarded { world, guard } = azure().await;
        let source = upload(&*world.gateway().await, file(LARGE)).await;
        begun(&world, &guard, &source).await;
        replace(&world, &source).await;
        guard.allow(1 << 20);
        let error = copy(&*world.gateway().await, &source.id).await;
        let error = error.unwrap_err();
        assert_eq!(error.reason(), Reason::ObjectChanged, "{error:?}");
    })
    .await;
}
