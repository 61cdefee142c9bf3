//! What is done with files that are stored, while everything fails: they are read, copied, moved and deleted.

use std::{fmt, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};
use upload_gateway_client::{
    Client, ClientError, DownloadOptions,
    proto::v1::{
        self, CopyUploadRequest, MoveUploadRequest, Phase,
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
    Kept,
    /// It is read.
    Read,
    /// It is copied to its own storage.
    Copied,
    /// It is moved inside its storage.
    Moved,
    /// It is deleted.
    Deleted,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Handled {
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
        _ => Deed::Kept,
    };
    let mut handled = Handled {
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
        matches!(self.deed, Deed::Moved | Deed::Deleted)
    }

    async fn attempt(&mut self, front: &str, upload: &Upload, id: &str) -> Result<(), ClientError> {
        let client = Client::connect(front)?;
        match self.deed {
            Deed::Kept => Ok(()),
            Deed::Read => self.read(&client, upload, id).await,
            Deed::Deleted => client.delete(id).await.map(drop),
            Deed::Copied | Deed::Moved => {
                self.made = Some(self.copy(front, id).await?);
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
        let options = DownloadOptions {
            retry_timeout: PAUSE,
            ..DownloadOptions::default()
        };
        let mut download = client.download(id, &options, |_| ()).await?;
        let mut read = Vec::new();
        while let Some(bytes) = download.next(|_| ()).await? {
            read.extend_from_slice(&bytes);
        }
        if read != upload.bytes() {
            let number = upload.number;
            self.wrong = Some(format!("upload {number}: {id} was read with other bytes"));
        }
        Ok(())
    }

    /// The object key of the COMPLETE copy.
    async fn copy(&self, front: &str, id: &str) -> Result<String, ClientError> {
        let connected = UploadServiceClient::connect(front.to_owned()).await;
        let mut client =
            connected.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let (upload_id, storage_id) = (id.to_owned(), self.storage(front, id).await?);
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

    /// The storage of the file. After a move, only the copy has one.
    async fn storage(&self, front: &str, id: &str) -> Result<String, ClientError> {
        let found = Client::connect(front)?.get(id).await;
        Ok(found.map(|upload| upload.storage_id).unwrap_or_default())
    }
}

impl fmt::Display for Handled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deed = match self.deed {
            Deed::Kept => "kept",
            Deed::Read => "read",
            Deed::Copied => "copied",
            Deed::Moved => "moved",
            Deed::Deleted => "deleted",
        };
        let failed = if self.is_done { "" } else { " in vain" };
        write!(formatter, "{deed}{failed}")
    }
}
