//! Notices of changes, in every state store.

use tokio::time::timeout;
use upload_gateway_core::{
    state::{ChangeWatch, StateStore},
    upload::Phase,
};

use super::{samples::*, takeovers};

async fn is_notified(watch: &mut ChangeWatch) {
    let heard = timeout(takeovers::NOTICE, watch.changed()).await;
    heard.expect("there was no notice of a change");
}

pub(crate) async fn watchers_are_notified_of_every_change(store: &dyn StateStore) {
    let mut upload = upload(&owner());
    create(store, &upload).await;
    let mut watch = store.watch_changes(&upload.id);
    let seen = store.observe(&upload.id).await.unwrap();
    assert_eq!(seen, Some(upload.clone()));
    // More than one notice: a new subscription also reports that notices may have been missed.
    for number in 1..4 {
        record(store, &upload.id, [number]).await;
        is_notified(&mut watch).await;
    }
    takeovers::take_over(store, &upload.id, writer(2)).await;
    is_notified(&mut watch).await;
    upload.version = 2;
    upload.phase = Phase::Complete;
    store.update(&upload, Some(writer(2))).await.unwrap();
    is_notified(&mut watch).await;
}
