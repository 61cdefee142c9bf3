//! How many bytes of parts the gateway keeps in memory for one storage.
//!
//! A store that keeps up needs few, however many streams there are: a stream whose part must wait is not read. Slow senders and
//! slow stores delay other streams for a moment only: a part that is received slowly does not count, and waits are bounded.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::shortest::ShortestTime;
use crate::upload::{Owner, PART_SIZE};

/// The first part of a stream does not wait before it has this many bytes: senders that send little must not wait for each other.
pub(in crate::gateway) const UNCOUNTED: u64 = 64 * 1024;

/// How many parts of its size may be in memory beside a new one, in addition to those that the store needs in flight. More, if that
/// many MD5s are computed side by side.
const BESIDE: u64 = 4;

/// For how long a part counts while it is being received. A sender that takes longer is slow, and fills little memory meanwhile.
const RECEIVED_WITHIN: Duration = Duration::from_millis(250);

/// A part that has waited for so long begins whatever is in memory: the store has become slow, and the memory budget is the limit.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How often a part that waits looks for parts that count no longer.
const CHECK_PAUSE: Duration = Duration::from_millis(50);

/// The parts of one storage that are in memory.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Intake(Mutex<Parts>);

#[derive(Debug, Default)]
struct Parts {
    shortest: ShortestTime,
    /// The bytes of the parts that count.
    bytes: u64,
    /// The parts that are being received and count, in the order in which they began.
    receiving: BTreeMap<u64, (Instant, u64)>,
    /// The number of the next part.
    next: u64,
    /// Each caller once; the first one is next.
    waiting: VecDeque<(Owner, VecDeque<Waiting>)>,
}

/// A part that waits until it may begin.
#[derive(Debug)]
struct Waiting {
    size: u64,
    lanes: u64,
    begins: oneshot::Sender<HeldPart>,
}

/// A part in memory. It counts until it is dropped.
#[derive(Debug)]
pub(in crate::gateway) struct HeldPart {
    intake: Arc<Intake>,
    number: u64,
    size: u64,
    is_received: bool,
}

// === impl Intake ===

impl Intake {
    /// A part that came from a sender is recorded. It has been in flight for this time.
    pub(in crate::gateway) fn recorded(&self, took: Duration) {
        self.lock().shortest.record(took);
    }

    /// How many parts of `size` bytes one upload needs in flight, for all of its speed. Each keeps its bytes in memory.
    pub(in crate::gateway) fn needed(&self, size: u64) -> usize {
        self.lock().shortest.in_flight(size)
    }

    /// Waits until a part of `size` bytes may be received, at most for [`LONGEST_WAIT`]. The parts of one caller begin in the order in
    /// which they came, and callers take turns. `lanes`: how many MD5s are computed side by side, 0 if none are. A part stops waiting
    /// if others wait for memory that its stream may have: `is_short`.
    pub(in crate::gateway) async fn begin(
        self: &Arc<Self>,
        owner: &Owner,
        (size, lanes): (u64, u64),
        is_short: impl Fn() -> bool + Send,
    ) -> HeldPart {
        let end = Instant::now() + LONGEST_WAIT;
        let mut begins = {
            let mut parts = self.lock();
            parts.forget_slow();
            if parts.waiting.is_empty() && parts.has_room(size, lanes) {
                return self.hold(&mut parts, size);
            }
            parts.enqueue(owner, size, lanes)
        };
        // The parts that waited before may all have stopped waiting.
        self.serve();
        while Instant::now() < end && !is_short() {
            match timeout(CHECK_PAUSE, &mut begins).await {
                Ok(Ok(held)) => return held,
                Ok(Err(_)) => break,
                Err(_) => self.serve(),
            }
        }
        self.hold(&mut self.lock(), size)
    }

    /// Lets parts begin that wait.
    fn serve(self: &Arc<Self>) {
        loop {
            let (begins, held) = {
                let mut parts = self.lock();
                parts.forget_slow();
                let Some(Waiting { size, begins, .. }) = parts.next() else {
                    return;
                };
                (begins, self.hold(&mut parts, size))
            };
            // If the part has stopped waiting meanwhile, the part is dropped here.
            drop(begins.send(held));
        }
    }

    fn hold(self: &Arc<Self>, parts: &mut Parts, size: u64) -> HeldPart {
        HeldPart {
            intake: Arc::clone(self),
            number: parts.add(size),
            size,
            is_received: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        // A std mutex: held for a few instructions, never across an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Parts ===

impl Parts {
    fn has_room(&self, size: u64, lanes: u64) -> bool {
        let beside = BESIDE.max(lanes).saturating_mul(size.max(PART_SIZE));
        self.bytes <= beside.saturating_add(self.shortest.in_flight_together())
    }

    fn enqueue(&mut self, owner: &Owner, size: u64, lanes: u64) -> oneshot::Receiver<HeldPart> {
        // Parts of streams that have ended. Removed here, so that the queue is no longer than the parts that wait.
        for (_, waiting) in &mut self.waiting {
            waiting.retain(|waiting| !waiting.begins.is_closed());
        }
        self.waiting.retain(|(_, waiting)| !waiting.is_empty());
        let (begins, begun) = oneshot::channel();
        let waiting = Waiting {
            size,
            lanes,
            begins,
        };
        let mut callers = self.waiting.iter_mut();
        match callers.find(|(caller, _)| caller == owner) {
            Some((_, others)) => others.push_back(waiting),
            None => self
                .waiting
                .push_back((owner.clone(), VecDeque::from([waiting]))),
        }
        begun
    }

    /// The next part that waits, if there is room for it. The next caller comes first then.
    fn next(&mut self) -> Option<Waiting> {
        loop {
            let first = self.waiting.front()?.1.front();
            let waits = first.filter(|first| !first.begins.is_closed());
            if waits.is_some_and(|first| !self.has_room(first.size, first.lanes)) {
                return None;
            }
            let (owner, mut waiting) = self.waiting.pop_front()?;
            let part = waiting.pop_front();
            if !waiting.is_empty() {
                self.waiting.push_back((owner, waiting));
            }
            if let Some(part) = part.filter(|part| !part.begins.is_closed()) {
                return Some(part);
            }
        }
    }

    /// Adds a part that is being received, and returns its number.
    fn add(&mut self, size: u64) -> u64 {
        let number = self.next;
        self.next += 1;
        self.bytes += size;
        self.receiving.insert(number, (Instant::now(), size));
        number
    }

    /// Parts that take long to be received count no longer.
    fn forget_slow(&mut self) {
        while let Some(first) = self.receiving.first_entry()
            && first.get().0.elapsed() >= RECEIVED_WITHIN
        {
            self.bytes -= first.remove().1;
        }
    }
}

// === impl HeldPart ===

impl HeldPart {
    /// The part is complete. It counts until its bytes are in the store.
    pub(in crate::gateway) fn received(&mut self) {
        let mut parts = self.intake.lock();
        if parts.receiving.remove(&self.number).is_none() && !self.is_received {
            parts.bytes += self.size;
        }
        self.is_received = true;
    }
}

impl Drop for HeldPart {
    fn drop(&mut self) {
        {
            let mut parts = self.intake.lock();
            if parts.receiving.remove(&self.number).is_some() || self.is_received {
                parts.bytes -= self.size;
            }
        }
        self.intake.serve();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use futures::FutureExt;
    use tokio::time::advance;

    use super::*;

    static ME: LazyLock<Owner> = LazyLock::new(Owner::default);

    /// As many parts as begin at once.
    async fn fill(intake: &Arc<Intake>) -> Vec<HeldPart> {
        let mut parts = Vec::new();
        while let Some(part) = intake.begin(&ME, (PART_SIZE, 0), || false).now_or_never() {
            parts.push(part);
        }
        parts
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_needs_more_bytes_in_flight_gets_more() {
        for (milliseconds, expected) in [(0, 5), (5, 6), (200, 45)] {
            let intake = Arc::<Intake>::default();
            intake.recorded(Duration::from_millis(milliseconds));
            assert_eq!(fill(&intake).await.len(), expected, "{milliseconds} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_part_that_came_first_begins_when_another_is_stored() {
        let intake = Arc::<Intake>::default();
        let mut parts = fill(&intake).await;
        parts.iter_mut().for_each(HeldPart::received);
        let mut first = Box::pin(intake.begin(&ME, (PART_SIZE, 0), || false));
        let mut second = Box::pin(intake.begin(&ME, (PART_SIZE, 0), || false));
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        parts.pop();
        let _part = first.now_or_never().unwrap();
        assert!(futures::poll!(&mut second).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_does_not_wait_for_all_parts_of_another() {
        let intake = Arc::<Intake>::default();
        let mut parts = fill(&intake).await;
        parts.iter_mut().for_each(HeldPart::received);
        let other = Owner {
            subject: "other".to_owned(),
            ..Owner::default()
        };
        let mut mine = [(); 3].map(|()| Box::pin(intake.begin(&ME, (PART_SIZE, 0), || false)));
        for part in &mut mine {
            assert!(futures::poll!(part).is_pending());
        }
        let mut theirs = Box::pin(intake.begin(&other, (PART_SIZE, 0), || false));
        assert!(futures::poll!(&mut theirs).is_pending());
        let [first, mut second, _third] = mine;
        parts.pop();
        let _part = first.now_or_never().unwrap();
        parts.pop();
        assert!(futures::poll!(&mut second).is_pending());
        assert!(theirs.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_stopped_waiting_delays_none_behind_it() {
        let intake = Arc::<Intake>::default();
        let mut parts = fill(&intake).await;
        let mut first = Box::pin(intake.begin(&ME, (PART_SIZE, 0), || false));
        let mut second = Box::pin(intake.begin(&ME, (PART_SIZE, 0), || false));
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        parts.pop();
        assert!(second.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_senders_delay_a_part_for_a_moment_only() {
        let intake = Arc::<Intake>::default();
        let _parts = fill(&intake).await;
        let begun = Instant::now();
        let _part = intake.begin(&ME, (PART_SIZE, 0), || false).await;
        assert_eq!(begun.elapsed(), RECEIVED_WITHIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_store_delays_a_part_for_a_second_only() {
        let intake = Arc::<Intake>::default();
        let mut parts = fill(&intake).await;
        parts.iter_mut().for_each(HeldPart::received);
        let begun = Instant::now();
        let _part = intake.begin(&ME, (PART_SIZE, 0), || false).await;
        assert_eq!(begun.elapsed(), LONGEST_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_whose_stream_has_memory_for_which_others_wait_does_not() {
        let intake = Arc::default();
        let mut parts = fill(&intake).await;
        parts.iter_mut().for_each(HeldPart::received);
        let part = intake.begin(&ME, (PART_SIZE, 0), || true);
        assert!(part.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_was_received_slowly_counts_again_while_it_is_sent() {
        let intake = Arc::<Intake>::default();
        let mut parts = fill(&intake).await;
        advance(RECEIVED_WITHIN).await;
        let more = fill(&intake).await;
        assert_eq!(more.len(), parts.len());
        drop(more);
        parts.iter_mut().for_each(HeldPart::received);
        assert!(
            intake
                .begin(&ME, (PART_SIZE, 0), || false)
                .now_or_never()
                .is_none()
        );
        drop(parts);
        assert_eq!(intake.lock().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn more_are_in_memory_if_their_md5s_are_computed_side_by_side() {
        let intake = Arc::<Intake>::default();
        let mut parts = fill(&intake).await;
        while let Some(part) = intake.begin(&ME, (PART_SIZE, 16), || false).now_or_never() {
            parts.push(part);
        }
        assert_eq!(parts.len(), 17);
    }

    #[tokio::test(start_paused = true)]
    async fn large_parts_do_not_wait_for_each_other() {
        let intake = Arc::<Intake>::default();
        let large = 64 * PART_SIZE;
        let mut parts = Vec::new();
        for _ in 0..BESIDE {
            parts.push(
                intake
                    .begin(&ME, (large, 0), || false)
                    .now_or_never()
                    .unwrap(),
            );
        }
    }
}
