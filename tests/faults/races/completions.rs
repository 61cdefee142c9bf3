//! An upload ends while a stream writes to it: the stream ends with the result.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, Stream, stream};
use tokio::sync::{oneshot, watch};
use upload_gateway_core::{
    blobs::{BlobStore, Session},
    error::{Reason, Result},
    gateway::{Caller, Chunk, Counts, Finish, Gateway, Message, Observer, Open, Takeover, Target},
    state::{StateStore, Update},
    upload::{Event, Object, Phase, Timestamp, Upload, UploadId},
};

use super::{
    common::bytes,
    for_each_store,
    interrupted::Interrupted,
    world::{PART, World, file, settings},
};

for_each_store!(
    a_stream_whose_upload_is_completed_meanwhile_succeeds,
    a_stream_whose_upload_is_aborted_meanwhile_fails,
    a_caller_that_has_disconnected_takes_nothing_over,
    a_commit_that_is_denied_and_found_meanwhile_succeeds,
);

const SIZE: usize = 1000;

/// A small upload, and a gateway that calls `meanwhile` between a stream's single put and its record.
async fn small_upload<F: Future<Output = ()> + Send + 'static>(
    world: &World,
    meanwhile: fn(Arc<Gateway>, UploadId) -> F,
) -> (UploadId, Arc<Gateway>) {
    let other = world.gateway().await;
    let caller = Caller::default();
    let step = other.signing.create_signed(&caller, file(SIZE), "").await;
    let id = step.unwrap().upload_id;
    let known = id.clone();
    let storages = world
        .backends
        .storages
        .clone()
        .with_stores(move |_, store| {
            let (other, id) = (Arc::clone(&other), known.clone());
            let meanwhile = move || meanwhile(Arc::clone(&other), id.clone()).boxed();
            Interrupted::store(store, "store.put_object", 1, meanwhile)
        });
    let gateway = world.gateway_with(settings(), world.clock.clone(), storages);
    (id, gateway.await)
}

/// The whole file in one stream.
fn messages(target: Target, size: usize) -> impl Stream<Item = Result<Message>> + Unpin + Send {
    let messages = [
        Message::Open(Open {
            target,
            restart: false,
            takeover: Takeover::Force,
            resume_token: String::new(),
        }),
        Message::Chunk(Chunk {
            offset: 0,
            data: Bytes::from(bytes(size)),
            crc32c: None,
        }),
        Message::Finish(Finish {
            file_size: None,
            file_id: None,
            crc64nvme: None,
        }),
    ];
    stream::iter(messages.map(Ok))
}

pub(crate) async fn send(gateway: Arc<Gateway>, target: Target, size: usize) -> Result<Upload> {
    let (opened, _opened) = oneshot::channel();
    let (counts, _counts) = watch::channel(Counts::default());
    let observer = Observer::new(opened, counts);
    gateway
        .streams
        .receive(
            &Caller::default(),
            gateway.streams.memory(&Caller::default()),
            &mut messages(target, size),
            observer,
        )
        .await
}

async fn a_stream_whose_upload_is_completed_meanwhile_succeeds(world: World) {
    let (id, gateway) = small_upload(&world, |other, id| async move {
        let completed = other.signing.complete_upload(&Caller::default(), &id).await;
        assert_eq!(completed.unwrap().phase, Phase::Complete);
    })
    .await;
    let upload = send(gateway, Target::Upload(id.clone()), SIZE)
        .await
        .unwrap();
    assert_eq!(upload.phase, Phase::Complete);
    assert_eq!(upload, world.get(&id).await);
}

async fn a_stream_whose_upload_is_aborted_meanwhile_fails(world: World) {
    let (id, gateway) = small_upload(&world, |other, id| async move {
        let aborted = other.delete_upload(&Caller::default(), &id).await;
        assert_eq!(aborted.unwrap().phase, Phase::Aborted);
    })
    .await;
    let refused = send(gateway, Target::Upload(id.clone()), SIZE)
        .await
        .unwrap_err();
    assert_eq!(refused.reason(), Reason::WrongPhase);
    let upload = world.get(&id).await;
    let left = world.store().head(&upload.object_key).await.unwrap();
    assert_eq!((upload.phase, left), (Phase::Aborted, None));
}

async fn a_caller_that_has_disconnected_takes_nothing_over(world: World) {
    let gateway = world.gateway().await;
    let step = gateway
        .signing
        .create_signed(&Caller::default(), file(SIZE), "")
        .await;
    let id = step.unwrap().upload_id;
    let before = world.get(&id).await;
    let (opened, counts) = (oneshot::channel().0, watch::channel(Counts::default()).0);
    let observer = Observer::new(opened, counts);
    let ended = gateway
        .streams
        .receive(
            &Caller::default(),
            gateway.streams.memory(&Caller::default()),
            &mut messages(Target::Upload(id.clone()), SIZE),
            observer,
        )
        .await;
    assert_eq!(ended.unwrap_err().reason(), Reason::ClientGone);
    assert_eq!(world.get(&id).await, before);
}

/// The store denies the session to the committer, while another caller finds the object that an earlier request made.
async fn a_commit_that_is_denied_and_found_meanwhile_succeeds(world: World) {
    if !world.has_sessions {
        return;
    }
    let size = PART + 1;
    let other = world.gateway().await;
    let caller = Caller::default();
    let step = other.signing.create_signed(&caller, file(size), "").await;
    let id = step.unwrap().upload_id;
    let (state, inner, known) = (Arc::clone(&world.backends.state), world.store(), id.clone());
    let storages = world
        .backends
        .storages
        .clone()
        .with_stores(move |_, store| {
            let stores = (Arc::clone(&state), Arc::clone(&inner), known.clone());
            let ended = move || end_session(stores.clone()).boxed();
            let record = (Arc::clone(&state), known.clone());
            let found = move || find(record.clone()).boxed();
            let store = Interrupted::store(store, "store.commit", 1, found);
            Interrupted::store(store, "store.put_part", 2, ended)
        });
    let gateway = world.gateway_with(settings(), world.clock.clone(), storages);
    let sent = send(gateway.await, Target::Upload(id.clone()), size).await;
    assert_eq!(sent.unwrap(), world.get(&id).await);
}

/// Ends the session in the store once both parts are there.
async fn end_session((state, store, id): (Arc<dyn StateStore>, Arc<dyn BlobStore>, UploadId)) {
    let upload = state.get(&id).await.unwrap().unwrap();
    let session = Session {
        key: &upload.object_key,
        id: upload.session.as_deref().unwrap(),
        scope: None,
    };
    let parts = store.list_parts(&session).await.unwrap();
    if parts.is_some_and(|parts| parts.len() == 2) {
        store.abort(&session).await.unwrap();
    }
}

/// Records the object, as a caller does that has found it.
async fn find((state, id): (Arc<dyn StateStore>, UploadId)) {
    let mut upload = state.get(&id).await.unwrap().unwrap();
    let object = Object {
        bucket: "bucket".into(),
        key: upload.object_key.clone(),
        etag: "etag".into(),
        size: upload.parts.committed_size(),
        md5: None,
        crc64nvme: None,
    };
    upload
        .apply(Event::Committed {
            object,
            at: Timestamp(0),
        })
        .unwrap();
    let updated = state.update(&upload, upload.writer).await.unwrap();
    assert!(matches!(updated, Update::Updated(_)));
}
