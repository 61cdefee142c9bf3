//! MD5 off the async workers.
//!
//! Parts of all streams are hashed side by side in SIMD lanes: one thread takes every part that waits and hashes them as
//! one batch. Four parts side by side cost two thirds of what they cost one by one, eight a third, so a part waits a moment
//! for others, unless its sender waits for it. Whole-file digests are chains, each step of which needs the one
//! before, and run one by one.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use bytes::Bytes;
use md5_simd::Md5Engine;
use tokio::sync::oneshot;

use crate::{
    error::{Error, Result},
    upload::{FileDigest, Md5},
};

/// The most parts hashed in one batch: as many as AVX-512 has lanes of 32 bits.
const LANES: usize = 16;

/// So many parts are waited for: the least that lanes are used for.
const MIN_BATCH: usize = 4;

/// How long the next one is waited for. Parts of 5 MiB that come more slowly, below 100 MB/s, do not keep a core busy
/// either way.
const LINGER: Duration = Duration::from_millis(50);

/// Hashes parts and files.
#[derive(Debug, Clone)]
pub(super) struct Hasher {
    /// As long as parts are on their way, which is bounded.
    parts: Sender<Job>,
}

#[derive(Debug)]
struct Job {
    bytes: Bytes,
    urgent: bool,
    digest: oneshot::Sender<Md5>,
}

// === impl Hasher ===

impl Hasher {
    /// Starts the hashing thread, which ends with the last clone of the hasher. Where so few parts of an upload may be in
    /// flight that waiting would hold the others up, none waits.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(super) fn start(parts_in_flight: usize) -> std::io::Result<Self> {
        let linger = if parts_in_flight < 2 * MIN_BATCH {
            Duration::ZERO
        } else {
            LINGER
        };
        let (parts, jobs) = channel();
        thread::Builder::new()
            .name("part-digests".into())
            .spawn(move || hash_batches(&jobs, linger))?;
        Ok(Self { parts })
    }

    /// The MD5 of one part. An urgent one is not kept waiting for others, nor are those that came before it.
    ///
    /// # Errors
    /// `Internal` when the hashing thread is gone.
    pub(super) async fn part(&self, bytes: Bytes, urgent: bool) -> Result<Md5> {
        let (digest, hashed) = oneshot::channel();
        let gone = || Error::fault("hash a part: the hashing thread is gone");
        let job = Job {
            bytes,
            urgent,
            digest,
        };
        self.parts.send(job).map_err(|_| gone())?;
        hashed.await.map_err(|_| gone())
    }

    /// Adds the file's next part to its digest.
    ///
    /// # Errors
    /// `Internal` when the runtime is shutting down.
    pub(super) async fn file(&self, mut digest: FileDigest, bytes: Bytes) -> Result<FileDigest> {
        tokio::task::spawn_blocking(move || {
            digest.update(&bytes);
            digest
        })
        .await
        .map_err(|error| Error::internal("hash a file", error))
    }
}

fn hash_batches(jobs: &Receiver<Job>, linger: Duration) {
    let engine = Md5Engine::new();
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        fill(&mut batch, jobs, linger);
        // Lanes want neighbours of one length; last parts are the odd ones.
        batch.sort_by_key(|job| job.bytes.len());
        let inputs: Vec<&[u8]> = batch.iter().map(|job| job.bytes.as_ref()).collect();
        let mut digests = vec![[0; 16]; inputs.len()];
        engine.hash_many(&inputs, &mut digests);
        for (job, digest) in batch.into_iter().zip(digests) {
            // Nobody waits any more where the stream has ended.
            let _ = job.digest.send(Md5(digest));
        }
    }
}

/// Takes along whoever waits already, and waits for a few more.
fn fill(batch: &mut Vec<Job>, jobs: &Receiver<Job>, linger: Duration) {
    while batch.len() < LANES {
        let hurry = batch.len() >= MIN_BATCH || batch.iter().any(|job| job.urgent);
        let next = if hurry {
            jobs.try_recv().ok()
        } else {
            jobs.recv_timeout(linger).ok()
        };
        match next {
            Some(job) => batch.push(job),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_hashed_side_by_side_have_their_own_digests() {
        let hasher = Hasher::start(8).unwrap();
        let parts: Vec<Bytes> = (0..40_usize)
            .map(|n| vec![u8::try_from(n).unwrap(); 1000 * (n % 3)].into())
            .collect();
        let digests =
            futures::future::join_all(parts.iter().map(|part| hasher.part(part.clone(), false)))
                .await;
        for (part, digest) in parts.iter().zip(digests) {
            assert_eq!(digest.unwrap(), Md5::of(part));
        }
    }
}
