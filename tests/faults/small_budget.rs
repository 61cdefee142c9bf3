//! An upload that was planned by a gateway with more memory than the one that continues it.

use std::sync::Arc;

use futures::stream;
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};
use upload_gateway_core::{
    error::{Error, Kind, Reason, Result},
    gateway::{
        Caller, Counts, Gateway, Message, Observer, Open, Settings, Storage, Storages, Takeover,
        Target,
    },
    upload::{MIB, Upload, UploadId},
};

use crate::world::{self, settings};

/// Opens an upload, and sends nothing.
async fn open(gateway: &Gateway, id: &UploadId) -> Result<Upload, Error> {
    let open = Message::Open(Open {
        target: Target::Upload(id.clone()),
        resume_token: String::new(),
        restart: false,
        takeover: Takeover::Force,
    });
    let (opened, _opened) = oneshot::channel();
    let (counts, _counts) = watch::channel(Counts::default());
    let observer = Observer::new(opened, counts);
    let mut messages = stream::iter([Ok(open)]);
    let caller = Caller::default();
    gateway
        .streams
        .receive(
            &caller,
            gateway.streams.memory(&caller),
            &mut messages,
            observer,
        )
        .await
}

#[tokio::test]
async fn parts_that_are_too_large_for_the_budget_are_refused_when_the_upload_is_opened() {
    let world = world::embedded().await;
    let storages = || {
        let storage = Storage::new("large-parts", world.store(), "", 8 * MIB);
        Storages::new(vec![storage], "large-parts").unwrap()
    };
    let large = world.gateway_with(settings(), world.clock.clone(), storages());
    let large = large.await;
    let small = Settings {
        memory_budget: 20 * MIB,
        ..settings()
    };
    let small = world.gateway_with(small, world.clock.clone(), storages());
    let small = small.await;

    let upload = world.interrupted(&large, 0).await;
    let error = open(&small, &upload.id).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.reason()),
        (Kind::FailedPrecondition, Reason::BudgetTooSmall)
    );
    assert_eq!(error.metadata()["memory_budget"], (20 * MIB).to_string());
    assert_eq!(error.metadata()["part_size"], (8 * MIB).to_string());
    // The gateway that could not continue it has not taken it over.
    assert_eq!(world.get(&upload.id).await.writer, upload.writer);

    // The last part is small enough for both.
    let upload = world.interrupted(&large, 8 * 1024 * 1024).await;
    assert_eq!(upload.committed_size(), 8 * MIB);
    let error = open(&small, &upload.id).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Incomplete);
    world.close().await;
}

fn observer() -> Observer {
    Observer::new(oneshot::channel().0, watch::channel(Counts::default()).0)
}

#[tokio::test]
async fn a_stream_without_open_ends_after_ten_seconds() {
    let world = world::embedded().await;
    let gateway = world.gateway().await;
    let caller = Caller::default();
    tokio::time::pause();
    let begun = Instant::now();
    let memory = gateway.streams.memory(&caller);
    let mut silent = stream::pending();
    let ended = gateway
        .streams
        .receive(&caller, memory, &mut silent, observer());
    assert_eq!(ended.await.unwrap_err().reason(), Reason::IdleTimeout);
    assert_eq!(begun.elapsed().as_secs(), 10);
    tokio::time::resume();
    world.close().await;
}

#[tokio::test]
async fn the_memory_of_a_first_message_that_never_ends_is_recalled() {
    let world = world::embedded().await;
    let gateway = world.gateway().await;
    let caller = Caller::default();
    tokio::time::pause();
    let begun = Instant::now();
    let memory = gateway.streams.memory(&caller);
    while memory.try_arrive(MIB, 0) {}
    // Another stream has the reserve.
    let borrower = gateway.streams.memory(&caller);
    borrower.arrive(MIB, 0).await.unwrap();
    while borrower.try_arrive(MIB, 0) {}
    let mut stalled = stream::pending();
    let stalled = gateway
        .streams
        .receive(&caller, Arc::clone(&memory), &mut stalled, observer());
    let other = gateway.streams.memory(&caller);
    let ended = async {
        let ended = stalled.await;
        // The transport lets go of it with the stream.
        drop(memory);
        ended
    };
    let (ended, arrived) = tokio::join!(ended, other.arrive(MIB, 0));
    let error = ended.unwrap_err();
    assert_eq!(
        (error.kind(), error.reason()),
        (Kind::Unavailable, Reason::Overloaded)
    );
    arrived.unwrap();
    assert!(begun.elapsed().as_secs() < 3);
    tokio::time::resume();
    world.close().await;
}
