//! Part buffers: one contiguous piece of memory a part, used again.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

/// Keeps a few buffers of one size for the next part. Others are allocated for their part and freed after it, so that
/// what lies in memory stays what was received.
#[derive(Debug)]
pub(super) struct BufferPool {
    free: Mutex<Vec<BytesMut>>,
    buffer_size: usize,
    most: usize,
    /// How many pooled buffers there are, lent ones included.
    made: Mutex<usize>,
}

/// The memory of one part, filled from its beginning.
#[derive(Debug)]
pub(super) struct PartBuffer {
    bytes: BytesMut,
    home: Option<Arc<BufferPool>>,
}

// === impl BufferPool ===

impl BufferPool {
    /// A pool of at most `most` buffers of `buffer_size` bytes.
    pub(super) fn new(buffer_size: usize, most: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::default(),
            buffer_size,
            most,
            made: Mutex::new(0),
        })
    }

    /// An empty buffer with room for `size` bytes; its pages are not touched before they are written.
    pub(super) fn take(self: &Arc<Self>, size: usize) -> PartBuffer {
        if size == self.buffer_size {
            if let Some(bytes) = self
                .free
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()
            {
                return PartBuffer {
                    bytes,
                    home: Some(Arc::clone(self)),
                };
            }
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            if *made < self.most {
                *made += 1;
                return PartBuffer {
                    bytes: BytesMut::with_capacity(size),
                    home: Some(Arc::clone(self)),
                };
            }
        }
        PartBuffer {
            bytes: BytesMut::with_capacity(size),
            home: None,
        }
    }
}

// === impl PartBuffer ===

impl PartBuffer {
    /// Appends bytes: the one copy the gateway makes of them.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// How many bytes it holds.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Shares the bytes; the memory goes back to its pool with the last of them.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for PartBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for PartBuffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            home.free
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pooled_buffer_comes_back_empty_with_the_last_share_of_its_bytes() {
        let pool = BufferPool::new(1024, 1);
        let mut first = pool.take(1024);
        first.extend(b"abc");
        let address = first.as_ref().as_ptr();
        let bytes = first.freeze();
        let share = bytes.slice(1..);
        drop(bytes);
        assert_ne!(pool.take(1024).as_ref().as_ptr(), address, "still shared");
        drop(share);
        let mut again = pool.take(1024);
        assert_eq!(again.len(), 0);
        again.extend(b"x");
        assert_eq!(again.as_ref().as_ptr(), address);
    }
}
