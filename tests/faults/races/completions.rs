//! An upload is completed while a stream is at it: the stream learns what became of it.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, Stream, stream};
use tokio::sync::{oneshot, watch};
use upload_gateway_core::{
    error::{Reason, Result},
    gateway::{Caller, Chunk, Counts, Finish, Gateway, Message, Observer, Open, Takeover, Target},
    upload::{Phase, Upload, UploadId},
};

use super::{
    common::bytes,
    for_each_store,
    interrupted::Interrupted,
    world::{World, file, settings},
};

for_each_store!(
    a_stream_whose_object_others_complete_first_ends_well,
    a_stream_whose_upload_is_given_up_meanwhile_is_told_so,
    a_caller_that_has_gone_takes_nothing_over,
);

const SIZE: usize = 1000;

/// A small upload, and a gateway that does something with it between a stream's single put and its record.
async fn small_upload<F: Future<Output = ()> + Send + 'static>(
    world: &World,
    meanwhile: fn(Arc<Gateway>, UploadId) -> F,
) -> (UploadId, Arc<Gateway>) {
    let other = world.gateway().await;
    let caller = Caller::default();
    let step = other.signing.create_signed(&caller, file(SIZE), "").await;
    let id = step.unwrap().upload_id;
    let known = id.clone();
    let storages = world.backends.storages.clone().with_stores(move |store| {
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
        }),
    ];
    stream::iter(messages.map(Ok))
}

pub(crate) async fn send(gateway: Arc<Gateway>, target: Target, size: usize) -> Result<Upload> {
    let (opened, _opened) = oneshot::channel();
    let (counts, _counts) = watch::channel(Counts::default());
    let observer = Observer { opened, counts };
    gateway
        .streams
        .receive(&Caller::default(), &mut messages(target, size), observer)
        .await
}

async fn a_stream_whose_object_others_complete_first_ends_well(world: World) {
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

async fn a_stream_whose_upload_is_given_up_meanwhile_is_told_so(world: World) {
    let (id, gateway) = small_upload(&world, |other, id| async move {
        let given_up = other.delete_upload(&Caller::default(), &id).await;
        assert_eq!(given_up.unwrap().phase, Phase::Aborted);
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

async fn a_caller_that_has_gone_takes_nothing_over(world: World) {
    let gateway = world.gateway().await;
    let step = gateway
        .signing
        .create_signed(&Caller::default(), file(SIZE), "")
        .await;
    let id = step.unwrap().upload_id;
    let before = world.get(&id).await;
    let (opened, counts) = (oneshot::channel().0, watch::channel(Counts::default()).0);
    let observer = Observer { opened, counts };
    let ended = gateway
        .streams
        .receive(
            &Caller::default(),
            &mut messages(Target::Upload(id.clone()), SIZE),
            observer,
        )
        .await;
    assert_eq!(ended.unwrap_err().reason(), Reason::ClientGone);
    assert_eq!(world.get(&id).await, before);
}
