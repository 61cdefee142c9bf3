//! Part buffers. A buffer is one contiguous piece of memory for one part, filled from the start, and used again
//! afterwards.

use std::sync::Arc;

use bytes::Bytes;
use memmap2::MmapMut;

use super::budget::{Budget, Reservation};
use crate::{
    error::{Error, Result},
    gateway::storage::HeldPart,
    upload::{Owner, PART_SIZE},
};

/// The memory of one part. It is mapped, not allocated, so that it is returned to the system when it is dropped, and
/// uses memory only for the pages that were written.
#[derive(Debug)]
pub(super) struct PartBuffer {
    memory: Option<MmapMut>,
    length: usize,
    /// Whether a kept buffer may be used. All of its bytes count as reserved.
    reuses: bool,
    reservation: Reservation,
    held: Option<HeldPart>,
}

// === impl Budget ===

impl Budget {
    /// An empty buffer of a stream of `owner` for up to `size` bytes. It is new memory or, if `reuses` is set, a kept buffer with a
    /// reservation for all of its bytes.
    ///
    /// # Errors
    /// `Internal` if the system cannot map the memory.
    pub(super) fn buffer(
        self: &Arc<Self>,
        owner: &Owner,
        stream: u64,
        size: usize,
        reuses: bool,
    ) -> Result<PartBuffer> {
        let reused = if reuses {
            self.reuse(owner, stream, size)
        } else {
            None
        };
        let (memory, reservation) = match reused {
            Some(reused) => reused,
            None => {
                let mapped = MmapMut::map_anon(size.max(1));
                let mapped =
                    mapped.map_err(|error| Error::internal("map a part's memory", error))?;
                (mapped, self.begin(owner, stream))
            }
        };
        Ok(PartBuffer {
            memory: Some(memory),
            length: 0,
            reuses,
            reservation,
            held: None,
        })
    }
}

// === impl PartBuffer ===

impl PartBuffer {
    /// Counts it among the parts of its storage until it is dropped.
    pub(super) fn set_held(&mut self, held: HeldPart) {
        self.held = Some(held);
    }

    /// Whether it counts among the parts of its storage.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Appends bytes, which must fit. Reserves memory for them first. This is the only copy that the gateway makes of
    /// them.
    ///
    /// # Errors
    /// As [`Reservation::reserve`]. Nothing is appended then.
    pub(super) async fn extend(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.length + bytes.len();
        let missing = (end as u64).saturating_sub(self.reservation.reserved());
        if missing > 0 {
            let reuses = self.reuses && self.length == 0 && self.capacity() == PART_SIZE;
            if let Some(memory) = self.reservation.reserve(missing, reuses).await? {
                self.memory = Some(memory);
            }
        }
        if let Some(memory) = &mut self.memory {
            memory[self.length..end].copy_from_slice(bytes);
        }
        self.length = end;
        self.reservation.fill(end as u64);
        Ok(())
    }

    /// Removes the bytes after the first `length`. Their memory stays reserved for the next ones.
    pub(super) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
        self.reservation.fill(self.length as u64);
    }

    fn capacity(&self) -> u64 {
        self.memory.as_ref().map_or(0, |memory| memory.len() as u64)
    }

    /// The memory of the part.
    pub(super) fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// The number of bytes in the buffer.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Makes the bytes shareable. The memory is returned to the budget when the last reference is dropped.
    pub(super) fn freeze(mut self) -> Bytes {
        if let Some(held) = &mut self.held {
            held.received();
        }
        self.reservation.fill(0);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for PartBuffer {
    fn as_ref(&self) -> &[u8] {
        self.memory
            .as_deref()
            .map_or(&[], |memory| &memory[..self.length])
    }
}

impl Drop for PartBuffer {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.reservation.keep(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::upload::MIB;

    const SIZE: usize = 5 << 20;
    const STREAM: u64 = 1000;

    fn budget(parts: u64) -> Arc<Budget> {
        Budget::new(
            (parts + 1) * PART_SIZE,
            PART_SIZE,
            0,
            Duration::from_secs(1),
        )
    }

    async fn full(budget: &Arc<Budget>) -> PartBuffer {
        let mut buffer = budget
            .buffer(&Owner::default(), STREAM, SIZE, true)
            .unwrap();
        buffer.extend(&vec![7; SIZE]).await.unwrap();
        buffer
    }

    /// Keeps one buffer, and would keep two more.
    async fn keep_one(budget: &Arc<Budget>) {
        let _others = [(), ()].map(|()| {
            let other = budget.buffer(&Owner::default(), STREAM, SIZE, false);
            other.unwrap()
        });
        drop(full(budget).await);
    }

    #[tokio::test]
    async fn a_full_buffer_is_used_again_after_its_last_reference_is_dropped() {
        let budget = budget(4);
        let bytes = full(&budget).await.freeze();
        let reference = bytes.slice(1..);
        let address = bytes.as_ptr();
        drop(bytes);
        let mut other = budget
            .buffer(&Owner::default(), STREAM, SIZE, true)
            .unwrap();
        other.extend(b"x").await.unwrap();
        assert_ne!(other.as_ref().as_ptr(), address, "still referenced");
        drop(reference);
        let mut again = budget
            .buffer(&Owner::default(), STREAM, SIZE, true)
            .unwrap();
        assert_eq!(again.len(), 0);
        again.extend(b"xyz").await.unwrap();
        assert_eq!(again.as_ref(), b"xyz");
        assert_eq!(again.as_ref().as_ptr(), address);
    }

    #[tokio::test]
    async fn the_bytes_of_a_part_are_not_copied_from_its_buffer() {
        let buffer = full(&budget(4)).await;
        let address = buffer.as_ref().as_ptr();
        let bytes = buffer.freeze();
        assert_eq!(bytes.as_ptr(), address);
        assert_eq!(bytes.clone().as_ptr(), address);
    }

    #[tokio::test]
    async fn kept_buffers_are_freed_when_a_part_needs_their_bytes() {
        let budget = budget(2);
        keep_one(&budget).await;
        // Both are smaller than the default part size, so neither can use the kept buffer.
        let mut first = budget
            .buffer(&Owner::default(), STREAM, SIZE - 1, true)
            .unwrap();
        let mut second = budget
            .buffer(&Owner::default(), STREAM, SIZE - 1, true)
            .unwrap();
        for buffer in [&mut first, &mut second] {
            buffer.extend(&vec![7; SIZE - 1]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_sender_that_has_not_sent_a_part_yet_reserves_only_what_it_sends() {
        let budget = budget(4);
        keep_one(&budget).await;
        let mut slow = budget
            .buffer(&Owner::default(), STREAM, SIZE, false)
            .unwrap();
        slow.extend(b"x").await.unwrap();
        assert_eq!(slow.reservation.reserved(), 1);
    }

    #[tokio::test]
    async fn a_part_that_waits_for_its_first_bytes_gets_a_kept_buffer() {
        // Only the reserve is free, and it is lent.
        let budget = budget(1);
        let first = full(&budget).await;
        let address = first.as_ref().as_ptr();
        let _reserved = full(&budget).await;
        let mut next = budget
            .buffer(&Owner::default(), STREAM, SIZE, true)
            .unwrap();
        let appended = {
            let mut appending = std::pin::pin!(next.extend(b"x"));
            assert!(futures::poll!(appending.as_mut()).is_pending());
            drop(first.freeze());
            appending.await
        };
        appended.unwrap();
        assert_eq!(next.as_ref().as_ptr(), address);
    }

    #[tokio::test]
    async fn a_kept_buffer_needs_no_further_reservation() {
        let budget = budget(1);
        keep_one(&budget).await;
        let mut again = budget
            .buffer(&Owner::default(), STREAM, SIZE, true)
            .unwrap();
        again.extend(&vec![7; SIZE]).await.unwrap();
        assert_eq!(again.len() as u64, 5 * MIB);
    }
}
