//! The uploads: their sizes, courses and bytes.

use std::{sync::OnceLock, time::Duration};

use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};

use crate::schedule::{Scale, Store};

/// The gateway's part size in bytes.
pub(crate) const PART: usize = 5 * 1024 * 1024;

/// Each stretch of this many bytes begins with the upload's number and the offset, so that no two are equal.
const STRETCH: usize = 4096;

/// One file and how it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    /// Its number, from which its bytes and its name are made.
    pub(crate) number: usize,
    /// When its sender begins.
    pub(crate) at: Duration,
    /// Bytes.
    pub(crate) size: usize,
    /// How it is sent.
    pub(crate) course: Course,
    /// The store that it is sent to.
    pub(crate) store: Store,
    /// Whether the size and the MD5 are declared in advance.
    pub(crate) declared: bool,
    /// Whether the whole file's MD5 is computed and compared.
    pub(crate) digest: bool,
    /// The maximum rate, in bytes a second.
    pub(crate) rate: u64,
    /// The offset at which the course changes, in bytes.
    pub(crate) turn: u64,
}

/// How a file is sent to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Course {
    /// By one sender through the gateway.
    Streamed,
    /// Its sender is stopped, and another one resumes by the upload's id.
    Resumed,
    /// By requests that the gateway signs.
    Signed,
    /// The first parts by signed requests, the rest through the gateway.
    SignedThenStreamed,
    /// The first parts through the gateway, the rest by signed requests.
    StreamedThenSigned,
    /// By two senders that do not know each other.
    Contested,
}

/// The content of an object, actual or expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    /// Bytes.
    pub(crate) size: u64,
    /// SHA-256 of them.
    pub(crate) sha256: [u8; 32],
}

/// All uploads of a run: most are small, a few large, and every variant of every course occurs.
pub(crate) fn uploads(random: &mut StdRng, scale: Scale) -> Vec<Upload> {
    (0..scale.uploads + scale.embedded)
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
        // Courses that change need a file that is large enough.
        random.random_range(PART + 1..=(4 * PART).min(scale.largest))
    };
    // No upload begins near the end, so that most of them experience more than one fault.
    let at = scale.time.mul_f64(random.random_range(0.0..0.9));
    let seconds = random.random_range(1..20);
    let is_found_again = !matches!(course, Streamed | Resumed);
    Upload {
        number,
        at: Duration::from_millis(u64::try_from(at.as_millis()).expect("minutes")),
        size,
        course,
        store: match number / 20 % 2 {
            _ if number >= scale.uploads => Store::Embedded,
            0 => [Store::S3, Store::Azure][number % 2],
            _ => [Store::Azure, Store::S3][number % 2],
        },
        declared: is_found_again || random.random_bool(0.6),
        digest: is_found_again || random.random_bool(0.8),
        rate: (size as u64 / seconds).max(64 * 1024),
        turn: random.random_range(1..=size.max(2) as u64 - 1),
    }
}

/// From 0 bytes to the largest size, biased to small ones and to part boundaries; one has the largest size.
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
    /// The file's name, by which its object is found in a store.
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
        /// Random bytes, made once: making new ones for each file would take CPU time from what is tested.
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

    /// The expected content of its object.
    pub(crate) fn content(&self) -> Content {
        Content {
            size: self.size as u64,
            sha256: Sha256::digest(self.bytes()).into(),
        }
    }
}
