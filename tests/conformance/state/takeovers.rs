//! Takeovers and their notices, in every state store.

use std::time::Duration;

use tokio::time::timeout;
use upload_gateway_core::{
    state::{PartRecord, Predecessor, StateStore, TakeoverWatch},
    upload::{UploadId, WriterTag},
};

use super::samples::*;

/// How long a notice may take on a busy machine.
pub(crate) const NOTICE: Duration = Duration::from_secs(10);

pub(crate) async fn take_over(store: &dyn StateStore, id: &UploadId, writer: WriterTag) {
    let taken = store.take_over(id, writer, Predecessor::Any, times());
    assert_eq!(taken.await.unwrap().unwrap().writer, Some(writer));
}

pub(crate) async fn is_notified(watch: &mut TakeoverWatch, writer: WriterTag) {
    let heard = timeout(NOTICE, watch.by_other_than(writer)).await;
    heard.expect("there was no notice of a takeover");
}

pub(crate) async fn watchers_are_notified_of_every_take_over(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    let mut watch = store.watch_takeovers(&upload.id);
    // More than one notice: a new subscription also reports that notices may have been missed.
    for number in 2..5 {
        take_over(store, &upload.id, writer(number)).await;
        is_notified(&mut watch, writer(number - 1)).await;
    }
}

pub(crate) async fn a_take_over_from_another_writer_changes_nothing(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    record(store, &upload.id, [1, 3]).await;
    let before = get(store, &upload.id).await;
    assert_eq!(before.writer, Some(writer(1)));
    for from in [None, Some(writer(3))] {
        let from = Predecessor::Only(from);
        let taken = store.take_over(&upload.id, writer(2), from, times()).await;
        assert_eq!(taken.unwrap(), Some(before.clone()));
        assert_eq!(get(store, &upload.id).await, before);
    }
}

pub(crate) async fn a_take_over_repeated_after_a_lost_reply_is_taken(store: &dyn StateStore) {
    let mut unwritten = upload(&owner());
    unwritten.writer = None;
    create(store, &unwritten).await;
    for (from, next) in [(None, writer(1)), (Some(writer(1)), writer(2))] {
        for _ in 0..2 {
            let from = Predecessor::Only(from);
            let taken = store.take_over(&unwritten.id, next, from, times()).await;
            assert_eq!(taken.unwrap().unwrap().writer, Some(next));
        }
    }
}

pub(crate) async fn only_the_writer_can_send_a_heartbeat(store: &dyn StateStore) {
    let upload = upload(&owner());
    create(store, &upload).await;
    record(store, &upload.id, [1]).await;
    let before = get(store, &upload.id).await;
    let mut later = times();
    later.now = later.now.plus(Duration::from_secs(5));
    later.expires_at = later.expires_at.plus(Duration::from_secs(5));
    let sign = store
        .record_parts(&upload.id, writer(2), 0, &[], later)
        .await;
    assert_eq!(sign.unwrap(), PartRecord::TakenOver);
    assert_eq!(get(store, &upload.id).await, before);
    let sign = store
        .record_parts(&upload.id, writer(1), 0, &[], later)
        .await;
    assert_eq!(sign.unwrap(), PartRecord::Recorded { committed: 1 });
    let after = get(store, &upload.id).await;
    assert_eq!(
        (after.updated_at, after.expires_at),
        (later.now, later.expires_at)
    );
    assert_eq!((after.version, after.parts), (before.version, before.parts));
}
