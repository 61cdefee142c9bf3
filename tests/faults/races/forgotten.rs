//! A state store that is emptied between two steps of a create.

use std::sync::Arc;

use futures::stream;
use tokio::sync::{oneshot, watch};
use upload_gateway_core::{
    decorate::Decorated,
    gateway::{Caller, Counts, Gateway, Message, Observer, Open, Takeover, Target},
    state::StateStore,
    upload::{FileMetadata, Md5, Upload},
};

use super::{
    for_each_store,
    interrupted::Interrupted,
    world::{PART, World, file, settings},
};

for_each_store!(a_create_whose_upload_is_lost_meanwhile_makes_a_new_one);

/// A file that an identical create finds.
fn known_file() -> FileMetadata {
    FileMetadata {
        file_id: Some(Md5::of(b"a file").to_string()),
        ..file(2 * PART)
    }
}

/// A gateway whose Redis is emptied when the first create has found an upload.
async fn forgetful(world: &World, url: &str) -> Gateway {
    let url = url.to_owned();
    let flush = move || {
        let url = url.clone();
        let flushed = async move {
            let client = redis::Client::open(url).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            let flush = redis::cmd("FLUSHDB");
            let () = flush.query_async(&mut connection).await.unwrap();
        };
        Box::pin(flushed) as _
    };
    let around = Interrupted::during("state.create", 1, flush);
    let state: Arc<dyn StateStore> =
        Arc::new(Decorated::new(Arc::clone(&world.backends.state), around));
    let storages = world.backends.storages.clone();
    let clock = Arc::new(world.clock.clone());
    Gateway::new(state, storages, settings(), clock)
        .await
        .unwrap()
}

/// Opens a stream for the file, and ends it.
async fn open(gateway: &Gateway) -> Upload {
    let open = Message::Open(Open {
        target: Target::File {
            file: known_file(),
            storage_id: String::new(),
        },
        resume_token: String::new(),
        restart: false,
        takeover: Takeover::Force,
    });
    let (opened, upload) = oneshot::channel();
    let (counts, _counts) = watch::channel(Counts::default());
    let observer = Observer::new(opened, counts);
    let mut messages = stream::iter([Ok(open)]);
    let caller = Caller::default();
    let ended = gateway.streams.receive(
        &caller,
        gateway.streams.memory(&caller),
        &mut messages,
        observer,
    );
    let (_, upload) = tokio::join!(ended, upload);
    upload.unwrap()
}

async fn a_create_whose_upload_is_lost_meanwhile_makes_a_new_one(world: World) {
    let Some(url) = world.config.redis_url.clone() else {
        return;
    };
    let lost = open(&*world.gateway().await).await;
    let found = open(&*world.gateway().await).await;
    assert_eq!(found.id, lost.id);
    let made = open(&forgetful(&world, url.expose()).await).await;
    assert_ne!(made.id, lost.id);
}
