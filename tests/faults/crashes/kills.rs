//! A process is killed with SIGKILL before any message between it and the store, or between it and Redis, arrives.

use std::process::{Command, Stdio};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::stream;
use tempfile::TempDir;
use tonic::{Status, transport::Channel};
use upload_gateway::config::{Config, KeyConfig, StoreConfig};
use upload_gateway_client::proto::v1::{
    self, CopyUploadRequest, DeleteUploadRequest, GetUploadRequest, KeepUploadRequest,
    MoveUploadRequest, upload_service_client::UploadServiceClient,
};
use upload_gateway_core::{
    gateway::{Caller, Gateway, Restore},
    upload::{FileMetadata, Md5, Upload},
};

use super::{
    super::{
        common::{self, Server, bytes},
        object_records::{get, keyed, seen, upload},
        world::{DAY, World, file},
    },
    LATER, at_every_step,
    gate::Gate,
    is_copied, is_moved, is_whole, tagged,
};

/// Makes one test of each case for each store that is a server, and one for Redis.
macro_rules! for_each_server {
    ($($case:ident),* $(,)?) => {
        mod s3 { $(
            #[tokio::test]
            async fn $case() {
                let Some(world) = crate::world::s3().await else { return };
                crate::world::in_time(super::$case(world, super::Link::Store)).await;
            }
        )* }
        mod azure { $(
            #[tokio::test]
            async fn $case() {
                let Some(world) = crate::world::azure().await else { return };
                crate::world::in_time(super::$case(world, super::Link::Store)).await;
            }
        )* }
        mod over_redis { $(
            #[tokio::test]
            async fn $case() {
                let Some(world) = crate::world::s3().await else { return };
                crate::world::in_time(super::$case(world, super::Link::Redis)).await;
            }
        )* }
    };
}

for_each_server!(
    a_small_file_can_be_sent_again,
    a_deletion_is_finished,
    an_expiry_is_finished,
    an_expiry_that_was_changed_is_kept_to,
    a_copy_is_whole,
    a_move_keeps_one_of_both,
    a_record_is_rebuilt_on_demand,
    records_are_restored,
);

/// The size of a small file in bytes.
const SIZE: usize = 1000;

/// What the killed process is connected to by a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Store,
    Redis,
}

/// A process whose connection to one server passes a gate.
struct Doomed {
    config: Config,
    gate: Gate,
    directory: TempDir,
}

// === impl Doomed ===

impl Doomed {
    /// Over the stores of the world, and with the key of its gateways.
    async fn over(world: &World, link: Link) -> Self {
        let mut config = world.config.clone();
        let directory = TempDir::new().unwrap();
        let key_file = directory.path().join("key");
        std::fs::write(&key_file, BASE64_STANDARD.encode([1; 32])).unwrap();
        config.records.key = vec![KeyConfig {
            id: "k1".into(),
            key: None,
            key_file: Some(key_file),
        }];
        // Only the command sweeps.
        config.sweeper.interval_seconds = 3600;
        let endpoint = match &mut config.storage[0].store {
            StoreConfig::S3(s3) => &mut s3.endpoint,
            StoreConfig::Azure(azure) => &mut azure.endpoint,
        };
        let gate = match link {
            Link::Store => {
                let mut url = endpoint.as_ref().unwrap().url().clone();
                let gate = Gate::of_store(url.authority().to_owned()).await;
                url.set_port(Some(gate.address.port())).unwrap();
                *endpoint = Some(url.as_str().parse().unwrap());
                gate
            }
            Link::Redis => {
                let url = config.redis_url.as_ref().unwrap().to_string();
                let mut url = reqwest::Url::parse(&url).unwrap();
                let gate = Gate::of_redis(url.authority().to_owned()).await;
                url.set_port(Some(gate.address.port())).unwrap();
                config.redis_url = Some(url.as_str().parse().unwrap());
                gate
            }
        };
        Self {
            config,
            gate,
            directory,
        }
    }

    fn with_secrets(&self, command: &mut Command) {
        let (name, secret) = match &self.config.storage[0].store {
            StoreConfig::S3(s3) => ("SECRET_ACCESS_KEY", &s3.secret_access_key),
            StoreConfig::Azure(azure) => ("ACCOUNT_KEY", &azure.account_key),
        };
        let name = format!("UPLOAD_GATEWAY_STORAGE__MEDIA__{name}");
        command.env(name, secret.as_ref().unwrap().expose());
    }
}

/// Sends a call to a gateway, which is killed after this many messages of its connection. Returns whether it was.
async fn killed_in_call(
    (world, link): (&World, Link),
    messages: usize,
    call: impl AsyncFnOnce(UploadServiceClient<Channel>) -> Result<(), Status>,
) -> bool {
    let doomed = Doomed::over(world, link).await;
    let mut server = Server::start(|port, directory| {
        let mut command = common::serve(&doomed.config.to_toml(), port, directory);
        doomed.with_secrets(&mut command);
        command
    });
    let client = UploadServiceClient::connect(format!("http://{}", server.address()));
    let client = client.await.unwrap();
    doomed.gate.close_after(messages);
    tokio::select! {
        answer = call(client) => {
            answer.unwrap();
            false
        }
        () = doomed.gate.closed() => {
            server.kill();
            true
        }
    }
}

/// Runs a command, which is killed after this many messages of its connection. Returns whether it was.
async fn killed_in_command(
    (world, link): (&World, Link),
    messages: usize,
    arguments: &[&str],
) -> bool {
    let doomed = Doomed::over(world, link).await;
    let file = doomed.directory.path().join("gateway.toml");
    std::fs::write(&file, doomed.config.to_toml()).unwrap();
    let mut command = common::binary();
    doomed.with_secrets(&mut command);
    command.args(arguments).arg("--config").arg(file);
    command.stdout(Stdio::null());
    doomed.gate.close_after(messages);
    let mut running = tokio::process::Command::from(command).spawn().unwrap();
    tokio::select! {
        ended = running.wait() => {
            assert!(ended.unwrap().success());
            false
        }
        () = doomed.gate.closed() => {
            running.kill().await.unwrap();
            true
        }
    }
}

fn redis(world: &World) -> redis::Connection {
    let url = world.config.redis_url.as_ref().unwrap().to_string();
    let client = redis::Client::open(url).unwrap();
    client.get_connection().unwrap()
}

async fn a_small_file_can_be_sent_again(world: World, link: Link) {
    let file = FileMetadata {
        file_id: Some(Md5::of(&bytes(SIZE)).to_string()),
        ..file(SIZE)
    };
    at_every_step(
        &world,
        LATER[0],
        async |_| (),
        async |messages, ()| {
            let open = common::open_file(v1::FileMetadata {
                file_name: file.file_name.clone(),
                file_size: Some(SIZE as i64),
                file_id: file.file_id.clone().unwrap(),
                ..v1::FileMetadata::default()
            });
            let sent = stream::iter([open, common::chunk(0, &bytes(SIZE)), common::finish()]);
            let call = async |mut client: UploadServiceClient<Channel>| {
                client.upload(sent).await.map(drop)
            };
            killed_in_call((&world, link), messages, call).await
        },
        async |other, ()| {
            let sent = upload(other, file.clone()).await;
            assert!(is_whole(&world, other, &sent).await);
        },
    )
    .await;
}

async fn a_deletion_is_finished(world: World, link: Link) {
    at_every_step(
        &world,
        LATER[0],
        async |gateway| upload(gateway, tagged(1000)).await,
        async |messages, known| {
            let upload_id = known.id.to_string();
            let call = async |mut client: UploadServiceClient<Channel>| {
                let request = DeleteUploadRequest { upload_id };
                client.delete_upload(request).await.map(drop)
            };
            killed_in_call((&world, link), messages, call).await
        },
        async |other, known| {
            let caller = Caller::default();
            // If it is not, nothing of it is left.
            is_whole(&world, other, known).await;
            other.delete_upload(&caller, &known.id).await.unwrap();
            assert!(!is_whole(&world, other, known).await);
        },
    )
    .await;
}

async fn an_expiry_is_finished(world: World, link: Link) {
    at_every_step(
        &world,
        LATER[0],
        async |_| {
            let clock = world.clock.before(2 * DAY);
            let storages = world.backends.storages.clone();
            let early = world.gateway_with(keyed(&[1]), clock, storages).await;
            let known = upload(&early, file(1000)).await;
            let caller = Caller::default();
            let kept = early.keep_upload(&caller, &known.id, Some(60));
            kept.await.unwrap()
        },
        async |messages, _| {
            let was_killed = killed_in_command((&world, link), messages, &["sweep"]).await;
            // Otherwise another sweeper would wait a minute until the lease has expired.
            let mut redis = redis(&world);
            let leases = redis::cmd("KEYS").arg("*lease:sweep").query(&mut redis);
            let leases: Vec<String> = leases.unwrap();
            let deleted = redis::cmd("DEL").arg("other").arg(leases).query(&mut redis);
            let () = deleted.unwrap();
            was_killed
        },
        async |other, known| assert!(!is_whole(&world, other, known).await),
    )
    .await;
}

async fn an_expiry_that_was_changed_is_kept_to(world: World, link: Link) {
    at_every_step(
        &world,
        LATER[0],
        async |gateway| upload(gateway, file(1000)).await,
        async |messages, known| {
            let request = KeepUploadRequest {
                upload_id: known.id.to_string(),
                expire_after: Some(prost_types::Duration {
                    seconds: 60,
                    nanos: 0,
                }),
            };
            let call = async |mut client: UploadServiceClient<Channel>| {
                client.keep_upload(request).await.map(drop)
            };
            killed_in_call((&world, link), messages, call).await
        },
        async |other, known| {
            // By now the new time has passed.
            if is_whole(&world, other, known).await {
                let found = get(other, &known.id).await.unwrap();
                assert_eq!(found.file_expires_at, None);
            }
        },
    )
    .await;
}

async fn a_copy_is_whole(world: World, link: Link) {
    at_every_step(
        &world,
        LATER[0],
        async |gateway| upload(gateway, tagged(1000)).await,
        async |messages, source| {
            let request = CopyUploadRequest {
                upload_id: source.id.to_string(),
                storage_id: String::new(),
            };
            let call = async |mut client: UploadServiceClient<Channel>| {
                let mut messages = client.copy_upload(request).await?.into_inner();
                while messages.message().await?.is_some() {}
                Ok(())
            };
            killed_in_call((&world, link), messages, call).await
        },
        async |other, source| is_copied(&world, other, source).await,
    )
    .await;
}

async fn a_move_keeps_one_of_both(world: World, link: Link) {
    at_every_step(
        &world,
        LATER[0],
        async |gateway| upload(gateway, tagged(1000)).await,
        async |messages, source| {
            let request = MoveUploadRequest {
                upload_id: source.id.to_string(),
                storage_id: String::new(),
            };
            let call = async |mut client: UploadServiceClient<Channel>| {
                let mut messages = client.move_upload(request).await?.into_inner();
                while messages.message().await?.is_some() {}
                Ok(())
            };
            killed_in_call((&world, link), messages, call).await
        },
        async |other, source| is_moved(&world, other, source).await,
    )
    .await;
}

/// Files whose records Redis has lost: in the metadata, and in a side object.
async fn lost(world: &World, gateway: &Gateway) -> Vec<Upload> {
    let mut lost = Vec::new();
    for kind in [file(1000), tagged(1000)] {
        lost.push(upload(gateway, kind).await);
    }
    redis::cmd("FLUSHDB")
        .query::<()>(&mut redis(world))
        .unwrap();
    lost
}

async fn are_found(other: &Gateway, lost: &[Upload]) {
    for known in lost {
        let found = get(other, &known.id).await.unwrap();
        assert_eq!(seen(found), seen(known.clone()));
    }
}

async fn a_record_is_rebuilt_on_demand(world: World, link: Link) {
    at_every_step(
        &world,
        LATER[0],
        async |gateway| lost(&world, gateway).await,
        async |messages, lost| {
            let call = async |mut client: UploadServiceClient<Channel>| {
                for known in lost {
                    let upload_id = known.id.to_string();
                    client.get_upload(GetUploadRequest { upload_id }).await?;
                }
                Ok(())
            };
            killed_in_call((&world, link), messages, call).await
        },
        async |other, lost| are_found(other, lost).await,
    )
    .await;
}

async fn records_are_restored(world: World, link: Link) {
    at_every_step(
        &world,
        LATER[0],
        async |gateway| lost(&world, gateway).await,
        async |messages, _| {
            killed_in_command((&world, link), messages, &["records", "rebuild"]).await
        },
        async |other, lost| {
            let caller = Caller::default();
            let storage = other.storages.for_caller(&caller, "").unwrap();
            let restored = other.records.restore_all(&storage, Restore::default());
            let report = restored.await.unwrap();
            assert_eq!(
                report.restored + report.known,
                lost.len() as u64,
                "{report:?}"
            );
            are_found(other, lost).await;
        },
    )
    .await;
}
