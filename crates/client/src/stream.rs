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
    builder::sealed::Context,
    error::ClientError,
    proto::v1::{ErrorReason, FileMetadata, Upload},
    resume::Saved,
    retry::BackOff,
    upload::{Uploaded, verify},
};

/// A stream of this age was open. A gateway that ends them earlier, again and again, makes no progress.
const LONG_STREAM: Duration = Duration::from_secs(1);

/// What to upload to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Target {
    /// Creates an upload for this file.
    File(FileMetadata),
    /// Resumes the upload with this id.
    Upload(String),
}

/// Sends all of `source`, and returns when the upload is COMPLETE and verified.
pub(crate) async fn send(
    source: Source,
    target: Target,
    context: Context,
) -> Result<Uploaded, ClientError> {
    let Context {
        client,
        options,
        resume,
        events,
    } = &context;
    let mut known = match (target, resume) {
        (Target::File(file), Some(resume)) => {
            let saved = Saved::load(resume.clone(), file.clone(), source.stamp()).await?;
            if let Some(uploaded) = saved
                .find_complete(client, None, &options.retry, events)
                .await?
            {
                return Ok(uploaded);
            }
            saved.claim().await?;
            Known::with_saved(Target::File(file), saved)
        }
        (target, _) => Known::new(target),
    };
    let mut reader = SourceReader::new(source, options);
    let mut back_off = BackOff::new(options.retry.clone(), 0);
    loop {
        let begun = Instant::now();
        let attempt = Attempt {
            uploads: client.uploads.clone(),
            options,
            events,
        };
        let failure = match attempt.run(&mut reader, &mut known).await {
            Ok(upload) => match finish(&mut reader, upload, &known).await {
                Err(failure) if known.is_replaced_after(&failure) => continue,
                Ok(uploaded) => {
                    known.save_complete().await;
                    return Ok(uploaded);
                }
                failed => return failed,
            },
            Err(failure) if known.is_replaced_after(&failure) => continue,
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
        back_off.wait(known, failure, requested, events).await?;
    }
}

/// Compares the object with the whole source.
async fn finish(
    reader: &mut SourceReader,
    upload: Upload,
    known: &Known,
) -> Result<Uploaded, ClientError> {
    let (size, digests) = reader.finish().await?;
    verify(&upload, size, digests)?;
    Ok(Uploaded {
        size,
        md5: digests.md5,
        crc64nvme: digests.crc64nvme,
        resumed_from: known.resumed_from,
        was_complete: known.was_complete(),
        upload,
    })
}
