//! What must be believed: a session that was really aborted, a part or an object that was really replaced; and a lie that
//! lasts and that every call able to contradict it repeats. The end is SESSION_LOST or PART_REPLACED, soon, but for a lie
//! not before the settle time. And what must never be believed: that an object is missing whose commit the store has
//! acknowledged.

use std::{fmt, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};
use upload_gateway_client::proto::v1::Upload;
use upload_gateway_core::{
    blobs::{NewObject, NewPart, Session},
    upload::{Integrity, Md5, UploadId, WriterTag},
};

use crate::{
    browser::Browser,
    failed::Failed,
    layer::Protocol,
    lie::{Extent, Lie, Rule, absent},
    paths::{DAYS, known},
    run::destroyed_in,
    sender::Sender,
    world::{FILE, PART, SETTLE, StoreKind, Until, World},
};

/// How long after the settle time the truth must be known.
const SOON: Duration = Duration::from_secs(5);

/// The size in bytes of a file that is put whole.
const SMALL: usize = 1_000;

/// One trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Trial {
    /// The session was aborted (Azure: the blocks were removed), and a stream resumes.
    SessionAborted,
    /// The same, and a client wants to commit.
    SignedSessionAborted,
    /// A part was put again with other bytes.
    PartReplaced,
    /// Another object is under the key before a stream puts its own.
    ObjectReplaced,
    /// Another object is under the key in place of that of a client.
    SignedObjectReplaced,
    /// The answer to the commit was lost, and the object was deleted.
    ObjectDeleted,
    /// All calls say that there is no session.
    SessionDenied,
    /// All calls say that a part is missing.
    PartDenied,
    /// After the commit was acknowledged, all calls say that there is no object.
    CommittedObjectDenied,
    /// The same after a put.
    PutObjectDenied,
}

// === impl Trial ===

impl Trial {
    pub(crate) const ALL: [Self; 10] = [
        Self::SessionAborted,
        Self::SignedSessionAborted,
        Self::PartReplaced,
        Self::ObjectReplaced,
        Self::SignedObjectReplaced,
        Self::ObjectDeleted,
        Self::SessionDenied,
        Self::PartDenied,
        Self::CommittedObjectDenied,
        Self::PutObjectDenied,
    ];

    /// On Azure every stream's blocks have names of their own, so none is replaced; and a client puts missing blocks
    /// again, because there is no session.
    pub(crate) fn exists_on(self, store: StoreKind) -> bool {
        match self {
            Self::PartReplaced | Self::SignedSessionAborted => store.protocol() == Protocol::S3,
            // Azurite has no call that removes blocks.
            Self::SessionAborted => store != StoreKind::Azurite,
            _ => true,
        }
    }

    /// `None` if the server is not installed.
    pub(crate) async fn run(self, kind: StoreKind) -> Option<Result<(), Failed>> {
        let mut world = Box::pin(World::start(kind, Vec::new(), Vec::new())).await?;
        let ended = match self {
            Self::ObjectDeleted => Box::pin(object_deleted(&mut world)).await,
            _ => Box::pin(self.run_in(&world)).await,
        };
        let _ = timeout(SOON, world.stop()).await;
        Some(ended)
    }

    async fn run_in(self, world: &World) -> Result<(), Failed> {
        match self {
            Self::SessionAborted => {
                let mut sender = interrupted(world).await?;
                abort(world, sender.id.as_ref().unwrap()).await;
                lost(sender.send_all(world)).await
            }
            Self::SignedSessionAborted => {
                let browser = Browser::new(world, known(FILE.len()), &FILE).await;
                let id = browser.put_parts(2).await?;
                abort(world, &id).await;
                lost(browser.finish(&id)).await
            }
            Self::PartReplaced => {
                let mut sender = interrupted(world).await?;
                replace_part(world, sender.id.as_ref().unwrap()).await;
                lost(sender.send_all(world)).await
            }
            Self::ObjectReplaced => {
                let mut sender = Sender::new(known(SMALL), &FILE[..SMALL]);
                sender.send_until(world, 0).await?;
                put_other(world, sender.id.as_ref().unwrap()).await;
                lost(sender.send_all(world)).await
            }
            Self::SignedObjectReplaced => {
                let browser = Browser::new(world, known(SMALL), &FILE[..SMALL]).await;
                let id = browser.put_whole().await?;
                put_other(world, &id).await;
                lost(browser.complete_created(&id)).await
            }
            Self::SessionDenied | Self::PartDenied => self.denied(world).await,
            Self::ObjectDeleted => unreachable!("it stops the gateway"),
            Self::CommittedObjectDenied => {
                self.acknowledged(world, Sender::new(known(FILE.len()), &FILE))
                    .await
            }
            Self::PutObjectDenied => {
                let sender = Sender::new(known(SMALL), &FILE[..SMALL]);
                self.acknowledged(world, sender).await
            }
        }
    }

    /// A lie that lasts is believed after the settle time.
    async fn denied(self, world: &World) -> Result<(), Failed> {
        let mut sender = interrupted(world).await?;
        world.layer.add(self.rules(world.kind.protocol()));
        lost(sender.send_all(world)).await?;
        let first = world
            .layer
            .log()
            .into_iter()
            .find(|made| made.lie.is_some());
        let lasted = first.map_or(Duration::ZERO, |made| made.at.elapsed());
        if lasted < SETTLE {
            return Err(Failed::Wrong(format!("believed after {lasted:?}")));
        }
        Ok(())
    }

    /// An object that the store has acknowledged is never taken for missing.
    async fn acknowledged(self, world: &World, mut sender: Sender) -> Result<(), Failed> {
        world.layer.add(self.rules(world.kind.protocol()));
        let sending = sender.send_all(world);
        let truthful = async {
            sleep(SETTLE * 3).await;
            world.layer.be_truthful();
        };
        let (sent, ()) = tokio::join!(sending, truthful);
        match destroyed_in(&world.layer.log()) {
            Some(calls) => Err(Failed::Destroyed(calls)),
            None => sent.map(drop),
        }
    }

    fn rules(self, protocol: Protocol) -> Vec<Rule> {
        let denied = |call: &str| (call.to_owned(), Lie::Code(404, absent(protocol, call)));
        let lies = match (self, protocol) {
            (Self::SessionDenied, Protocol::S3) => {
                ["UploadPart", "ListParts", "CompleteMultipartUpload"]
                    .map(denied)
                    .to_vec()
            }
            (Self::SessionDenied, Protocol::Azure) => vec![
                denied("GetBlockList"),
                ("PutBlockList".into(), Lie::Code(400, "InvalidBlockList")),
            ],
            (Self::PartDenied, Protocol::S3) => vec![
                ("ListParts".into(), Lie::Stale),
                (
                    "CompleteMultipartUpload".into(),
                    Lie::Code(400, "InvalidPart"),
                ),
            ],
            (Self::PartDenied, Protocol::Azure) => vec![
                ("GetBlockList".into(), Lie::Stale),
                ("PutBlockList".into(), Lie::Code(400, "InvalidBlockList")),
            ],
            (_, Protocol::S3) => vec![
                ("HeadObject".into(), Lie::NotFound),
                denied("GetObject"),
                ("ListObjectsV2".into(), Lie::Stale),
            ],
            (_, Protocol::Azure) => ["GetBlobProperties", "GetBlob"].map(denied).to_vec(),
        };
        let rules = lies.into_iter().map(|(call, lie)| Rule {
            call,
            from: 1,
            lie,
            extent: Extent::Forever,
        });
        rules.collect()
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

/// A commit without an answer can still run in the store, so nothing is decided before its time limit is over. Then it
/// is soon.
async fn object_deleted(world: &mut World) -> Result<(), Failed> {
    let rule = |call: &str, lie| Rule {
        call: call.into(),
        from: 1,
        lie,
        extent: Extent::Forever,
    };
    let (commit, head) = world.kind.protocol().commit_and_head();
    world.layer.add([
        // Each of them: Azure acknowledges a repeated commit.
        rule(commit, Lie::LostAnswer),
        rule(head, Lie::UnavailablePage),
    ]);
    let mut sender = Sender::new(known(FILE.len()), &FILE);
    undecided(&mut sender, world).await?;
    let id = sender.id.clone().unwrap();
    let key = world.key(&id, "film.mp4");
    if world.truth.head(&key).await.unwrap().is_none() {
        return Err(Failed::Wrong("the store did not commit".into()));
    }
    world.truth.delete(&key).await.unwrap();
    world.layer.be_truthful();
    undecided(&mut sender, world).await?;

    let begun = Instant::now();
    world.sweep(DAYS, None, Until::Ended(&id)).await?;
    let took = begun.elapsed();
    if took > SETTLE + SOON {
        return Err(Failed::Wrong(format!("ended only after {took:?}")));
    }
    world.restart().await;
    lost(sender.send_all(world)).await
}

/// Sends all, and checks that the error is to be retried.
async fn undecided(sender: &mut Sender, world: &World) -> Result<(), Failed> {
    match sender.try_all(world).await {
        Err(status) => world.wait_after("UploadWithProgress", &status).await,
        Ok(_) => Err(Failed::Wrong("the upload ended without an error".into())),
    }
}

/// Checks that the upload ends as lost, soon.
async fn lost(upload: impl Future<Output = Result<Upload, Failed>>) -> Result<(), Failed> {
    let begun = Instant::now();
    let ended = upload.await;
    let took = begun.elapsed();
    match ended {
        Err(Failed::Final { reason, .. })
            if matches!(reason.as_str(), "SESSION_LOST" | "PART_REPLACED") =>
        {
            if took <= SETTLE + SOON {
                return Ok(());
            }
            Err(Failed::Wrong(format!("{reason} only after {took:?}")))
        }
        Err(failed) => Err(failed),
        Ok(_) => Err(Failed::Wrong("COMPLETE".into())),
    }
}

async fn interrupted(world: &World) -> Result<Sender, Failed> {
    let mut sender = Sender::new(known(FILE.len()), &FILE);
    sender.send_until(world, PART).await?;
    Ok(sender)
}

async fn abort(world: &World, id: &str) {
    let key = world.key(id, "film.mp4");
    if let Some(azure) = &world.memory {
        azure.remove(&key);
        return;
    }
    let upload = world.gateway().get(id).await.unwrap();
    let session = Session {
        key: &key,
        id: &upload.resumable_id,
        scope: None,
    };
    world.truth.abort(&session).await.unwrap();
}

async fn replace_part(world: &World, id: &str) {
    let upload = world.gateway().get(id).await.unwrap();
    let session = Session {
        key: &world.key(id, "film.mp4"),
        id: &upload.resumable_id,
        scope: None,
    };
    let body = Bytes::from(vec![0; PART]);
    let part = NewPart {
        number: 1,
        writer: WriterTag::random(),
        checksum: Md5::of(&body).into(),
        body,
    };
    world.truth.put_part(&session, part).await.unwrap();
}

/// Puts an object of another upload.
async fn put_other(world: &World, id: &str) {
    let key = world.key(id, "film.mp4");
    world.truth.delete(&key).await.unwrap();
    let object = NewObject {
        key,
        mime: "video/mp4".into(),
        size: None,
        upload_id: UploadId::generate(None),
        md5: None,
        crc64nvme: None,
        integrity: Integrity::Md5,
        record: None,
        placement: Box::default(),
    };
    let body = Bytes::from(vec![0; SMALL]);
    world.truth.put_object(&object, body).await.unwrap();
}
