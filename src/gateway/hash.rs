//! MD5 off the async workers.
//!
//! Parts of all streams are hashed side by side in SIMD lanes: one thread takes every part that waits and hashes them as
//! one batch. Whole-file digests are chains, each step of which needs the one before, and run one by one.

use std::thread;

use bytes::Bytes;
use md5_simd::Md5Engine;
use tokio::sync::{mpsc, oneshot};

use crate::{
    error::{Error, Result},
    upload::{FileDigest, Md5},
};

/// The most parts hashed in one batch: as many as AVX-512 has lanes of 32 bits.
const LANES: usize = 16;

/// Hashes parts and files.
#[derive(Debug, Clone)]
pub(super) struct Hasher {
    parts: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    bytes: Bytes,
    digest: oneshot::Sender<Md5>,
}

// === impl Hasher ===

impl Hasher {
    /// Starts the hashing thread, which ends with the last clone of the hasher.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(super) fn start() -> std::io::Result<Self> {
        let (parts, jobs) = mpsc::channel(LANES);
        thread::Builder::new()
            .name("part-digests".into())
            .spawn(move || hash_batches(jobs))?;
        Ok(Self { parts })
    }

    /// The MD5 of one part.
    ///
    /// # Errors
    /// `Internal` when the hashing thread is gone.
    pub(super) async fn part(&self, bytes: Bytes) -> Result<Md5> {
        let (digest, hashed) = oneshot::channel();
        let gone = || Error::fault("hash a part: the hashing thread is gone");
        self.parts
            .send(Job { bytes, digest })
            .await
            .map_err(|_| gone())?;
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

fn hash_batches(mut jobs: mpsc::Receiver<Job>) {
    let engine = Md5Engine::new();
    let mut batch = Vec::with_capacity(LANES);
    while jobs.blocking_recv_many(&mut batch, LANES) > 0 {
        // Lanes want neighbours of one length; last parts are the odd ones.
        batch.sort_by_key(|job| job.bytes.len());
        let inputs: Vec<&[u8]> = batch.iter().map(|job| job.bytes.as_ref()).collect();
        let mut digests = vec![[0; 16]; inputs.len()];
        engine.hash_many(&inputs, &mut digests);
        for (job, digest) in batch.drain(..).zip(digests) {
            // Nobody waits any more where the stream has ended.
            let _ = job.digest.send(Md5(digest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_hashed_side_by_side_have_their_own_digests() {
        let hasher = Hasher::start().unwrap();
        let parts: Vec<Bytes> = (0..40_usize)
            .map(|n| vec![u8::try_from(n).unwrap(); 1000 * (n % 3)].into())
            .collect();
        let digests =
            futures::future::join_all(parts.iter().map(|part| hasher.part(part.clone()))).await;
        for (part, digest) in parts.iter().zip(digests) {
            assert_eq!(digest.unwrap(), Md5::of(part));
        }
    }
}
