//! A chunk that arrives in pieces. They are copied into their parts at once, but nothing else happens to these parts before the end
//! of the chunk has arrived and was checked.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use super::{CurrentPart, Receiver};
use crate::{
    error::{Error, Result},
    gateway::message::ChunkEnd,
};

/// A chunk that is arriving.
#[derive(Debug)]
pub(super) struct Arriving {
    crc32c: Digest,
    /// How many of its bytes have arrived.
    length: usize,
    /// How many bytes its first part had before.
    begins_at: usize,
    /// The parts that it has filled.
    full: Vec<CurrentPart>,
    /// Whether it fits into the file. If not, its end is refused, and its bytes are not needed.
    fits: bool,
}

// === impl Receiver ===

impl Receiver {
    /// Takes a piece of a chunk.
    pub(super) async fn piece(&mut self, piece: Bytes) -> Result<()> {
        let begins_at = self
            .next_offset
            .ok_or_else(|| Error::fault("receive a chunk in pieces: it is the first one"))?;
        let mut arriving = match self.arriving.take() {
            Some(arriving) => arriving,
            None => Arriving::after(self.current_part.as_ref()),
        };
        arriving.crc32c.update(&piece);
        let offset = begins_at + arriving.length as u64;
        arriving.length += piece.len();
        arriving.fits &= self.check_end(offset, piece.len()).is_ok();
        let fits = arriving.fits;
        self.arriving = Some(arriving);
        if fits {
            self.place(offset, piece).await?;
        }
        Ok(())
    }

    /// Counts the pieces of a chunk whose end has arrived.
    pub(super) async fn end_chunk(&mut self, end: ChunkEnd) -> Result<()> {
        let no_pieces = || Error::fault("receive the end of a chunk: it has no pieces");
        let arriving = self.arriving.take().ok_or_else(no_pieces)?;
        end.check(arriving.crc32c.finalize())?;
        self.check_offset(end.offset)?;
        self.check_end(end.offset, arriving.length)?;
        // If the stream ends between two parts, what follows is lost, as if it had not been placed.
        let rest = self.current_part.take();
        for part in arriving.full {
            self.next_offset = Some(part.span.offset + part.span.size);
            self.dispatch(part).await?;
            self.leave_between_parts()?;
        }
        if let Some(part) = &rest {
            // The dispatch of those before has reset it.
            part.buffer.reservation().fill(part.buffer.len() as u64);
        }
        self.current_part = rest;
        let offset = end.offset + arriving.length as u64;
        self.next_offset = Some(offset);
        self.count_received(offset);
        Ok(())
    }

    /// Removes the pieces of the chunk that is arriving.
    pub(super) fn void(&mut self) {
        let Some(arriving) = self.arriving.take() else {
            return;
        };
        let first = arriving.full.into_iter().next();
        self.current_part = first.or(self.current_part.take());
        if let Some(part) = &mut self.current_part {
            part.buffer.truncate(arriving.begins_at);
        }
        self.current_part.take_if(|_| arriving.begins_at == 0);
    }

    /// Keeps a full part, if bytes in it may not count; else returns it.
    pub(super) fn held_back(&mut self, part: CurrentPart) -> Option<CurrentPart> {
        match &mut self.arriving {
            Some(arriving) => {
                arriving.full.push(part);
                None
            }
            None => Some(part),
        }
    }
}

// === impl Arriving ===

impl Arriving {
    /// A chunk whose bytes follow those of the current part.
    fn after(current_part: Option<&CurrentPart>) -> Self {
        Self {
            crc32c: Digest::new(CrcAlgorithm::Crc32Iscsi),
            length: 0,
            begins_at: current_part.map_or(0, |part| part.buffer.len()),
            full: Vec::new(),
            fits: true,
        }
    }

    /// How many bytes are in the parts that it has filled.
    pub(super) fn full_size(&self) -> u64 {
        self.full.iter().map(|part| part.buffer.len() as u64).sum()
    }
}

/// The first part with received bytes that is not dispatched, and how many bytes there are with those of the parts after it.
pub(super) fn undispatched<'a>(
    arriving: Option<&'a Arriving>,
    current: Option<&'a CurrentPart>,
) -> Option<(&'a CurrentPart, u64)> {
    let first = arriving.and_then(|arriving| arriving.full.first());
    let received = arriving.map_or(0, Arriving::full_size)
        + current.map_or(0, |part| part.buffer.len() as u64);
    first.or(current).map(|first| (first, received))
}
