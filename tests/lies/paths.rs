//! The ways in which a file gets in, or is removed.

use std::{fmt, time::Duration};

use upload_gateway_client::proto::v1::{DeleteUploadRequest, FileMetadata, Phase, Upload};
use upload_gateway_core::{
    blobs::{NewObject, Session},
    upload::{Integrity, UploadId},
};

use crate::{
    browser::Browser,
    failed::Failed,
    layer::Protocol,
    lie::{Extent, Lie, Rule},
    sender::Sender,
    world::{FILE, PART, RETRY, Until, World, md5_of},
};

/// Longer than an upload may be idle, than an aborted one is kept, and than a commit can run in the store.
pub(crate) const DAYS: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// Longer than any session may exist.
const WEEKS: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The bytes of a file that is put whole.
const SMALL: usize = 1_000;

/// One way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Path {
    StreamedParts,
    StreamedPut,
    Resumed,
    UnknownSize,
    SignedPut,
    SignedParts,
    StreamOverSignedParts,
    RebuiltFromToken,
    JoinedCommit,
    Deleted,
    ExpiredStream,
    ExpiredSignedPut,
    ExpiredSignedParts,
    SweptCommit,
    OrphanedSession,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum End {
    Complete(Box<Upload>, &'static [u8]),
    /// Nothing must be left in the store under the key, neither the object nor the session.
    Cleared {
        key: String,
        session: Option<String>,
    },
}

// === impl Path ===

impl Path {
    pub(crate) const ALL: [Self; 15] = [
        Self::StreamedParts,
        Self::StreamedPut,
        Self::Resumed,
        Self::UnknownSize,
        Self::SignedPut,
        Self::SignedParts,
        Self::StreamOverSignedParts,
        Self::RebuiltFromToken,
        Self::JoinedCommit,
        Self::Deleted,
        Self::ExpiredStream,
        Self::ExpiredSignedPut,
        Self::ExpiredSignedParts,
        Self::SweptCommit,
        Self::OrphanedSession,
    ];

    /// Whether the store has what the path needs.
    pub(crate) fn exists_on(self, protocol: Protocol) -> bool {
        self != Self::OrphanedSession || protocol == Protocol::S3
    }

    /// Whether the path itself destroys.
    pub(crate) fn destroys(self) -> bool {
        matches!(
            self,
            Self::Deleted | Self::ExpiredStream | Self::OrphanedSession
        )
    }

    /// The faults without which the path would be another one.
    pub(crate) fn faults(self, protocol: Protocol) -> Vec<Rule> {
        let (commit, head) = protocol.commit_and_head();
        let rule = |call: &str, lie, extent| Rule {
            call: call.into(),
            from: 1,
            lie,
            extent,
        };
        let longer = Extent::For(RETRY + Duration::from_millis(500));
        match self {
            Self::JoinedCommit => vec![
                rule(commit, Lie::LostAnswer, Extent::Times(1)),
                rule(head, Lie::UnavailablePage, longer),
            ],
            Self::SweptCommit => vec![rule(commit, Lie::UnavailablePage, longer)],
            _ => Vec::new(),
        }
    }

    pub(crate) async fn run(self, world: &mut World) -> Result<End, Failed> {
        match self {
            Self::StreamedParts => streamed(world, known(FILE.len()), &FILE).await,
            Self::StreamedPut => streamed(world, known(SMALL), &FILE[..SMALL]).await,
            Self::UnknownSize => streamed(world, file(), &FILE).await,
            Self::JoinedCommit => streamed(world, known(FILE.len()), &FILE).await,
            Self::Resumed => resumed(world).await,
            Self::SignedPut => {
                let data = &FILE[..SMALL];
                let browser = Browser::new(world, known(SMALL), data).await;
                let upload = browser.upload_whole().await?;
                Ok(End::Complete(Box::new(upload), data))
            }
            Self::SignedParts => {
                let browser = Browser::new(world, known(FILE.len()), &FILE).await;
                let id = browser.put_parts(2).await?;
                Ok(complete(browser.finish(&id).await?))
            }
            Self::StreamOverSignedParts => {
                let file = known(FILE.len());
                Browser::new(world, file.clone(), &FILE)
                    .await
                    .put_parts(1)
                    .await?;
                streamed(world, file, &FILE).await
            }
            Self::RebuiltFromToken => rebuilt(world).await,
            Self::Deleted => deleted(world).await,
            Self::ExpiredStream => expired_stream(world).await,
            Self::ExpiredSignedPut => {
                let data = &FILE[..SMALL];
                let id = Browser::new(world, known(SMALL), data)
                    .await
                    .put_whole()
                    .await?;
                swept(world, &id, data).await
            }
            Self::ExpiredSignedParts => {
                let browser = Browser::new(world, known(FILE.len()), &FILE).await;
                let id = browser.put_parts(2).await?;
                browser.commit(&id).await?;
                swept(world, &id, &FILE).await
            }
            Self::SweptCommit => {
                let id = suspended_commit(world).await?;
                swept(world, &id, &FILE).await
            }
            Self::OrphanedSession => orphan(world).await,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

fn file() -> FileMetadata {
    FileMetadata {
        file_name: "film.mp4".into(),
        ..FileMetadata::default()
    }
}

/// A file whose size and digest the client knows.
pub(crate) fn known(size: usize) -> FileMetadata {
    FileMetadata {
        file_size: Some(i64::try_from(size).unwrap()),
        file_id: md5_of(&FILE[..size]).to_string(),
        ..file()
    }
}

fn complete(upload: Upload) -> End {
    End::Complete(Box::new(upload), &FILE)
}

async fn streamed(world: &World, file: FileMetadata, data: &'static [u8]) -> Result<End, Failed> {
    let upload = Sender::new(file, data).send_all(world).await?;
    Ok(End::Complete(Box::new(upload), data))
}

async fn resumed(world: &World) -> Result<End, Failed> {
    let mut sender = Sender::new(known(FILE.len()), &FILE);
    sender.send_until(world, PART).await?;
    sender.send_all(world).await.map(complete)
}

async fn rebuilt(world: &mut World) -> Result<End, Failed> {
    let mut sender = Sender::new(known(FILE.len()), &FILE);
    sender.send_until(world, PART).await?;
    world.lose_state().await;
    sender.keep_token();
    sender.send_all(world).await.map(complete)
}

async fn deleted(world: &mut World) -> Result<End, Failed> {
    let (id, end) = interrupted(world).await?;
    let client = world.gateway().client().await;
    let request = || {
        let (mut client, upload_id) = (client.clone(), id.clone());
        async move {
            client
                .delete_upload(DeleteUploadRequest { upload_id })
                .await
        }
    };
    let upload = world.call("DeleteUpload", request).await?.into_inner();
    if upload.phase() != Phase::Aborted {
        return Err(Failed::Wrong(format!("deleted, but {:?}", upload.phase())));
    }
    cleared(world, end).await
}

async fn expired_stream(world: &mut World) -> Result<End, Failed> {
    let (id, end) = interrupted(world).await?;
    world.sweep(DAYS, None, Until::Ended(&id)).await?;
    cleared(world, end).await
}

/// A stream that has committed one part. Returns the upload's id, and what must be cleared.
async fn interrupted(world: &World) -> Result<(String, End), Failed> {
    let mut sender = Sender::new(known(FILE.len()), &FILE);
    sender.send_until(world, PART).await?;
    let id = sender.id.unwrap();
    let upload = world.gateway().get(&id).await.unwrap();
    let end = End::Cleared {
        key: world.key(&id, "film.mp4"),
        session: world.is_s3().then_some(upload.resumable_id),
    };
    Ok((id, end))
}

/// A stream whose commit has failed, and that does not resume. Returns the upload's id.
async fn suspended_commit(world: &World) -> Result<String, Failed> {
    let mut sender = Sender::new(known(FILE.len()), &FILE);
    loop {
        if let Err(status) = sender.try_all(world).await {
            world.wait_after("UploadWithProgress", &status).await?;
        }
        if let Some(id) = &sender.id {
            let upload = world.gateway().get(id).await;
            if upload.is_ok_and(|upload| upload.phase() != Phase::Open) {
                return Ok(id.clone());
            }
        }
    }
}

/// Sweeps until the store has nothing of the upload.
async fn cleared(world: &mut World, end: End) -> Result<End, Failed> {
    let End::Cleared { key, session } = &end else {
        return Ok(end);
    };
    let Some(id) = session else {
        return Ok(end);
    };
    let session = Session {
        key,
        id,
        scope: None,
    };
    if world.truth.list_parts(&session).await.unwrap().is_some() {
        let gone = Until::Gone(session);
        world.sweep(WEEKS, Some(Duration::ZERO), gone).await?;
    }
    Ok(end)
}

/// Sweeps until an upload has become COMPLETE.
async fn swept(world: &mut World, id: &str, data: &'static [u8]) -> Result<End, Failed> {
    world.sweep(DAYS, None, Until::Ended(id)).await?;
    world.restart().await;
    let upload = world.gateway().get(id).await;
    let upload = upload.map_err(|status| Failed::Wrong(format!("no record: {status}")))?;
    if upload.phase() != Phase::Complete {
        return Err(Failed::Final {
            call: "the sweeper",
            reason: upload.phase().as_str_name().into(),
        });
    }
    Ok(End::Complete(Box::new(upload), data))
}

async fn orphan(world: &mut World) -> Result<End, Failed> {
    let upload_id = UploadId::generate(None);
    let key = world.key(upload_id.as_str(), "film.mp4");
    let object = NewObject {
        key: key.clone(),
        mime: "video/mp4".into(),
        size: None,
        upload_id,
        md5: None,
        crc64nvme: None,
        integrity: Integrity::Md5,
        record: None,
        placement: Box::default(),
    };
    let session = world.truth.begin(&object).await.unwrap().id;
    let end = End::Cleared {
        key,
        session: Some(session),
    };
    cleared(world, end).await
}
