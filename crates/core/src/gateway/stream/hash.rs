//! Computes MD5 digests outside the async workers.
//!
//! An MD5 is a chain: each step needs the previous one. Chains of different parts and of different files are independent,
//! so they are hashed side by side: three cost as much as one alone, and sixteen in SIMD lanes an eighth of what they cost
//! one by one. So a part waits a moment for others, unless its sender waits for it. The parts of one file are added to
//! the file's digest one after the other, and do not wait.
//!
//! The engine is compared with `md-5` at start. If they differ, or if SIMD is disabled in the configuration, `md-5` hashes
//! each part on its own.

mod chain;
mod engine;
mod worker;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
};

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};

use self::{
    engine::Engine,
    worker::{Job, MIN_BATCH, Worker},
};
use crate::{
    error::{Error, Result},
    meter::{Done, Meter},
    upload::{Checksum, Crc64Nvme, FileDigest, Integrity, Md5, RunningMd5},
};

/// If fewer parts of an upload may be in flight, a part that waits for a batch delays the others, and must be urgent.
pub(super) const MIN_IN_FLIGHT: usize = 2 * MIN_BATCH;

/// Up to how many bytes are hashed at once: they take 20 µs, as long as it takes to wake another thread.
const SHORT: usize = 16 * 1024;

/// Hashes parts and files.
#[derive(Debug, Clone)]
pub(super) struct Hasher {
    /// Half as many as there are cores. Only the first one is used while it has free lanes. Empty: `md-5` hashes each part
    /// on its own.
    threads: Arc<[Thread]>,
    /// How many parts are hashed or wait for that.
    running: Arc<AtomicU64>,
    meter: Arc<dyn Meter>,
}

#[derive(Debug)]
struct Thread {
    /// Their number is bounded by the parts in flight.
    jobs: Sender<Job>,
    /// The number of jobs that wait, or are in a lane.
    load: AtomicUsize,
    lanes: usize,
}

/// A job of a thread.
struct Load<'a>(&'a AtomicUsize);

/// A part that is hashed or waits for that. It is measured when this is dropped.
struct Running<'a> {
    hasher: &'a Hasher,
    begun: Instant,
}

// === impl Hasher ===

impl Hasher {
    /// Starts the hashing threads, which end with the last clone of the hasher. No thread is started if `simd` is false, or
    /// if the self-test of the engine fails, which is logged as an error.
    ///
    /// # Errors
    /// The operating system cannot start a thread.
    pub(super) fn start(simd: bool, meter: Arc<dyn Meter>) -> std::io::Result<Self> {
        let threads = match simd.then(Engine::detect).flatten() {
            Some(engine) => (0..thread_count())
                .map(|_| Thread::start(&engine))
                .collect::<std::io::Result<_>>()?,
            None => Arc::default(),
        };
        Ok(Self {
            threads,
            running: Arc::default(),
            meter,
        })
    }

    /// How many parts are hashed or wait for that.
    pub(super) fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// Whether parts are hashed side by side.
    pub(super) fn batches(&self) -> bool {
        !self.threads.is_empty()
    }

    /// How many parts at most are hashed side by side.
    pub(super) fn lanes(&self) -> u64 {
        self.threads.iter().map(|thread| thread.lanes as u64).sum()
    }

    fn begin(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running {
            hasher: self,
            begun: Instant::now(),
        }
    }

    /// The checksum of one part. An urgent part does not wait for others, and neither do the parts that wait with it.
    ///
    /// # Errors
    /// `Internal` if a hashing thread has ended, or the runtime is shutting down.
    pub(super) async fn part(
        &self,
        integrity: Integrity,
        bytes: Bytes,
        is_urgent: bool,
    ) -> Result<Checksum> {
        match integrity {
            Integrity::Md5 => self.md5(bytes, is_urgent).await.map(Checksum::Md5),
            Integrity::Crc64Nvme => {
                let crc64 = self.crc64(Crc64Nvme::default(), bytes).await?;
                Ok(crc64.into())
            }
        }
    }

    /// The MD5 of some bytes. Urgent ones do not wait for others.
    ///
    /// # Errors
    /// `Internal` if a hashing thread has ended, or the runtime is shutting down.
    pub(super) async fn md5(&self, bytes: Bytes, is_urgent: bool) -> Result<Md5> {
        let digest = self.add(RunningMd5::default(), bytes, is_urgent).await?;
        Ok(digest.finish())
    }

    /// Adds the next part of the file to its digest.
    ///
    /// # Errors
    /// `Internal` if a hashing thread has ended, or the runtime is shutting down.
    pub(super) async fn file(&self, digest: FileDigest, bytes: Bytes) -> Result<FileDigest> {
        match digest {
            FileDigest::Md5(md5) => self.add(md5, bytes, true).await.map(FileDigest::Md5),
            FileDigest::Crc64Nvme(crc64) => {
                self.crc64(crc64, bytes).await.map(FileDigest::Crc64Nvme)
            }
        }
    }

    /// The CRC-64 of the bytes of `before`, followed by `bytes`. It takes as long as it takes to copy them.
    async fn crc64(&self, before: Crc64Nvme, bytes: Bytes) -> Result<Crc64Nvme> {
        let _running = self.begin();
        if bytes.len() <= SHORT {
            return Ok(before.extend(&bytes));
        }
        blocking(move || before.extend(&bytes)).await
    }

    async fn add(
        &self,
        mut digest: RunningMd5,
        bytes: Bytes,
        is_urgent: bool,
    ) -> Result<RunningMd5> {
        let _running = self.begin();
        if bytes.len() <= SHORT {
            digest.update(&bytes);
            return Ok(digest);
        }
        let Some(thread) = self.thread() else {
            let hash = move || {
                digest.update(&bytes);
                digest
            };
            return blocking(hash).await;
        };
        thread.add(digest, bytes, is_urgent).await
    }

    /// The first thread with a free lane, or the one with the fewest jobs.
    fn thread(&self) -> Option<&Thread> {
        let mut threads = self.threads.iter();
        let free = threads.find(|thread| thread.load() < thread.lanes);
        free.or_else(|| self.threads.iter().min_by_key(|thread| thread.load()))
    }
}

// === impl Thread ===

impl Thread {
    fn start(engine: &Engine) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let worker = Worker::new(engine.clone(), queue);
        thread::Builder::new()
            .name("digests".into())
            .spawn(|| worker.run())?;
        Ok(Self {
            jobs,
            load: AtomicUsize::new(0),
            lanes: engine.lanes(),
        })
    }

    fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    async fn add(&self, digest: RunningMd5, bytes: Bytes, is_urgent: bool) -> Result<RunningMd5> {
        let _load = Load::add(&self.load);
        let (hashed, result) = oneshot::channel();
        let ended = || Error::fault("hash bytes: the hashing thread has ended");
        let job = Job {
            digest,
            bytes,
            is_urgent,
            hashed,
        };
        self.jobs.send(job).map_err(|_| ended())?;
        result.await.map_err(|_| ended())
    }
}

// === impl Load ===

impl<'a> Load<'a> {
    fn add(load: &'a AtomicUsize) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(load)
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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

async fn blocking<T: Send + 'static>(hash: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let hashed = tokio::task::spawn_blocking(hash).await;
    hashed.map_err(|error| Error::internal("hash bytes", error))
}

/// Half of the cores: the rest is for everything else. In lanes one thread hashes several GB a second.
fn thread_count() -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    cores.div_ceil(2)
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;
    use crate::meter::Unmeasured;

    fn hasher(simd: bool) -> Hasher {
        Hasher::start(simd, Arc::new(Unmeasured)).unwrap()
    }

    /// Short and long ones.
    fn parts() -> Vec<Bytes> {
        (0..100_u8)
            .map(|n| vec![n; 12_345 * usize::from(n % 5)].into())
            .collect()
    }

    async fn assert_digests(hasher: &Hasher) {
        let parts = parts();
        let hashed = parts.iter().map(|part| hasher.md5(part.clone(), false));
        let digests = join_all(hashed).await;
        for (part, digest) in parts.iter().zip(digests) {
            assert_eq!(digest.unwrap(), Md5::of(part));
        }
        assert_eq!(hasher.running(), 0);
        assert!(hasher.threads.iter().all(|thread| thread.load() == 0));
    }

    #[tokio::test]
    async fn each_of_many_parts_has_its_own_digest() {
        let hasher = hasher(true);
        assert!(!hasher.threads.is_empty());
        assert_digests(&hasher).await;
    }

    #[tokio::test]
    async fn without_simd_each_part_is_hashed_on_its_own() {
        let hasher = hasher(false);
        assert!(hasher.threads.is_empty());
        assert_digests(&hasher).await;
    }

    #[tokio::test]
    async fn files_are_hashed_beside_parts() {
        for hasher in [hasher(true), hasher(false)] {
            let files = parts().into_iter().map(|bytes| {
                let hasher = &hasher;
                async move {
                    let mut digest = RunningMd5::default();
                    for piece in bytes.chunks(20_001) {
                        let piece = bytes.slice_ref(piece);
                        digest = hasher.add(digest, piece, true).await.unwrap();
                    }
                    assert_eq!(digest.finish(), Md5::of(&bytes));
                }
            });
            tokio::join!(join_all(files), assert_digests_beside(&hasher));
        }
    }

    async fn assert_digests_beside(hasher: &Hasher) {
        for part in parts() {
            let digest = hasher.md5(part.clone(), true).await;
            assert_eq!(digest.unwrap(), Md5::of(&part));
        }
    }

    #[test]
    fn another_thread_is_used_when_the_lanes_of_the_first_are_taken() {
        let engine = Engine::detect().unwrap();
        let mut hasher = hasher(false);
        hasher.threads = [(), ()].map(|()| Thread::start(&engine).unwrap()).into();
        let [first, second] = &*hasher.threads else {
            panic!("two threads were started");
        };
        let is_chosen = |thread| std::ptr::eq(hasher.thread().unwrap(), thread);
        first.load.store(engine.lanes() - 1, Ordering::Relaxed);
        assert!(is_chosen(first));
        first.load.store(engine.lanes() + 5, Ordering::Relaxed);
        assert!(is_chosen(second));
        second.load.store(engine.lanes() + 9, Ordering::Relaxed);
        assert!(is_chosen(first));
    }
}
