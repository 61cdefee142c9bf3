//! A small file takes one call to each store, and one more to Redis to create it. Whatever happens between these steps, the object
//! is the one of the stream that was answered COMPLETE.

use std::sync::{Arc, Mutex};

use futures::FutureExt;
use tokio::{sync::oneshot, task::JoinHandle};
use upload_gateway_core::{
    decorate::{Around, Decorated},
    error::{Reason, Result},
    gateway::{Caller, Gateway, Search, Start, Target},
    upload::{FileMetadata, Md5, Phase, Upload, UploadId},
};

use super::{
    common::{bytes, until},
    crashes::sent_after_a_crash,
    object_records::{collect, keyed},
    races::{completions::send, interrupted::Interrupted},
    world::{World, file, for_each_store, settings},
};

for_each_store!(
    it_takes_one_call_to_create_and_one_to_complete,
    a_takeover_between_two_steps_has_one_winner,
    a_crash_between_two_steps_leaves_a_file_that_can_be_sent_again,
);

mod over_cluster {
    #[tokio::test]
    async fn a_takeover_between_two_steps_has_one_winner() {
        let Some(world) = crate::world::s3_with_cluster().await else {
            return;
        };
        crate::world::in_time(super::a_takeover_between_two_steps_has_one_winner(world)).await;
    }

    #[tokio::test]
    async fn a_crash_between_two_steps_leaves_a_file_that_can_be_sent_again() {
        let Some(world) = crate::world::s3_with_cluster().await else {
            return;
        };
        let case = super::a_crash_between_two_steps_leaves_a_file_that_can_be_sent_again(world);
        crate::world::in_time(case).await;
    }
}

const SIZE: usize = 1000;

/// Notes the names of all calls.
#[derive(Debug, Clone, Default)]
struct Noted(Arc<Mutex<Vec<&'static str>>>);

impl Around for Noted {
    async fn around<T, F>(
        &self,
        name: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        self.0.lock().unwrap().push(name);
        call().await
    }
}

/// The same create finds the same live upload.
fn findable() -> FileMetadata {
    FileMetadata {
        file_id: Some(Md5::of(&bytes(SIZE)).to_string()),
        ..file(SIZE)
    }
}

fn target(file: FileMetadata) -> Target {
    Target::File {
        file,
        storage_id: String::new(),
    }
}

async fn it_takes_one_call_to_create_and_one_to_complete(world: World) {
    let noted = Noted::default();
    let state = Decorated::new(Arc::clone(&world.backends.state), noted.clone());
    let for_stores = noted.clone();
    let storages = world.backends.storages.clone();
    let storages =
        storages.with_stores(move |_, store| Arc::new(Decorated::new(store, for_stores.clone())));
    let clock = Arc::new(world.clock.clone());
    let gateway = Gateway::new(Arc::new(state), storages, keyed(&[1]), clock).await;
    let gateway = Arc::new(gateway.unwrap());
    for file in [file(SIZE), findable(), unsized_file()] {
        // While the connection for notices is set up, the stream asks for its writer.
        until("the calls are these", async || {
            noted.0.lock().unwrap().clear();
            let upload = send(Arc::clone(&gateway), target(file.clone()), SIZE).await;
            assert_holds(&world, &upload.unwrap()).await;
            let mut calls = noted.0.lock().unwrap().clone();
            // Once a second, whatever is sent.
            calls.retain(|name| *name != "state.count_live");
            calls == ["state.create", "store.put_object", "state.update"]
        })
        .await;
    }
}

fn unsized_file() -> FileMetadata {
    FileMetadata {
        file_size: None,
        ..file(SIZE)
    }
}

async fn assert_holds(world: &World, upload: &Upload) {
    assert_eq!(upload.phase, Phase::Complete);
    let object = upload.object.as_ref().unwrap();
    assert_eq!(object.md5, Some(Md5::of(&bytes(SIZE))));
    assert_eq!(upload.file.file_size, Some(SIZE as u64));
    assert!(collect(&*world.store(), &upload.object_key).await == bytes(SIZE));
    assert_eq!(world.get(&upload.id).await, *upload);
}

/// The only upload that is not ABORTED.
async fn only(gateway: &Gateway) -> UploadId {
    let (caller, all) = (Caller::default(), Search::default());
    let listed = gateway
        .records
        .list_uploads(&caller, &all, Start::default(), 9);
    let mut uploads = listed.await.unwrap().uploads;
    uploads.retain(|upload| upload.phase != Phase::Aborted);
    assert_eq!(uploads.len(), 1, "{uploads:?}");
    uploads.remove(0).id
}

async fn a_takeover_between_two_steps_has_one_winner(world: World) {
    for (step, is_lost) in [
        ("state.create", true),
        ("store.put_object", true),
        ("state.update", false),
    ] {
        let other = world.gateway().await;
        let taken = Arc::new(Mutex::new(None::<JoinHandle<Result<Upload>>>));
        let (second, to) = (Arc::clone(&other), Arc::clone(&taken));
        let meanwhile = move || {
            let (second, to) = (Arc::clone(&second), Arc::clone(&to));
            async move {
                let target = Target::Upload(only(&second).await);
                // Not cancelled with the first stream.
                let (done, ended) = oneshot::channel();
                *to.lock().unwrap() = Some(tokio::spawn(async move {
                    let sent = send(second, target, SIZE).await;
                    let _ = done.send(());
                    sent
                }));
                ended.await.unwrap();
            }
            .boxed()
        };
        let interrupted = Interrupted::during(step, 1, meanwhile.clone());
        let state = Decorated::new(Arc::clone(&world.backends.state), interrupted);
        let storages = world.backends.storages.clone();
        let storages = storages
            .with_stores(move |_, store| Interrupted::store(store, step, 1, meanwhile.clone()));
        let clock = Arc::new(world.clock.clone());
        let first = Gateway::new(Arc::new(state), storages, settings(), clock).await;
        let first = send(Arc::new(first.unwrap()), target(file(SIZE)), SIZE).await;
        let second = taken.lock().unwrap().take().unwrap();
        let second = second.await.unwrap().unwrap();
        match first {
            Ok(first) => assert_eq!((first, is_lost), (second.clone(), false), "{step}"),
            Err(error) => assert_eq!((error.reason(), is_lost), (Reason::TakenOver, true)),
        }
        assert_holds(&world, &second).await;
        other
            .delete_upload(&Caller::default(), &second.id)
            .await
            .unwrap();
    }
}

async fn a_crash_between_two_steps_leaves_a_file_that_can_be_sent_again(world: World) {
    sent_after_a_crash(
        &world,
        async |gateway| drop(send(gateway, target(findable()), SIZE).await),
        async |gateway| {
            let upload = send(gateway, target(findable()), SIZE).await.unwrap();
            assert_holds(&world, &upload).await;
        },
    )
    .await;
}
