//! The owner, the expiry and the keys of tokens: gateways over one state store and one storage, with the test's clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::stream;
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use upload_gateway::{
    config::Config,
    serve::{Backends, connect},
};
use upload_gateway_core::{
    clock::Clock,
    error::{Error, Kind, Reason},
    gateway::{
        Action, Caller, Counts, Gateway, Message, Observer, Open, Settings, Storage, Storages,
        Takeover, Target, TokenKey,
    },
    upload::{FileMetadata, Owner, PART_SIZE, Timestamp, UploadId},
};

use super::common;

const DAY: u64 = 24 * 60 * 60 * 1000;

/// A clock that stands still.
#[derive(Debug)]
struct Still(AtomicU64);

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// Shared by all gateways of a test.
struct Shared {
    backends: Backends,
    clock: Arc<Still>,
    _directory: TempDir,
}

impl Shared {
    async fn with(config: Config) -> Self {
        let directory = TempDir::new().unwrap();
        let data_dir = directory.path().to_owned();
        let backends = connect(&Config { data_dir, ..config }).await.unwrap();
        Self {
            backends,
            clock: Arc::new(Still(AtomicU64::new(1_800_000_000_000))),
            _directory: directory,
        }
    }

    async fn embedded() -> Self {
        Self::with(Config::default()).await
    }

    async fn gateway(&self, keys: &[(&str, u8)]) -> Arc<Gateway> {
        self.gateway_of(self.backends.storages.clone(), keys).await
    }

    async fn gateway_of(&self, storages: Storages, keys: &[(&str, u8)]) -> Arc<Gateway> {
        let key = |&(id, byte): &(&str, u8)| TokenKey::new(id, &[byte; 32]);
        let settings = Settings {
            parts_in_flight: 2,
            store_retry_timeout: Duration::from_secs(5),
            token_keys: keys.iter().map(key).collect(),
            ..crate::world::settings()
        };
        let state = Arc::clone(&self.backends.state);
        let clock = Arc::clone(&self.clock);
        Arc::new(
            Gateway::new(state, storages, settings, clock)
                .await
                .unwrap(),
        )
    }
}

/// Opens a stream and ends it; returns the upload, its token, and why the stream failed.
async fn stream(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    open: Open,
) -> (Option<UploadId>, String, Error) {
    let (opened, upload) = oneshot::channel();
    let (counts, counted) = watch::channel(Counts::default());
    let mut messages = stream::iter([Ok(Message::Open(open))]);
    let observer = Observer::new(opened, counts);
    let received = gateway.streams.receive(
        caller,
        gateway.streams.memory(caller),
        &mut messages,
        observer,
    );
    let error = received.await.unwrap_err();
    let token = counted.borrow().resume_token.to_string();
    (upload.await.ok().map(|upload| upload.id), token, error)
}

/// A new upload and its token.
async fn begin(gateway: &Arc<Gateway>, caller: &Caller) -> (UploadId, String) {
    let file = FileMetadata {
        file_name: "a.bin".into(),
        ..FileMetadata::default()
    };
    let open = Open {
        target: Target::File {
            file,
            storage_id: String::new(),
        },
        resume_token: String::new(),
        restart: false,
        takeover: Takeover::Force,
    };
    let (id, token, _) = stream(gateway, caller, open).await;
    (id.unwrap(), token)
}

/// Why a stream with this token fails: [`Reason::Incomplete`] if the token is accepted.
async fn reopen(gateway: &Arc<Gateway>, caller: &Caller, id: &UploadId, token: &str) -> Error {
    let open = Open {
        target: Target::Upload(id.clone()),
        resume_token: token.to_owned(),
        restart: false,
        takeover: Takeover::Force,
    };
    stream(gateway, caller, open).await.2
}

fn caller(subject: &str) -> Caller {
    Caller {
        owner: Owner {
            tenant: "acme".into(),
            subject: subject.into(),
        },
        ..Caller::default()
    }
}

#[tokio::test]
async fn a_token_works_only_for_its_owner() {
    let gateway = Shared::embedded().await.gateway(&[("k", 1)]).await;
    let (alice, mallory) = (caller("alice"), caller("mallory"));
    let (id, token) = begin(&gateway, &alice).await;
    let refused = reopen(&gateway, &mallory, &id, &token).await;
    assert_eq!(
        (refused.kind(), refused.reason()),
        (Kind::InvalidArgument, Reason::InvalidToken)
    );
    let taken = reopen(&gateway, &alice, &id, &token).await;
    assert_eq!(taken.reason(), Reason::Incomplete);
}

#[tokio::test]
async fn a_token_expires_with_its_upload() {
    let shared = Shared::embedded().await;
    let gateway = shared.gateway(&[("k", 1)]).await;
    let (id, token) = begin(&gateway, &caller("a")).await;
    shared.clock.0.fetch_add(DAY - 1, Ordering::Relaxed);
    let taken = reopen(&gateway, &caller("a"), &id, &token).await;
    assert_eq!(taken.reason(), Reason::Incomplete);
    shared.clock.0.fetch_add(1, Ordering::Relaxed);
    let refused = reopen(&gateway, &caller("a"), &id, &token).await;
    assert_eq!(refused.reason(), Reason::InvalidToken);
}

#[tokio::test]
async fn every_key_opens_and_the_first_one_seals() {
    let shared = Shared::embedded().await;
    let caller = caller("a");
    let old = shared.gateway(&[("old", 1)]).await;
    let (id, token) = begin(&old, &caller).await;
    let both = shared.gateway(&[("new", 2), ("old", 1)]).await;
    let reason = async |gateway: &Arc<Gateway>, token: &str| {
        reopen(gateway, &caller, &id, token).await.reason()
    };
    assert_eq!(reason(&both, &token).await, Reason::Incomplete);
    let summary = both
        .records
        .get_summary(&caller, Action::Read, &id)
        .await
        .unwrap();
    let newer = both.tokens.resume_token(&summary).await.unwrap();
    let new = shared.gateway(&[("new", 2)]).await;
    assert_eq!(reason(&new, &newer).await, Reason::Incomplete);
    assert_eq!(reason(&new, &token).await, Reason::InvalidToken);
    // Nor does another key with the same name, or the secret that is used without keys.
    for keys in [&[("new", 3)][..], &[]] {
        let other = shared.gateway(keys).await;
        assert_eq!(reason(&other, &newer).await, Reason::InvalidToken);
    }
}

#[tokio::test]
async fn a_storage_that_is_not_configured_is_not_written_to() {
    let Some(redis) = common::redis().await else {
        return;
    };
    let shared = Shared::with(over(&redis)).await;
    let gateway = shared.gateway(&[("k", 1)]).await;
    let (id, token) = begin(&gateway, &caller("a")).await;
    flush(&redis);
    let store = Arc::clone(
        &shared
            .backends
            .storages
            .for_caller(&Caller::default(), "")
            .unwrap()
            .store,
    );
    let storages = Storages::new(vec![Storage::new("other", store, "", PART_SIZE)], "other");
    let other = shared.gateway_of(storages.unwrap(), &[("k", 1)]).await;
    let refused = reopen(&other, &caller("a"), &id, &token).await;
    assert_eq!(
        (refused.kind(), refused.reason()),
        (Kind::NotFound, Reason::StorageNotFound)
    );
    let taken = reopen(&gateway, &caller("a"), &id, &token).await;
    assert_eq!(taken.reason(), Reason::Incomplete);
}

#[tokio::test]
async fn a_flushed_redis_gets_the_secret_again_and_tokens_without_keys_stay_valid() {
    let Some(redis) = common::redis().await else {
        return;
    };
    let shared = Shared::with(over(&redis)).await;
    let old = shared.gateway(&[]).await;
    let (id, token) = begin(&old, &caller("a")).await;
    flush(&redis);
    old.check_state().await.unwrap();
    let new = shared.gateway(&[]).await;
    let taken = reopen(&new, &caller("a"), &id, &token).await;
    assert_eq!(taken.reason(), Reason::Incomplete);
}

#[tokio::test]
async fn gateways_with_two_secrets_agree_again_on_one() {
    let Some(redis) = common::redis().await else {
        return;
    };
    let shared = Shared::with(over(&redis)).await;
    let old = shared.gateway(&[]).await;
    flush(&redis);
    let new = shared.gateway(&[]).await;
    let (id, token) = begin(&new, &caller("a")).await;
    let refused = reopen(&old, &caller("a"), &id, &token).await;
    assert_eq!(refused.reason(), Reason::InvalidToken);
    old.check_state().await.unwrap();
    let taken = reopen(&old, &caller("a"), &id, &token).await;
    assert_eq!(taken.reason(), Reason::Incomplete);
}

fn over(redis: &common::RedisBackend) -> Config {
    Config {
        redis_url: Some(redis.url.parse().unwrap()),
        ..Config::default()
    }
}

fn flush(redis: &common::RedisBackend) {
    let client = redis::Client::open(redis.url.as_str()).unwrap();
    let mut connection = client.get_connection().unwrap();
    redis::cmd("FLUSHDB").query::<()>(&mut connection).unwrap();
}
