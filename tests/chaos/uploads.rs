//! What is uploaded: how large, which way, and the bytes.

use std::{sync::OnceLock, time::Duration};

use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};

use crate::schedule::{Scale, Store};

/// The parts that the gateway cuts, in bytes.
pub(crate) const PART: usize = 5 * 1024 * 1024;

/// Each stretch of so many bytes begins with the upload's number and its place in the file, so that no two are equal.
const STRETCH: usize = 4096;

/// One file and how it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    /// Which one: makes its bytes and its name.
    pub(crate) number: usize,
    /// When its sender begins.
    pub(crate) at: Duration,
    /// Bytes.
    pub(crate) size: usize,
    /// How it gets there.
    pub(crate) course: Course,
    /// Where it goes.
    pub(crate) store: Store,
    /// Whether the size and the MD5 are told beforehand.
    pub(crate) declared: bool,
    /// Whether the whole file's MD5 is computed and compared.
    pub(crate) digest: bool,
    /// Bytes a second, at most.
    pub(crate) rate: u64,
    /// Where the course changes, in bytes.
    pub(crate) turn: u64,
}

/// How a file gets to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Course {
    /// By one sender through the gateway.
    Streamed,
    /// Its sender dies, and another one goes on by the upload's id.
    Resumed,
    /// By requests that the gateway signs.
    Signed,
    /// The first parts by signed requests, the rest through the gateway.
    SignedThenStreamed,
    /// The other way round.
    StreamedThenSigned,
    /// By two senders who do not know of each other.
    Contested,
}

/// What lies in a store, or should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    /// Bytes.
    pub(crate) size: u64,
    /// SHA-256 of them.
    pub(crate) sha256: [u8; 32],
}

/// All uploads of a run: most are small, a few large, and each kind of each course is among them.
pub(crate) fn uploads(random: &mut StdRng, scale: Scale) -> Vec<Upload> {
    (0..scale.uploads)
        .map(|number| upload(random, scale, number))
        .collect()
}

fn upload(random: &mut StdRng, scale: Scale, number: usize) -> Upload {
    use Course::{Contested, Resumed, Signed, SignedThenStreamed, Streamed, StreamedThenSigned};
    let course = match number % 20 {
        0..8 => Streamed,
        8..12 => Resumed,
        12..15 => Signed,
        15..17 => SignedThenStreamed,
        17..19 => StreamedThenSigned,
        _ => Contested,
    };
    let is_whole = matches!(course, Streamed | Signed);
    let size = if is_whole {
        any_size(random, scale, number)
    } else {
        // Courses that change on their way need a way.
        random.random_range(PART + 1..=(4 * PART).min(scale.largest))
    };
    // Towards the end nothing new begins, so that most meet more than one fault.
    let at = scale.time.mul_f64(random.random_range(0.0..0.9));
    let seconds = random.random_range(1..20);
    let is_found_again = !matches!(course, Streamed | Resumed);
    Upload {
        number,
        at: Duration::from_millis(u64::try_from(at.as_millis()).expect("minutes")),
        size,
        course,
        store: match number / 20 % 2 {
            0 => [Store::S3, Store::Azure][number % 2],
            _ => [Store::Azure, Store::S3][number % 2],
        },
        declared: is_found_again || random.random_bool(0.6),
        digest: is_found_again || random.random_bool(0.8),
        rate: (size as u64 / seconds).max(64 * 1024),
        turn: random.random_range(1..=size.max(2) as u64 - 1),
    }
}

/// 0 B to the largest, biased to the small ones and to the borders of parts; one is the largest.
fn any_size(random: &mut StdRng, scale: Scale, number: usize) -> usize {
    let size = match random.random_range(0..100) {
        _ if number == 1 => scale.largest,
        _ if number == 2 => 0,
        0..4 => 0,
        4..8 => PART * random.random_range(1..=3),
        8..35 => random.random_range(1..1024 * 1024),
        35..70 => random.random_range(1024 * 1024..PART + 1024),
        70..92 => random.random_range(PART..3 * PART),
        92..98 => random.random_range(3 * PART..6 * PART),
        _ => random.random_range(6 * PART..13 * PART),
    };
    size.min(scale.largest)
}

// === impl Upload ===

impl Upload {
    /// The file's name, by which an object in a store is known.
    pub(crate) fn name(&self) -> String {
        format!("upload-{}.bin", self.number)
    }

    /// The number of the upload whose object has this key.
    pub(crate) fn number_of(key: &str) -> Option<usize> {
        let (_, name) = key.rsplit_once('/')?;
        name.strip_prefix("upload-")?
            .strip_suffix(".bin")?
            .parse()
            .ok()
    }

    /// The file's bytes, the same each time.
    pub(crate) fn bytes(&self) -> Bytes {
        /// Random bytes, made once: making all of them would take the cores from what is tested.
        static RANDOM: OnceLock<Vec<u8>> = OnceLock::new();
        let random = RANDOM.get_or_init(|| {
            let mut bytes = vec![0; 1024 * 1024];
            StdRng::seed_from_u64(0).fill_bytes(&mut bytes);
            bytes
        });
        let mut bytes = Vec::with_capacity(self.size);
        while bytes.len() < self.size {
            let length = random.len().min(self.size - bytes.len());
            bytes.extend_from_slice(&random[..length]);
        }
        for (index, stretch) in bytes.chunks_mut(STRETCH).enumerate() {
            let stamp = [self.number as u64 + 1, index as u64].map(u64::to_le_bytes);
            let stamp = stamp.as_flattened();
            let length = stamp.len().min(stretch.len());
            stretch[..length].copy_from_slice(&stamp[..length]);
        }
        bytes.into()
    }

    /// What has to lie in the store.
    pub(crate) fn content(&self) -> Content {
        Content {
            size: self.size as u64,
            sha256: Sha256::digest(self.bytes()).into(),
        }
    }
}
