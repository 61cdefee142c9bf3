//! What is done with files that are stored, while everything fails: they are read, copied, moved and deleted, and expire.

use std::{fmt, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use upload_gateway_client::{
    Client, ClientError, RetryPolicy,
    proto::v1::{
        self, CopyUploadRequest, KeepUploadRequest, MoveUploadRequest, Phase,
        upload_service_client::UploadServiceClient,
    },
};

use crate::uploads::Upload;

/// How long a call is repeated that fails.
const RETRY_TIME: Duration = Duration::from_secs(60);

/// The pause before that.
const PAUSE: Duration = Duration::from_millis(500);

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Nothing.
    Left,
    /// It is read.
    Read,
    /// It is copied to its own storage.
    Copied,
    /// It is moved inside its storage.
    Moved,
    /// It is deleted.
    Deleted,
    /// It is to be deleted after a second.
    Expired,
    /// It was to be deleted after an hour, and is kept for ever.
    Kept,
}

/// How long the file of an upload is to be kept when it is created. At the end of the run, the first time has passed.
pub(crate) fn expire_after(upload: &Upload) -> Option<Duration> {
    match upload.number % 9 {
        7 => Some(Duration::from_secs(60 * 60)),
        8 => Some(Duration::from_secs(30 * 24 * 60 * 60)),
        _ => None,
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Handled {
    /// The id of the upload.
    pub(crate) id: String,
    deed: Deed,
    /// Whether the last call succeeded.
    pub(crate) is_done: bool,
    /// The object key of the COMPLETE copy.
    pub(crate) made: Option<String>,
    /// What must not be.
    pub(crate) wrong: Option<String>,
}

/// Does something with the file of an upload, depending on its number. A call that fails is repeated for some time; it may fail
/// for good.
pub(crate) async fn handle(front: &str, upload: &Upload, id: &str, deadline: Instant) -> Handled {
    let deed = match upload.number % 9 {
        0 | 5 => Deed::Read,
        1 => Deed::Copied,
        2 => Deed::Moved,
        3 => Deed::Deleted,
        6 => Deed::Expired,
        7 => Deed::Kept,
        _ => Deed::Left,
    };
    let mut handled = Handled {
        id: id.to_owned(),
        deed,
        is_done: false,
        made: None,
        wrong: None,
    };
    let deadline = deadline.min(Instant::now() + RETRY_TIME);
    let doing = async {
        while !handled.is_done {
            let tried = Box::pin(handled.attempt(front, upload, id)).await;
            handled.is_done = tried.is_ok() || handled.wrong.is_some();
            if !handled.is_done {
                sleep(PAUSE).await;
            }
        }
    };
    // Unfinished: the call failed.
    let _ = timeout_at(deadline, doing).await;
    handled
}

// === impl Handled ===

impl Handled {
    /// Whether the file may not be under its first key any more.
    pub(crate) fn may_delete(&self) -> bool {
        match self.deed {
            Deed::Moved | Deed::Deleted | Deed::Expired => true,
            // A call that failed may not have changed that it expires.
            Deed::Kept => !self.is_done,
            Deed::Left | Deed::Read | Deed::Copied => false,
        }
    }

    /// Whether the file has expired by the end of the run; `None` if that was not changed.
    pub(crate) fn has_expired(&self) -> Option<bool> {
        match self.deed {
            Deed::Expired if self.is_done => Some(true),
            Deed::Kept if self.is_done => Some(false),
            _ => None,
        }
    }

    async fn attempt(&mut self, front: &str, upload: &Upload, id: &str) -> Result<(), ClientError> {
        let client = Client::connect(front)?;
        match self.deed {
            Deed::Left => Ok(()),
            Deed::Expired => self.keep(front, id, Some(1)).await,
            Deed::Kept => self.keep(front, id, None).await,
            Deed::Read => self.read(&client, upload, id).await,
            Deed::Deleted => client.delete(id).await.map(drop),
            Deed::Copied | Deed::Moved => {
                // To its own storage.
                let storage_id = upload.store.id();
                self.made = Some(self.copy(front, id, storage_id).await?);
                Ok(())
            }
        }
    }

    async fn read(
        &mut self,
        client: &Client,
        upload: &Upload,
        id: &str,
    ) -> Result<(), ClientError> {
        let retry = RetryPolicy {
            timeout: PAUSE,
            ..RetryPolicy::default()
        };
        let mut download = client.download(id).retry(retry).open().await?;
        let mut read = Vec::new();
        while let Some(bytes) = download.next().await? {
            read.extend_from_slice(&bytes);
        }
        if read != upload.bytes() {
            let number = upload.number;
            self.wrong = Some(format!("upload {number}: {id} was read with other bytes"));
        }
        Ok(())
    }

    async fn keep(&self, front: &str, id: &str, seconds: Option<i64>) -> Result<(), ClientError> {
        let request = KeepUploadRequest {
            upload_id: id.to_owned(),
            expire_after: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        };
        let kept = connect(front).await?.keep_upload(request).await;
        Ok(kept.map(drop)?)
    }

    /// The object key of the COMPLETE copy.
    async fn copy(&self, front: &str, id: &str, storage_id: &str) -> Result<String, ClientError> {
        let mut client = connect(front).await?;
        let (upload_id, storage_id) = (id.to_owned(), storage_id.to_owned());
        let messages = match self.deed {
            Deed::Moved => {
                let request = MoveUploadRequest {
                    upload_id,
                    storage_id,
                };
                client.move_upload(request).await?
            }
            _ => {
                let request = CopyUploadRequest {
                    upload_id,
                    storage_id,
                };
                client.copy_upload(request).await?
            }
        };
        let mut messages = messages.into_inner();
        let mut last = None;
        while let Some(progress) = messages.message().await? {
            last = progress.upload.or(last);
        }
        let is_complete = |upload: &v1::Upload| upload.phase() == Phase::Complete;
        let object = last.filter(is_complete).and_then(|upload| upload.object);
        let unfinished = || tonic::Status::unavailable("the stream ended early");
        Ok(object.map(|object| object.key).ok_or_else(unfinished)?)
    }
}

async fn connect(front: &str) -> Result<UploadServiceClient<Channel>, tonic::Status> {
    let connected = UploadServiceClient::connect(front.to_owned()).await;
    connected.map_err(|error| tonic::Status::unavailable(error.to_string()))
}

impl fmt::Display for Handled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deed = match self.deed {
            Deed::Left => "left alone",
            Deed::Read => "read",
            Deed::Copied => "copied",
            Deed::Moved => "moved",
            Deed::Deleted => "deleted",
            Deed::Expired => "expired",
            Deed::Kept => "kept for ever",
        };
        let failed = if self.is_done { "" } else { " in vain" };
        write!(formatter, "{deed}{failed}")
    }
}
