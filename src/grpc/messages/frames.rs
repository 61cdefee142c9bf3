//! The frames of gRPC messages: a flag, the length in four bytes, and the message
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

/// The length in bytes of what precedes a message.
pub(in super::super) const PREFIX: usize = 5;

/// Follows the frames in the bytes of a request. A later decoder can take the messages from it.
#[derive(Debug)]
pub(super) struct Frames {
    /// The largest message, in bytes.
    max: u64,
    prefix: [u8; PREFIX],
    /// How many bytes of the prefix have arrived.
    prefix_length: usize,
    /// How many bytes the message still lacks.
    missing: u64,
    /// How many bytes of the incomplete message have arrived, with its prefix.
    incomplete: u64,
    /// Whether a message has arrived.
    has_message: bool,
}

/// Why the bytes of a request are not messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// The flag of a message says that it is compressed.
    Compressed,
    /// The flag of a message is unknown.
    Flag,
    /// A message is larger than allowed.
    TooLarge,
}

// === impl Frames ===

impl Frames {
    /// Messages of up to `max` bytes.
    pub(super) fn new(max: u64) -> Self {
        Self {
            max,
            prefix: [0; PREFIX],
            prefix_length: 0,
            missing: 0,
            incomplete: 0,
            has_message: false,
        }
    }

    /// Follows the next `bytes`.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            if self.prefix_length < PREFIX {
                let length = bytes.len().min(PREFIX - self.prefix_length);
                let (head, rest) = bytes.split_at(length);
                self.prefix[self.prefix_length..][..length].copy_from_slice(head);
                self.prefix_length += length;
                self.incomplete += length as u64;
                bytes = rest;
                if self.prefix_length < PREFIX {
                    return Ok(());
                }
                self.missing = self.announced()?;
            }
            let length = self.missing.min(bytes.len() as u64);
            self.missing -= length;
            self.incomplete += length;
            bytes = bytes
                .get(usize::try_from(length).unwrap_or(usize::MAX)..)
                .unwrap_or_default();
            if self.missing == 0 {
                (self.prefix_length, self.incomplete) = (0, 0);
                self.has_message = true;
            }
        }
        Ok(())
    }

    /// How many bytes of a message have arrived that is not complete.
    pub(super) fn incomplete(&self) -> u64 {
        self.incomplete
    }

    /// The length in bytes of the incomplete message. 0 without one, or if it is not known yet.
    pub(super) fn length(&self) -> u64 {
        if self.missing > 0 {
            self.incomplete + self.missing
        } else {
            0
        }
    }

    /// Whether a complete message has arrived.
    pub(super) fn has_message(&self) -> bool {
        self.has_message
    }

    /// The length that the prefix announces.
    fn announced(&self) -> Result<u64, Malformed> {
        let [flag, length @ ..] = self.prefix;
        let length = u64::from(u32::from_be_bytes(length));
        match flag {
            0 if length <= self.max => Ok(length),
            0 => Err(Malformed::TooLarge),
            1 => Err(Malformed::Compressed),
            _ => Err(Malformed::Flag),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(flag: u8, size: usize) -> Vec<u8> {
        let length = u32::try_from(size).unwrap().to_be_bytes();
        [&[flag][..], &length, &vec![7; size]].concat()
    }

    #[test]
    fn what_is_not_a_message_is_refused() {
        let refused = |bytes: &[u8]| Frames::new(10).read(bytes).unwrap_err();
        assert_eq!(refused(&message(1, 3)), Malformed::Compressed);
        assert_eq!(refused(&message(2, 3)), Malformed::Flag);
        // As soon as its length is known.
        assert_eq!(refused(&message(0, 11)[..5]), Malformed::TooLarge);
        Frames::new(10).read(&message(0, 10)).unwrap();
    }

    proptest! {
        #[test]
        fn messages_are_found_wherever_their_bytes_are_cut(
            sizes in prop::collection::vec(0..40_usize, 1..8),
            cut in 1..50_usize,
        ) {
            let sent: Vec<u8> = sizes.iter().flat_map(|size| message(0, *size)).collect();
            let ends: Vec<usize> = sizes
                .iter()
                .scan(0, |end, size| {
                    *end += PREFIX + size;
                    Some(*end)
                })
                .collect();
            let (mut frames, mut received) = (Frames::new(40), 0);
            for piece in sent.chunks(cut) {
                frames.read(piece).unwrap();
                received += piece.len();
                let complete = ends.iter().rev().find(|end| **end <= received).unwrap_or(&0);
                prop_assert_eq!(frames.incomplete(), (received - complete) as u64);
                prop_assert_eq!(frames.has_message(), *complete > 0);
            }
        }
    }
}
