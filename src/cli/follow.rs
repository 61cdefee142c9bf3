//! Follows what a gateway does to an upload, until it is finished: a bar on a terminal, otherwise lines.

use std::{
    io::{IsTerminal, stdout},
    time::Duration,
};

use indicatif::ProgressBar;
use tokio::time::sleep;
use tonic::Streaming;
use upload_gateway_client::{
    Client, ClientError,
    proto::v1::{Phase, Upload, UploadProgress},
};

use super::{
    error::{CliError, chain},
    human, output, progress,
};

/// How often in a row a call may fail, and the pause before the next one. A gateway that shuts down ends its calls.
const MAX_FAILURES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(2);

/// A call that reports the progress of an upload.
#[derive(Debug)]
pub(super) enum Call<'a> {
    /// Of an upload.
    Watch(&'a str),
    /// Of the copy of an upload in a storage.
    Copy(&'a str, &'a str),
    /// The same; then the upload is deleted.
    Move(&'a str, &'a str),
}

/// How changes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A bar on a terminal, otherwise lines.
    People,
    /// A JSON object for each change.
    Json,
    /// Not at all.
    Silent,
}

/// An upload, as far as its changes are known.
struct Followed {
    form: Form,
    bar: Option<ProgressBar>,
    upload: Option<Upload>,
    /// How often in a row the call has failed.
    failures: u32,
}

/// Shows each change until the upload of the call is COMPLETE or ABORTED, and returns it then. If a gateway or the connection
/// fails, it calls again.
pub(super) async fn follow(
    client: &Client,
    call: Call<'_>,
    form: Form,
) -> Result<Upload, CliError> {
    let mut followed = Followed::new(form);
    let ended = loop {
        match followed.changes(client, &call).await {
            Err(CliError::Client(error))
                if error.is_resumable() && followed.failures < MAX_FAILURES =>
            {
                followed.failures += 1;
                followed.show_failure(&error);
                sleep(PAUSE).await;
            }
            ended => break ended,
        }
    };
    if let Some(bar) = &followed.bar {
        bar.finish_and_clear();
    }
    ended?;
    let upload = followed.upload;
    upload.ok_or_else(|| CliError::failed("the gateway has reported nothing; try again"))
}

/// An upload's phase and size in a line.
pub(super) fn line(upload: &Upload) -> String {
    let committed = human::size(upload.committed_size);
    format!("{:10}  {committed}", output::phase(upload))
}

// === impl Call ===

impl Call<'_> {
    async fn open(&self, client: &Client) -> Result<Streaming<UploadProgress>, ClientError> {
        match self {
            Self::Watch(upload_id) => client.watch(upload_id).await,
            Self::Copy(upload_id, storage_id) => client.copy_to(upload_id, storage_id).await,
            Self::Move(upload_id, storage_id) => client.move_to(upload_id, storage_id).await,
        }
    }
}

// === impl Followed ===

impl Followed {
    fn new(form: Form) -> Self {
        Self {
            form,
            bar: None,
            upload: None,
            failures: 0,
        }
    }

    /// Shows the changes that one call reports.
    async fn changes(&mut self, client: &Client, call: &Call<'_>) -> Result<(), CliError> {
        let mut changes = call.open(client).await?;
        while let Some(progress) = changes.message().await.map_err(ClientError::from)? {
            self.failures = 0;
            self.apply(progress);
            self.show()?;
        }
        Ok(())
    }

    fn apply(&mut self, progress: UploadProgress) {
        if let Some(whole) = progress.upload {
            if self.upload.is_none() && self.form == Form::People {
                self.bar = bar(&whole);
            }
            self.upload = Some(whole);
        } else if let Some(upload) = &mut self.upload {
            upload.phase = progress.phase;
            upload.committed_size = progress.committed_size;
        }
    }

    fn show(&self) -> Result<(), CliError> {
        let Some(upload) = &self.upload else {
            return Ok(());
        };
        match (self.form, &self.bar) {
            (Form::Silent, _) => {}
            (Form::Json, _) => output::data(output::record(upload))?,
            (Form::People, None) => output::log(line(upload)),
            (Form::People, Some(bar)) => {
                bar.set_position(position(upload));
                let is_committing = upload.phase() == Phase::Committing;
                bar.set_message(if is_committing { "committing" } else { "" });
            }
        }
        Ok(())
    }

    fn show_failure(&self, error: &ClientError) {
        let text = format!("{}; retrying", chain(error));
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => output::log(text),
        }
    }
}

/// A bar that begins at what is committed, if there is a terminal for it.
fn bar(upload: &Upload) -> Option<ProgressBar> {
    // Data on the same terminal would be between the bars.
    if !stdout().is_terminal() {
        return None;
    }
    let size = upload.file.as_ref().and_then(|file| file.file_size);
    let bar = progress::bar(size.and_then(|size| u64::try_from(size).ok()))?;
    // What was committed before took no time.
    bar.update(|state| state.set_pos(position(upload)));
    bar.reset_eta();
    Some(bar)
}

fn position(upload: &Upload) -> u64 {
    u64::try_from(upload.committed_size).unwrap_or_default()
}
