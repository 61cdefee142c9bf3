//! Uploads through the gateway. Each try is one stream.

mod attempt;
mod known;
mod prefix;
mod source;
mod writer_conflict;

use std::time::Duration;

use tokio::time::Instant;

pub use self::source::{ReadSeek, Source, SourceFile};
use self::{attempt::Attempt, known::Known, source::SourceReader};
use crate::{
    back_off::BackOff,
    client::Client,
    error::ClientError,
    proto::v1::{ErrorReason, Upload},
    upload::{Event, Target, UploadOptions, Uploaded, verify},
};

/// A stream of this age was open. A gateway that ends them earlier, again and again, makes no progress.
const LONG_STREAM: Duration = Duration::from_secs(1);

// === impl Client ===

impl Client {
    /// Sends all of `source` through the gateway, and returns when the upload is COMPLETE and verified. If a try fails and
    /// can be resumed, the next one continues at the committed size.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for an error that cannot be resumed, [`ClientError::NoProgress`] if nothing more was
    /// committed for [`UploadOptions::retry_timeout`], [`ClientError::Source`] if the source cannot be read,
    /// [`ClientError::OtherFile`] if it is not the file that a [`Target::Upload`] was begun with,
    /// [`ClientError::FileChanged`] if a [`Source::File`] changes before all of it is sent,
    /// [`ClientError::NotRewindable`] if a pipe would have to be read again, [`ClientError::Mismatch`] if the object is not
    /// the file.
    ///
    /// # Examples
    /// A pipe, whose size is not known:
    /// ```no_run
    /// use upload_gateway_client::{Client, Event, Source, Target, UploadOptions};
    ///
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let source = Source::pipe(tokio::io::empty());
    /// let target = Target::file("backup.tar", None);
    /// let options = UploadOptions::default();
    /// let uploaded = client.upload(source, target, &options, |event| {
    ///     if let Event::Retrying { cause, delay } = event {
    ///         println!("{cause}; next try in {delay:?}");
    ///     }
    /// });
    /// println!("{} bytes", uploaded.await?.size);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn upload(
        &self,
        source: Source,
        target: Target,
        options: &UploadOptions,
        mut on_event: impl FnMut(Event<'_>) + Send,
    ) -> Result<Uploaded, ClientError> {
        let mut reader = SourceReader::new(source, options);
        let mut known = Known::new(target);
        let mut back_off = BackOff::new(options.retry_timeout, 0);
        loop {
            let begun = Instant::now();
            let attempt = Attempt {
                uploads: self.uploads.clone(),
                options,
            };
            let failure = match attempt.run(&mut reader, &mut known, &mut on_event).await {
                Ok(upload) => return finish(reader, upload, &known).await,
                Err(failure) => known.learn(failure)?,
            };
            // The source may have had no bytes, for longer than the retry timeout.
            let was_idle = match failure.reason() {
                Some(ErrorReason::TooSlow) => reader.has_paused().await?,
                // The gateway ends streams for its own reasons, also idle ones.
                Some(ErrorReason::MoveOn | ErrorReason::Draining) => begun.elapsed() >= LONG_STREAM,
                _ => false,
            };
            if was_idle {
                back_off.restart();
            }
            let requested = known.requested_delay(&failure);
            let known = (known.upload_id(), known.committed_size);
            back_off
                .wait(known, failure, requested, &mut on_event)
                .await?;
        }
    }
}

async fn finish(
    mut reader: SourceReader,
    upload: Upload,
    known: &Known,
) -> Result<Uploaded, ClientError> {
    let (size, md5) = reader.finish().await?;
    verify(&upload, size, md5)?;
    Ok(Uploaded {
        size,
        md5,
        resumed_from: known.resumed_from,
        upload,
    })
}
