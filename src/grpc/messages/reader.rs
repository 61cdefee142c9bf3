//! Reads the messages of an upload stream from the bytes of its frames, as they arrive.
//!
//! The bytes of a chunk are passed on in pieces that share the memory of the HTTP/2 frames: no chunk is put together here. prost
//! decodes everything else, so what is accepted, and what it means, is defined in one place. A message is passed on in pieces if
//! it is a chunk of which all but `data` is known in advance or fits into [`TAIL`]. Any other message is kept until it is whole.

use std::mem;

use bytes::{Bytes, BytesMut};
use prost::{
    DecodeError, Message,
    encoding::{WireType, decode_key, decode_varint},
};
use upload_gateway_client::proto::v1::{Chunk, UploadRequest, upload_request::Message as Kind};

use super::frames::PREFIX;

/// The number of `UploadRequest.chunk`.
const CHUNK: u32 = 2;

/// The number of `Chunk.offset`.
const OFFSET: u32 = 1;

/// The number of `Chunk.data`.
const DATA: u32 = 2;

/// The number of `Chunk.crc32c`.
const CRC32C: u32 = 3;

/// The most bytes that precede `data` in a message that is passed on in pieces. Usual ones have less than 30.
const HEAD: usize = 64;

/// The bytes that may follow `data` in a message that is passed on in pieces: those of `crc32c` with its key.
const TAIL: usize = 5;

/// Stands for the data of a chunk that was passed on in pieces. Longer than any data that the tail can have.
const PASSED_ON: Bytes = Bytes::from_static(&[0; TAIL + 1]);

/// Reads the messages of one stream. Their frames must have been [checked](super::frames).
#[derive(Debug, Default)]
pub(in crate::grpc) struct Reader {
    /// What has arrived and was not read yet.
    bytes: Bytes,
    /// What was read of an incomplete prefix, message or tail.
    kept: BytesMut,
    state: State,
    /// Whether a chunk with data was read.
    has_chunk: bool,
}

/// What was read.
#[derive(Debug, PartialEq)]
pub(in crate::grpc) enum Read {
    /// A whole message.
    Message(UploadRequest),
    /// The next bytes of a chunk. The first chunk of a stream is never in pieces.
    Piece(Bytes),
    /// The end of a chunk whose bytes were in pieces, without them.
    ChunkEnd(Chunk),
    /// The bytes of the chunk, which were in pieces, do not count. The chunk follows with others.
    Void,
}

/// What is read next.
#[derive(Debug, Default)]
enum State {
    /// The prefix of a message.
    #[default]
    Prefix,
    /// A message of this length.
    Message(usize),
    /// The bytes of a chunk.
    Data(Passing),
    /// A chunk whose data was replaced.
    Replaced(Chunk),
}

/// A chunk whose bytes are passed on.
#[derive(Debug)]
struct Passing {
    /// Its other fields.
    chunk: Chunk,
    /// How many of its bytes are not passed on yet.
    left: usize,
    /// How many bytes of the message follow them.
    tail: usize,
}

// === impl Reader ===

impl Reader {
    /// Adds bytes that have arrived. The bytes before must have been read.
    pub(in crate::grpc) fn push(&mut self, bytes: Bytes) {
        debug_assert!(self.bytes.is_empty(), "all bytes before are read");
        self.bytes = bytes;
    }

    /// Reads on; `None` if more bytes must arrive first.
    ///
    /// # Errors
    /// The message is not an `UploadRequest`. The next call continues with the message after it.
    pub(in crate::grpc) fn next(&mut self) -> Result<Option<Read>, DecodeError> {
        loop {
            match mem::take(&mut self.state) {
                State::Prefix => {
                    let Some(prefix) = self.take(PREFIX) else {
                        return Ok(None);
                    };
                    let length = prefix.iter().skip(1);
                    let length = length.fold(0, |length, &byte| length << 8 | usize::from(byte));
                    self.state = State::Message(length);
                }
                State::Message(length) => {
                    if let Some(passing) = self.begin_passing(length) {
                        self.state = State::Data(passing);
                        continue;
                    }
                    let Some(message) = self.take(length) else {
                        self.state = State::Message(length);
                        return Ok(None);
                    };
                    return self.whole(UploadRequest::decode(message)?);
                }
                State::Data(mut passing) if passing.left > 0 => {
                    let size = passing.left.min(self.bytes.len());
                    passing.left -= size;
                    self.state = State::Data(passing);
                    let piece = (size > 0).then(|| Read::Piece(self.bytes.split_to(size)));
                    return Ok(piece);
                }
                State::Data(passing) => {
                    let Some(tail) = self.take(passing.tail) else {
                        self.state = State::Data(passing);
                        return Ok(None);
                    };
                    return self.end(passing.chunk, tail).map(Some);
                }
                State::Replaced(chunk) => {
                    let message = Some(Kind::Chunk(chunk));
                    return self.whole(UploadRequest { message });
                }
            }
        }
    }

    /// How many bytes are kept.
    pub(in crate::grpc) fn kept(&self) -> u64 {
        self.kept.len() as u64
    }

    /// Whether the stream must not end here: the bytes of a message are missing.
    pub(in crate::grpc) fn is_within_message(&self) -> bool {
        !self.kept.is_empty() || matches!(self.state, State::Data(_))
    }

    fn whole(&mut self, request: UploadRequest) -> Result<Option<Read>, DecodeError> {
        if let Some(Kind::Chunk(chunk)) = &request.message {
            self.has_chunk |= !chunk.data.is_empty();
        }
        Ok(Some(Read::Message(request)))
    }

    /// Begins to pass on the message if its bytes allow that. A message of which all bytes are there needs no pieces.
    fn begin_passing(&mut self, length: usize) -> Option<Passing> {
        let kept = self.kept.len();
        if !self.has_chunk || kept >= HEAD || (kept == 0 && self.bytes.len() >= length) {
            return None;
        }
        let next = self.bytes.len().min(HEAD - kept);
        let mut head = [0; HEAD];
        head[..kept].copy_from_slice(&self.kept);
        head[kept..][..next].copy_from_slice(&self.bytes[..next]);
        let (passing, read) = Passing::read(&head[..kept + next], length)?;
        // Longer than what was kept, or it would have been found before.
        drop(self.bytes.split_to(read.checked_sub(kept)?));
        self.kept.clear();
        Some(passing)
    }

    /// The end of a chunk: its last bytes are fields that can replace those before.
    fn end(&mut self, mut chunk: Chunk, tail: Bytes) -> Result<Read, DecodeError> {
        chunk.data = PASSED_ON;
        chunk.merge(tail)?;
        if chunk.data.len() == PASSED_ON.len() {
            chunk.data = Bytes::new();
            return Ok(Read::ChunkEnd(chunk));
        }
        self.state = State::Replaced(chunk);
        Ok(Read::Void)
    }

    /// The next `size` bytes; until they are there, those before are kept.
    fn take(&mut self, size: usize) -> Option<Bytes> {
        if self.kept.is_empty() && self.bytes.len() >= size {
            return Some(self.bytes.split_to(size));
        }
        let missing = size - self.kept.len();
        let next = self.bytes.split_to(missing.min(self.bytes.len()));
        if self.kept.len() + next.len() >= HEAD {
            self.kept.reserve(missing);
        }
        self.kept.extend_from_slice(&next);
        (self.kept.len() == size).then(|| mem::take(&mut self.kept).freeze())
    }
}

// === impl Passing ===

impl Passing {
    /// The chunk that a message of `length` bytes with this `head` is, and how many bytes precede its data. `None` if more
    /// bytes must arrive first, or if prost must decode the message.
    fn read(head: &[u8], length: usize) -> Option<(Self, usize)> {
        let mut rest = head;
        if decode_key(&mut rest).ok()? != (CHUNK, WireType::LengthDelimited) {
            return None;
        }
        let size = decode_varint(&mut rest).ok()?;
        let begins = head.len() - rest.len();
        if length.checked_sub(begins)? as u64 != size {
            return None;
        }
        loop {
            let ends = head.len() - rest.len();
            match decode_key(&mut rest).ok()? {
                (OFFSET, WireType::Varint) => drop(decode_varint(&mut rest).ok()?),
                (CRC32C, WireType::ThirtyTwoBit) => rest = rest.get(4..)?,
                (DATA, WireType::LengthDelimited) => {
                    let left = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                    let read = head.len() - rest.len();
                    let tail = length.checked_sub(read)?.checked_sub(left)?;
                    let is_known = left > 0 && (tail == 0 || tail == TAIL);
                    let chunk = Chunk::decode(head.get(begins..ends)?).ok()?;
                    return is_known.then_some((Self { chunk, left, tail }, read));
                }
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use prost::encoding::{encode_key, encode_varint};

    use super::*;
    use crate::grpc::fuzzing::reads_as_prost;

    /// A field with its key.
    fn field(number: u32, wire_type: WireType, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_key(number, wire_type, &mut bytes);
        if wire_type == WireType::LengthDelimited {
            encode_varint(value.len() as u64, &mut bytes);
        }
        bytes.extend_from_slice(value);
        bytes
    }

    fn any_field() -> impl Strategy<Value = Vec<u8>> {
        let varint = |number, value| {
            let mut bytes = Vec::new();
            encode_varint(value, &mut bytes);
            field(number, WireType::Varint, &bytes)
        };
        let number = prop_oneof![1..4_u32, Just(15), Just(1_000)];
        prop_oneof![
            4 => (0..40_u32).prop_map(move |bits| varint(OFFSET, (1_u64 << bits) - 1)),
            4 => vec(any::<u8>(), 4..=4).prop_map(|crc| field(CRC32C, WireType::ThirtyTwoBit, &crc)),
            4 => vec(any::<u8>(), 0..150).prop_map(|data| field(DATA, WireType::LengthDelimited, &data)),
            1 => (number, any::<u64>()).prop_map(move |(number, value)| varint(number, value)),
            1 => vec(any::<u8>(), 0..4),
            1 => Just([field(9, WireType::StartGroup, &varint(1, 7)), field(9, WireType::EndGroup, b"")].concat()),
        ]
    }

    /// The fields of a chunk, mostly in a usual order.
    fn any_chunk() -> impl Strategy<Value = Vec<u8>> {
        let usual = (any_field(), vec(any::<u8>(), 1..300), any_field());
        let usual = usual.prop_map(|(before, data, after)| {
            [before, field(DATA, WireType::LengthDelimited, &data), after].concat()
        });
        let any = vec(any_field(), 0..5).prop_map(|fields| fields.concat());
        prop_oneof![3 => usual, 1 => any]
    }

    fn any_message() -> impl Strategy<Value = Vec<u8>> {
        let chunk =
            || any_chunk().prop_map(|chunk| field(CHUNK, WireType::LengthDelimited, &chunk));
        let finish =
            vec(any::<u8>(), 0..4).prop_map(|finish| field(3, WireType::LengthDelimited, &finish));
        let other = prop_oneof![chunk(), finish, any_field()];
        let cut = (chunk(), any::<prop::sample::Index>()).prop_map(|(mut message, at)| {
            message.truncate(at.index(message.len() + 1));
            message
        });
        prop_oneof![
            8 => chunk(),
            1 => vec(other, 0..3).prop_map(|parts| parts.concat()),
            1 => cut,
        ]
    }

    /// A reader that has read a first chunk.
    fn reader() -> Reader {
        Reader {
            has_chunk: true,
            ..Reader::default()
        }
    }

    fn framed(chunk: &Chunk) -> Bytes {
        let message = Some(Kind::Chunk(chunk.clone()));
        frame(&UploadRequest { message }.encode_to_vec())
    }

    fn frame(message: &[u8]) -> Bytes {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0][..], &length, message].concat().into()
    }

    proptest! {
        #[test]
        fn messages_are_read_as_prost_decodes_them(
            messages in vec(any_message(), 1..5),
            cut in 1..200_usize,
        ) {
            let first = field(CHUNK, WireType::LengthDelimited, &field(DATA, WireType::LengthDelimited, b"x"));
            let messages: Vec<_> = [first].into_iter().chain(messages).collect();
            reads_as_prost(&messages, cut);
        }
    }

    #[test]
    fn a_usual_chunk_is_passed_on_without_a_copy() {
        for crc32c in [None, Some(7)] {
            let chunk = Chunk {
                offset: 1 << 40,
                data: vec![7; 100_000].into(),
                crc32c,
            };
            let frame = framed(&chunk);
            let mut reader = reader();
            let (mut begin, mut received) = (0, 0);
            // The first cut is within the fields before the data.
            for end in [9, 1_000, 70_000, frame.len() - 3, frame.len()] {
                let bytes = frame.slice(begin..end);
                begin = end;
                let memory = bytes.as_ptr_range();
                reader.push(bytes);
                loop {
                    match reader.next().unwrap() {
                        None => break,
                        Some(Read::Piece(piece)) => {
                            assert!(memory.contains(&piece.as_ptr()));
                            received += piece.len();
                        }
                        Some(Read::ChunkEnd(end)) => {
                            assert_eq!((end.offset, end.crc32c), (1 << 40, crc32c));
                            received *= 10;
                        }
                        other => panic!("{other:?}"),
                    }
                    assert!(reader.kept() <= HEAD as u64);
                }
                assert_eq!(reader.is_within_message(), end < frame.len());
            }
            assert_eq!(received, 1_000_000);
        }
    }

    #[test]
    fn a_message_that_is_cut_at_any_byte_has_no_end() {
        let chunk = |crc32c| Chunk {
            offset: 1 << 40,
            data: vec![7; 300].into(),
            crc32c,
        };
        let data_twice = [chunk(None).encode_to_vec(), vec![0x12, 3, 1, 2, 3]].concat();
        let data_twice = field(CHUNK, WireType::LengthDelimited, &data_twice);
        let then_finish = field(
            CHUNK,
            WireType::LengthDelimited,
            &chunk(Some(7)).encode_to_vec(),
        );
        let then_finish = [then_finish, field(3, WireType::LengthDelimited, b"")].concat();
        let others = [data_twice, then_finish].map(|message| frame(&message));
        for frame in [framed(&chunk(None)), framed(&chunk(Some(7)))]
            .into_iter()
            .chain(others)
        {
            for cut in 1..frame.len() {
                let mut reader = reader();
                for begin in (0..cut).step_by(70) {
                    reader.push(frame.slice(begin..cut.min(begin + 70)));
                    while let Some(read) = reader.next().unwrap() {
                        assert!(matches!(read, Read::Piece(_)), "{cut}: {read:?}");
                    }
                }
                // After the prefix alone, tonic takes the stream for one that ends without the message.
                assert_eq!(reader.is_within_message(), cut != PREFIX, "{cut}");
            }
        }
    }

    #[test]
    fn the_first_chunk_is_whole() {
        let chunk = Chunk {
            data: vec![7; 1_000].into(),
            ..Chunk::default()
        };
        let frame = framed(&chunk);
        let mut reader = Reader::default();
        reader.push(frame.slice(..500));
        assert_eq!(reader.next().unwrap(), None);
        reader.push(frame.slice(500..));
        let message = Some(Kind::Chunk(chunk));
        let whole = Read::Message(UploadRequest { message });
        assert_eq!(reader.next().unwrap(), Some(whole));
        assert_eq!(reader.kept(), 0);
    }
}
