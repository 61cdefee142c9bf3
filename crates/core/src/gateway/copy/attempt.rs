//! One stream that writes a copy.
//!
//! Its messages are, in this order of preference, with `from`, the source as the store reads it by itself:
//!
//! - one that asks the store for the whole object, up to [`WHOLE_COPY_MAX`], if the store then reports an MD5 to compare with the
//!   one of the source;
//! - one per part that asks the store for it, if the store reports the MD5s of parts, and the ETag of the source is made of those
//!   of as many parts;
//! - the bytes of the source. The store copies each part by itself if it can compare it with the MD5 of these bytes; otherwise they
//!   are put.

use std::sync::Arc;

use futures::{
    FutureExt, Stream, StreamExt, TryStreamExt, future::ready, stream, stream::BoxStream,
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::content::chunks;
use crate::{
    error::Result,
    gateway::{
        Gateway,
        caller::Caller,
        copy_from::CopyFrom,
        digest::committed_digest,
        download::StoredFile,
        message::{Counts, Finish, FinishCopy, Message, Observer, Open, Takeover, Target},
        records::Fence,
        refusal::client_gone,
        storage::Storage,
    },
    upload::{CompositeMd5, DigestChoice, Encryption, Event, FileMetadata, MIB, Upload},
};

/// The largest object, in bytes, that a store copies with one request: it answers within seconds. A larger one is copied in parts,
/// so that a copy that stops continues.
const WHOLE_COPY_MAX: u64 = 64 * MIB;

/// A copy, whose caller follows it over several attempts.
pub(super) struct Copying<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) caller: &'a Caller,
    pub(super) source: &'a StoredFile,
    /// The file of the copy.
    pub(super) file: FileMetadata,
    pub(super) to: Arc<Storage>,
    /// Whether the record of the source notes the copy.
    pub(super) is_move: bool,
    /// Whether the store of the copy may have copied parts by itself, in this call or in an earlier one.
    pub(super) can_copy: bool,
    /// Receives the copy when it was opened, once.
    pub(super) opened: Option<oneshot::Sender<Upload>>,
    pub(super) counts: watch::Sender<Counts>,
    pub(super) moves_on: CancellationToken,
    pub(super) cancelled: CancellationToken,
}

// === impl Copying ===

impl Copying<'_> {
    /// Opens the copy and writes it. The first attempt reports the copy to the observer.
    ///
    /// # Errors
    /// Those of a stream; a [refusal](crate::gateway::copy_from::is_refusal) if the store does not copy by itself.
    pub(super) async fn attempt(&mut self, from: Option<Arc<CopyFrom>>) -> Result<Upload> {
        let Self {
            gateway,
            caller,
            source,
            ..
        } = *self;
        let (own, begun) = oneshot::channel();
        let observer = Observer {
            opened: own,
            counts: self.counts.clone(),
            moves_on: self.moves_on.clone(),
        };
        let opened = self.opened.take();
        let open = Message::Open(Open {
            target: Target::Copy {
                of: source.upload.id.clone(),
                file: Box::new(self.file.clone()),
                storage_id: self.to.id.clone(),
                from: from.clone(),
            },
            resume_token: String::new(),
            restart: false,
            takeover: Takeover::Force,
        });
        let (to, is_move, can_copy) = (&self.to, self.is_move, self.can_copy);
        let rest = async {
            let copy = begun.await.map_err(|_| client_gone())?;
            if is_move {
                let mut upload = source.upload.clone();
                let to = copy.id.clone();
                let started = Event::MoveStarted { to };
                let records = &gateway.records;
                records
                    .transition(&mut upload, &started, Fence::None)
                    .await?;
            }
            let copies_in = from.and(Some(to));
            let messages = messages(gateway, (source, &copy), copies_in, can_copy)?;
            if let Some(opened) = opened {
                let _ = opened.send(copy);
            }
            Ok(messages)
        };
        let rest = rest.into_stream().try_flatten();
        let messages = stream::iter([Ok(open)]).chain(rest);
        let mut messages = Box::pin(until(self.cancelled.clone(), messages));
        let memory = gateway.streams.memory(caller);
        let received = gateway
            .streams
            .receive(caller, memory, &mut messages, observer);
        Box::pin(received).await
    }
}

/// The messages after the first one. The store of `copies_in` can be asked to copy by itself. `can_copy`: it can, or could before it
/// refused.
fn messages<'a>(
    gateway: &'a Gateway,
    (source, copy): (&'a StoredFile, &Upload),
    copies_in: Option<&Arc<Storage>>,
    can_copy: bool,
) -> Result<BoxStream<'a, Result<Message>>> {
    let object = &source.object;
    // ETags prove nothing with a key of KMS.
    let is_opaque = matches!(
        copy.file.placement.encryption,
        Some(Encryption::SseKms { .. })
    );
    let copies_in = copies_in.filter(|_| !is_opaque);
    let copies_in = copies_in.map(|storage| storage.capabilities());
    let is_begun = copy.session.is_some() || !copy.parts.is_empty();
    if copies_in.is_some_and(|store| store.computes_object_md5)
        && ((1..=WHOLE_COPY_MAX).contains(&object.size) && object.md5.is_some() && !is_begun)
    {
        return Ok(stream::iter([Ok(Message::CopyObject)]).boxed());
    }
    let composite = CompositeMd5::of_etag(&object.etag);
    let composite =
        composite.filter(|composite| copy.plan.part_count(object.size) == Some(composite.parts));
    if copies_in.is_some_and(|store| store.lists_part_digests)
        && let Some(composite) = composite
    {
        let numbers = copy.parts.committed() + 1..=composite.parts;
        let end = FinishCopy {
            digests: object.digests(),
            composite: Some(composite),
        };
        let parts = stream::iter(numbers).map(|number| Ok(Message::CopyPart(number)));
        let end = stream::iter([Ok(Message::FinishCopy(end))]);
        return Ok(parts.chain(end).boxed());
    }
    // A part that the store copied, and whose bytes the gateway has not seen, has no digest of the file up to its end. Otherwise
    // the gateway has sent all parts, and computes no digest.
    let is_compared = committed_digest(copy)?.is_some();
    let is_sent = copy.file.file_digest == DigestChoice::None && !(can_copy && composite.is_some());
    let (from, end) = match is_compared || is_sent {
        true => {
            let end = Finish {
                file_size: Some(object.size),
                file_id: object.md5,
                crc64nvme: object
                    .crc64nvme
                    .filter(|_| copy.file.file_digest == DigestChoice::Crc64Nvme),
            };
            (copy.committed_size(), Message::Finish(end))
        }
        false => {
            let end = FinishCopy {
                digests: object.digests(),
                composite: None,
            };
            (0, Message::FinishCopy(end))
        }
    };
    let chunks = chunks(&gateway.downloads, source, from).map_ok(Message::Chunk);
    Ok(chunks.chain(stream::iter([Ok(end)])).boxed())
}

/// The messages until the caller has disconnected.
fn until<'a>(
    cancelled: CancellationToken,
    messages: impl Stream<Item = Result<Message>> + Send + 'a,
) -> impl Stream<Item = Result<Message>> + Send + 'a {
    let gone = async move {
        cancelled.cancelled().await;
        Err(client_gone())
    };
    let gone = gone.into_stream();
    stream::select(
        messages.map(Some).chain(stream::iter([None])),
        gone.map(Some),
    )
    .take_while(|message| ready(message.is_some()))
    .filter_map(ready)
}
