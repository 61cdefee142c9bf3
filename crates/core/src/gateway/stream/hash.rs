//! Computes MD5 digests outside the async workers.
//!
//! Parts of all streams are hashed together in SIMD lanes: one thread takes all parts that wait and hashes them as one
//! batch. Four parts in a batch cost two thirds of what they cost one by one, eight cost a third. So a part waits a moment
//! for others, unless its sender waits for it. The digest of a whole file is a chain: each step needs the previous one, so
//! the steps run one by one.
//!
//! `md5-simd` is a young crate, so its digests are compared with those of `md-5` at start. If they differ, or if SIMD is
//! disabled in the configuration, `md-5` hashes each part on its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use md5_simd::Md5Engine;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    error::{Error, Result},
    meter::{Done, Meter},
    upload::{FileDigest, Md5},
};

/// The largest number of parts in one batch: AVX-512 has this many lanes of 32 bits.
const LANES: usize = 16;

/// The number of parts to wait for: the smallest batch for which lanes are used.
const MIN_BATCH: usize = 4;

/// If fewer parts of an upload may be in flight, a part that waits for a batch delays the others, and must be urgent.
pub(super) const MIN_IN_FLIGHT: usize = 2 * MIN_BATCH;

/// How long to wait for the next part of a batch. Parts of 5 MiB that arrive more slowly, below 100 MB/s, do not keep a
/// core busy in any case.
const LINGER: Duration = Duration::from_millis(50);

/// The lengths in bytes that the self-test hashes: around 64, the size of an MD5 block, and 56, from which on the padding
/// takes another block; empty and short input; and several blocks.
const TESTED_LENGTHS: [usize; 8] = [0, 1, 55, 56, 63, 64, 65, 1000];

/// Computes the MD5 of each input, in order.
type HashBatch = fn(&[&[u8]]) -> Vec<Md5>;

/// Hashes parts and files.
#[derive(Debug, Clone)]
pub(super) struct Hasher {
    /// The parts for the hashing thread; their number is bounded by the parts in flight. `None`: `md-5` hashes each part on
    /// its own.
    batches: Option<Sender<Job>>,
    /// How many parts are hashed or wait for that.
    running: Arc<AtomicU64>,
    meter: Arc<dyn Meter>,
}

/// A part that is hashed or waits for that. It is measured when this is dropped.
struct Running<'a> {
    hasher: &'a Hasher,
    begun: Instant,
}

#[derive(Debug)]
struct Job {
    bytes: Bytes,
    urgent: bool,
    digest: oneshot::Sender<Md5>,
}

// === impl Hasher ===

impl Hasher {
    /// Starts the hashing thread, which ends with the last clone of the hasher. No thread is started if `simd` is false, or
    /// if the self-test of `md5-simd` fails, which is logged as an error.
    ///
    /// # Errors
    /// The operating system cannot start a thread.
    pub(super) fn start(simd: bool, meter: Arc<dyn Meter>) -> std::io::Result<Self> {
        let batches = match simd {
            true => start_thread(hash_simd)?,
            false => None,
        };
        Ok(Self {
            batches,
            running: Arc::default(),
            meter,
        })
    }

    /// How many parts are hashed or wait for that.
    pub(super) fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    fn begin(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running {
            hasher: self,
            begun: Instant::now(),
        }
    }

    /// The MD5 of one part. An urgent part does not wait for others, and neither do the parts that are in its batch.
    ///
    /// # Errors
    /// `Internal` if the hashing thread has ended, or the runtime is shutting down.
    pub(super) async fn part(&self, bytes: Bytes, urgent: bool) -> Result<Md5> {
        let _running = self.begin();
        let Some(batches) = &self.batches else {
            return blocking(move || Md5::of(&bytes)).await;
        };
        let (digest, hashed) = oneshot::channel();
        let ended = || Error::fault("hash a part: the hashing thread has ended");
        let job = Job {
            bytes,
            urgent,
            digest,
        };
        batches.send(job).map_err(|_| ended())?;
        hashed.await.map_err(|_| ended())
    }

    /// Adds the next part of the file to its digest.
    ///
    /// # Errors
    /// `Internal` if the runtime is shutting down.
    pub(super) async fn file(&self, mut digest: FileDigest, bytes: Bytes) -> Result<FileDigest> {
        let _running = self.begin();
        blocking(move || {
            digest.update(&bytes);
            digest
        })
        .await
    }
}

// === impl Running ===

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Self { hasher, begun } = self;
        hasher.running.fetch_sub(1, Ordering::Relaxed);
        let took = begun.elapsed();
        hasher.meter.note(Done::Hashed { took });
    }
}

/// Starts the hashing thread with this engine. `None`: the engine fails the self-test.
fn start_thread(engine: HashBatch) -> std::io::Result<Option<Sender<Job>>> {
    if !is_correct(engine) {
        tracing::error!("md5-simd computes wrong digests on this machine; only md-5 is used");
        return Ok(None);
    }
    let (batches, jobs) = channel();
    thread::Builder::new()
        .name("part-digests".into())
        .spawn(move || hash_batches(&jobs, engine))?;
    Ok(Some(batches))
}

async fn blocking<T: Send + 'static>(hash: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let hashed = tokio::task::spawn_blocking(hash).await;
    hashed.map_err(|error| Error::internal("hash bytes", error))
}

fn hash_simd(inputs: &[&[u8]]) -> Vec<Md5> {
    let mut digests = vec![[0; 16]; inputs.len()];
    Md5Engine::new().hash_many(inputs, &mut digests);
    digests.into_iter().map(Md5).collect()
}

/// Whether the engine agrees with `md-5` about batches of every size, with parts of equal and of different lengths.
fn is_correct(engine: HashBatch) -> bool {
    // Parts start at different bytes, so that swapped lanes are noticed.
    let bytes: [u8; 1000 + LANES] = std::array::from_fn(|at| (at * at / 7).to_le_bytes()[0]);
    let is_batch_correct = |lengths: &[usize]| {
        let parts = lengths.iter().enumerate();
        let inputs: Vec<&[u8]> = parts
            .map(|(lane, length)| &bytes[lane..lane + length])
            .collect();
        let expected: Vec<Md5> = inputs.iter().map(|input| Md5::of(input)).collect();
        engine(&inputs) == expected
    };
    (1..=LANES).all(|size| {
        let mixed: Vec<usize> = (0..size)
            .map(|lane| TESTED_LENGTHS[lane * TESTED_LENGTHS.len() / size])
            .collect();
        let mut equal = TESTED_LENGTHS.map(|length| vec![length; size]).into_iter();
        is_batch_correct(&mixed) && equal.all(|lengths| is_batch_correct(&lengths))
    })
}

fn hash_batches(jobs: &Receiver<Job>, engine: HashBatch) {
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        fill(&mut batch, jobs);
        // Lanes need neighbours of equal length. Last parts are shorter.
        batch.sort_by_key(|job| job.bytes.len());
        let inputs: Vec<&[u8]> = batch.iter().map(|job| job.bytes.as_ref()).collect();
        let digests = engine(&inputs);
        for (job, digest) in batch.into_iter().zip(digests) {
            // Fails if the stream has ended.
            let _ = job.digest.send(digest);
        }
    }
}

/// Adds the parts that wait already, and waits for a few more.
fn fill(batch: &mut Vec<Job>, jobs: &Receiver<Job>) {
    while batch.len() < LANES {
        let hurry = batch.len() >= MIN_BATCH || batch.iter().any(|job| job.urgent);
        let next = if hurry {
            jobs.try_recv().ok()
        } else {
            jobs.recv_timeout(LINGER).ok()
        };
        match next {
            Some(job) => batch.push(job),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::meter::Unmeasured;

    fn hasher(simd: bool) -> Hasher {
        Hasher::start(simd, Arc::new(Unmeasured)).unwrap()
    }

    fn parts() -> Vec<Bytes> {
        (0..40_u8)
            .map(|n| vec![n; 1000 * usize::from(n % 3)].into())
            .collect()
    }

    async fn assert_digests(hasher: &Hasher) {
        let parts = parts();
        let hashed = parts.iter().map(|part| hasher.part(part.clone(), false));
        let digests = futures::future::join_all(hashed).await;
        for (part, digest) in parts.iter().zip(digests) {
            assert_eq!(digest.unwrap(), Md5::of(part));
        }
    }

    #[tokio::test]
    async fn each_part_of_a_batch_has_its_own_digest() {
        let hasher = hasher(true);
        assert!(hasher.batches.is_some());
        assert_digests(&hasher).await;
    }

    #[tokio::test]
    async fn without_simd_each_part_is_hashed_on_its_own() {
        let hasher = hasher(false);
        assert!(hasher.batches.is_none());
        assert_digests(&hasher).await;
    }

    #[test]
    fn an_engine_that_fails_the_self_test_is_not_used() {
        let broken: [HashBatch; 3] = [
            // Wrong in the last lane of full batches only.
            |inputs| {
                let mut digests = hash_simd(inputs);
                if digests.len() == LANES {
                    digests[LANES - 1] = Md5([0; 16]);
                }
                digests
            },
            // Wrong for one length only.
            |inputs| {
                let wrong =
                    |input: &&[u8]| Md5::of(&input[..input.len() - usize::from(input.len() == 56)]);
                inputs.iter().map(wrong).collect()
            },
            // In the wrong order.
            |inputs| inputs.iter().rev().map(|input| Md5::of(input)).collect(),
        ];
        for engine in broken {
            assert!(start_thread(engine).unwrap().is_none());
        }
    }

    #[test]
    fn the_self_test_hashes_batches_of_every_size() {
        static SIZES: AtomicUsize = AtomicUsize::new(0);
        let engine: HashBatch = |inputs| {
            SIZES.fetch_or(1 << inputs.len(), Ordering::Relaxed);
            hash_simd(inputs)
        };
        assert!(is_correct(engine));
        let all_sizes: usize = (1..=LANES).map(|size| 1 << size).sum();
        assert_eq!(SIZES.load(Ordering::Relaxed), all_sizes);
    }
}
