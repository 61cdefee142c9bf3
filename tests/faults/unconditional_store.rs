//! A store without conditional puts: a small file is put as the only part of a session.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{TryStreamExt, stream};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use upload_gateway::{config::Config, serve::connect};
use upload_gateway_core::{
    blobs::BlobStore,
    clock::Clock,
    decorate::{Around, Decorated},
    error::{Error, Kind, Reason, Result},
    gateway::{
        Caller, Chunk, Counts, Finish, Gateway, Message, Observer, Open, Settings, Storage,
        Storages, Takeover, Target,
    },
    upload::{FileMetadata, Md5, PART_SIZE, Phase, Timestamp},
};

/// A store without conditional puts.
#[derive(Debug)]
struct Unconditional;

impl Around for Unconditional {
    async fn around<T, F>(
        &self,
        name: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        if name != "store.put_object" {
            return call().await;
        }
        Err(Error::new(
            Kind::Unimplemented,
            Reason::NotOffered,
            "no conditional put",
        ))
    }
}

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp(1)
    }
}

fn settings() -> Settings {
    Settings {
        idle_timeout: Duration::from_secs(10),
        upload_expiry: Duration::from_secs(3600),
        ..crate::world::settings()
    }
}

#[tokio::test]
async fn a_small_file_is_the_only_part_of_a_session() {
    let directory = TempDir::new().unwrap();
    let config = Config {
        data_dir: directory.path().join("data"),
        ..Config::default()
    };
    let backends = connect(&config).await.unwrap();
    let store: Arc<dyn BlobStore> = Arc::new(Decorated::new(
        Arc::clone(
            &backends
                .storages
                .for_caller(&Caller::default(), "")
                .unwrap()
                .store,
        ),
        Unconditional,
    ));
    let storage = Storage::new("plain", Arc::clone(&store), "", PART_SIZE);
    let storages = Storages::new(vec![storage], "plain").unwrap();
    let state = Arc::clone(&backends.state);
    let gateway = Gateway::new(state, storages, settings(), Arc::new(Stopped)).await;
    let gateway = Arc::new(gateway.unwrap());
    for content in [&b""[..], b"a small file"] {
        let file = FileMetadata {
            file_name: "a.bin".into(),
            ..FileMetadata::default()
        };
        let target = Target::File {
            file,
            storage_id: String::new(),
        };
        let messages = [
            Message::Open(Open {
                target,
                resume_token: String::new(),
                restart: false,
                takeover: Takeover::Force,
            }),
            Message::Chunk(Chunk {
                offset: 0,
                data: Bytes::from_static(content),
                crc32c: None,
            }),
            Message::Finish(Finish {
                file_size: None,
                file_id: Some(Md5::of(content)),
                crc64nvme: None,
            }),
        ];
        let (opened, _opened) = oneshot::channel();
        let (counts, _counts) = watch::channel(Counts::default());
        let observer = Observer::new(opened, counts);
        let mut messages = stream::iter(messages.map(Ok));
        let upload = gateway
            .streams
            .receive(
                &Caller::default(),
                gateway.streams.memory(&Caller::default()),
                &mut messages,
                observer,
            )
            .await
            .unwrap();
        assert_eq!(upload.phase, Phase::Complete);
        let object = upload.object.unwrap();
        assert!(object.etag.ends_with("-1"), "{}", object.etag);
        assert_eq!(object.md5, Some(Md5::of(content)));
        let read: Vec<Bytes> = store
            .read(&object.key, None, None)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        assert_eq!(read.concat(), content);
    }
    backends.stop().await;
}
