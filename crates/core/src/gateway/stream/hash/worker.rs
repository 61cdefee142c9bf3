//! A thread that hashes what is queued for it, in the lanes of the engine.

use std::{sync::mpsc::Receiver, time::Duration};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{chain::Chain, engine::Engine};
use crate::upload::RunningMd5;

/// The number of parts to wait for: three cost as much as one alone.
pub(super) const MIN_BATCH: usize = 3;

/// How long to wait for the next part of a batch. Parts of 5 MiB that arrive more slowly, below 100 MB/s, do not keep a
/// core busy in any case.
const LINGER: Duration = Duration::from_millis(50);

/// Bytes to add to a digest.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) digest: RunningMd5,
    pub(super) bytes: Bytes,
    /// Whether it does not wait for others.
    pub(super) is_urgent: bool,
    pub(super) hashed: oneshot::Sender<RunningMd5>,
}

#[derive(Debug)]
pub(super) struct Worker {
    engine: Engine,
    jobs: Receiver<Job>,
    /// At most as many as the engine has.
    lanes: Vec<Lane>,
}

#[derive(Debug)]
struct Lane {
    chain: Chain,
    hashed: oneshot::Sender<RunningMd5>,
}

// === impl Worker ===

impl Worker {
    pub(super) fn new(engine: Engine, jobs: Receiver<Job>) -> Self {
        let lanes = Vec::with_capacity(engine.lanes());
        Self {
            engine,
            jobs,
            lanes,
        }
    }

    /// Hashes until no more jobs can be sent.
    pub(super) fn run(mut self) {
        while let Ok(first) = self.jobs.recv() {
            self.gather(first);
            while !self.lanes.is_empty() {
                self.refill();
                self.step();
            }
        }
    }

    /// Waits for a few more jobs, unless one is urgent.
    fn gather(&mut self, first: Job) {
        let mut is_urgent = first.is_urgent;
        self.add(first);
        while !is_urgent && self.lanes.len() < MIN_BATCH {
            match self.jobs.recv_timeout(LINGER) {
                Ok(job) => {
                    is_urgent = job.is_urgent;
                    self.add(job);
                }
                Err(_) => return,
            }
        }
    }

    /// Takes the jobs that wait already, while lanes are free.
    fn refill(&mut self) {
        while self.lanes.len() < self.engine.lanes() {
            match self.jobs.try_recv() {
                Ok(job) => self.add(job),
                Err(_) => return,
            }
        }
    }

    fn add(&mut self, job: Job) {
        let chain = Chain::new(job.digest, job.bytes);
        let hashed = job.hashed;
        self.lanes.push(Lane { chain, hashed });
        self.free_lanes();
    }

    fn step(&mut self) {
        self.engine
            .step(self.lanes.iter_mut().map(|lane| &mut lane.chain));
        self.free_lanes();
    }

    /// Frees the lanes whose chain has ended, or is no longer awaited.
    fn free_lanes(&mut self) {
        let is_free = |lane: &mut Lane| lane.chain.is_ended() || lane.hashed.is_closed();
        for Lane { chain, hashed } in self.lanes.extract_if(.., is_free) {
            if chain.is_ended() {
                // Fails if the stream has ended.
                let _ = hashed.send(chain.finish());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;
    use crate::upload::Md5;

    fn worker() -> (Sender<Job>, Worker) {
        let (sender, jobs) = channel();
        (sender, Worker::new(Engine::detect().unwrap(), jobs))
    }

    fn job(digest: RunningMd5, bytes: Bytes) -> (Job, oneshot::Receiver<RunningMd5>) {
        let (hashed, result) = oneshot::channel();
        let job = Job {
            digest,
            bytes,
            is_urgent: true,
            hashed,
        };
        (job, result)
    }

    fn part(bytes: Bytes) -> (Job, oneshot::Receiver<RunningMd5>) {
        job(RunningMd5::default(), bytes)
    }

    #[test]
    fn a_job_that_arrives_later_joins_after_a_slice_and_is_answered_first() {
        let (sender, mut worker) = worker();
        let (long, short) = (Bytes::from(vec![1; 1 << 20]), Bytes::from(vec![2; 1000]));
        let (first, mut first_result) = part(long.clone());
        worker.gather(first);
        worker.step();
        let (second, mut second_result) = part(short.clone());
        sender.send(second).unwrap();
        worker.refill();
        worker.step();
        assert_eq!(second_result.try_recv().unwrap().finish(), Md5::of(&short));
        assert!(first_result.try_recv().is_err());
        while !worker.lanes.is_empty() {
            worker.step();
        }
        assert_eq!(first_result.try_recv().unwrap().finish(), Md5::of(&long));
    }

    #[test]
    fn lanes_that_are_no_longer_awaited_are_freed() {
        let (_sender, mut worker) = worker();
        let (first, result) = part(vec![1; 1 << 20].into());
        worker.gather(first);
        worker.step();
        assert_eq!(worker.lanes.len(), 1);
        drop(result);
        worker.step();
        assert_eq!(worker.lanes.len(), 0);
    }

    #[test]
    fn no_more_jobs_are_taken_than_the_engine_has_lanes() {
        let (sender, mut worker) = worker();
        let lanes = worker.engine.lanes();
        let results: Vec<_> = (0..lanes + 3)
            .map(|_| {
                let (job, result) = part(vec![1; 1 << 18].into());
                sender.send(job).unwrap();
                result
            })
            .collect();
        worker.refill();
        assert_eq!(worker.lanes.len(), lanes);
        drop((sender, worker));
        assert_eq!(results.len(), lanes + 3);
    }

    #[test]
    fn jobs_that_are_not_urgent_are_gathered() {
        let (sender, mut worker) = worker();
        let mut results = Vec::new();
        let mut send = |is_urgent| {
            let (mut job, result) = part(vec![1; 1000].into());
            job.is_urgent = is_urgent;
            results.push(result);
            sender.send(job).unwrap();
        };
        [false, false, false, false, true, false]
            .into_iter()
            .for_each(&mut send);
        let mut gathered = || {
            let first = worker.jobs.recv().unwrap();
            worker.gather(first);
            std::mem::take(&mut worker.lanes).len()
        };
        assert_eq!(gathered(), MIN_BATCH);
        // One that waits, and the urgent one.
        assert_eq!(gathered(), 2);
        drop(sender);
        assert_eq!(gathered(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Files of different lengths, cut anywhere. Every piece continues from a state that was saved as text.
        #[test]
        fn files_in_any_pieces_have_their_digests(
            files in vec((0_usize..50_000, vec(any::<Index>(), 0..4)), 1..40),
        ) {
            let (sender, worker) = worker();
            let thread = std::thread::spawn(move || worker.run());
            let mut files: Vec<_> = files
                .into_iter()
                .enumerate()
                .map(|(number, (len, cuts))| {
                    let bytes: Bytes = (0..len).map(|at| (at * (number + 3) / 5).to_le_bytes()[0]).collect();
                    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(len + 1)).collect();
                    ends.push(len);
                    ends.sort_unstable();
                    (bytes, ends, RunningMd5::default())
                })
                .collect();
            for round in 0..4 {
                let mut results = Vec::new();
                for (bytes, ends, digest) in &files {
                    let Some(&end) = ends.get(round) else {
                        results.push(None);
                        continue;
                    };
                    let start = round.checked_sub(1).map_or(0, |before| ends[before]);
                    let (job, result) = job(digest.clone(), bytes.slice(start..end));
                    sender.send(job).unwrap();
                    results.push(Some(result));
                }
                for ((.., digest), result) in files.iter_mut().zip(results) {
                    if let Some(result) = result {
                        let state = result.blocking_recv().unwrap().state();
                        *digest = RunningMd5::resume(&state).unwrap();
                    }
                }
            }
            drop(sender);
            thread.join().unwrap();
            for (bytes, _, digest) in files {
                prop_assert_eq!(digest.finish(), Md5::of(&bytes));
            }
        }
    }
}
