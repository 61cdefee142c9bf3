//! Tests of the memory of messages.

use futures::{FutureExt, future::join_all, poll};
use tokio::{task::yield_now, time::sleep};

use super::{ledger::STALL_LIMIT, *};

const WAIT_LIMIT: Duration = Duration::from_secs(30);
const PART: u64 = 50;
const MESSAGE: u64 = 20;
const FRAME: u64 = 10;

/// A budget with `free` bytes beside its reserve.
fn budget(free: u64) -> Arc<Budget> {
    Budget::new(free + PART + MESSAGE, PART, MESSAGE, WAIT_LIMIT)
}

fn stream(budget: &Arc<Budget>) -> MessageMemory {
    MessageMemory::new(budget, &Owner::default())
}

fn begin(budget: &Arc<Budget>, memory: &MessageMemory) -> Reservation {
    budget.begin(&Owner::default(), memory.stream())
}

/// Sends `parts` parts in messages, some of which belong to two parts. Each part is put while the next one arrives.
async fn send(budget: Arc<Budget>, parts: u64) {
    let memory = stream(&budget);
    let (mut part, mut received) = (begin(&budget, &memory), 0);
    for _ in 0..parts * PART / MESSAGE {
        // The bytes of a message arrive in two frames.
        memory.arrive(FRAME, 0).await.unwrap();
        yield_now().await;
        memory.arrive(FRAME, 0).await.unwrap();
        let mut left = MESSAGE;
        while left > 0 {
            let piece = left.min(PART - received);
            part.reserve(piece, false).await.unwrap();
            (left, received) = (left - piece, received + piece);
            if received == PART {
                let put = std::mem::replace(&mut part, begin(&budget, &memory));
                received = 0;
                tokio::spawn(async move {
                    yield_now().await;
                    drop(put);
                });
            }
        }
        memory.keep(0);
    }
}

#[tokio::test(start_paused = true)]
async fn half_received_messages_cannot_deadlock() {
    for free in [0, 10, 60, 150, 500] {
        let begun = Instant::now();
        let budget = budget(free);
        join_all((0..20).map(|_| send(Arc::clone(&budget), 20))).await;
        // No stream waited until others were recalled.
        assert_eq!(begun.elapsed(), Duration::ZERO, "{free} free bytes");
        // The last parts are put.
        sleep(Duration::from_millis(1)).await;
        let ledger = budget.lock();
        assert_eq!((ledger.free, ledger.reserve), (free, PART + MESSAGE));
    }
}

/// Sends `parts` parts in messages of this length. The part takes the bytes of each frame at once, but a part that a message has
/// filled is put only after the end of that message.
async fn send_in_pieces(budget: Arc<Budget>, parts: u64, message: u64) {
    let memory = stream(&budget);
    let (mut part, mut received, mut full) = (begin(&budget, &memory), 0, Vec::new());
    for _ in 0..parts * PART / message {
        for _ in 0..message / FRAME {
            memory.arrive(FRAME, message).await.unwrap();
            yield_now().await;
            let mut left = FRAME;
            while left > 0 {
                let piece = left.min(PART - received);
                part.reserve(piece, false).await.unwrap();
                (left, received) = (left - piece, received + piece);
                part.fill(received + full.len() as u64 * PART);
                if received == PART {
                    full.push(std::mem::replace(&mut part, begin(&budget, &memory)));
                    received = 0;
                }
            }
            memory.keep(0);
        }
        for put in full.drain(..) {
            put.fill(0);
            tokio::spawn(async move {
                yield_now().await;
                drop(put);
            });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn parts_that_wait_for_the_end_of_a_message_cannot_deadlock() {
    // The longer ones belong to three or four parts.
    let free = [0, 10, 60, 150, 500];
    for (message, free) in free.map(|free| [(20, free), (130, free)]).concat() {
        let begun = Instant::now();
        let budget = Budget::new(free + PART + message, PART, message, WAIT_LIMIT);
        join_all((0..20).map(|_| send_in_pieces(Arc::clone(&budget), 26, message))).await;
        // No stream waited until others were recalled.
        assert_eq!(begun.elapsed(), Duration::ZERO, "{message}, {free} free");
        // The last parts are put.
        sleep(Duration::from_millis(1)).await;
        let ledger = budget.lock();
        assert_eq!((ledger.free, ledger.reserve), (free, PART + message));
    }
}

#[tokio::test]
async fn a_part_takes_over_the_memory_of_its_messages() {
    let budget = budget(20);
    let memory = stream(&budget);
    let mut part = begin(&budget, &memory);
    memory.arrive(15, 0).await.unwrap();
    part.reserve(12, false).await.unwrap();
    assert_eq!((part.reserved(), budget.lock().free), (12, 5));
    // The frame of the message is not part of the file.
    memory.keep(0);
    assert_eq!(budget.lock().free, 8);
    drop(part);
    assert_eq!(budget.lock().free, 20);
}

#[tokio::test]
async fn a_stream_that_ends_returns_the_memory_of_its_messages() {
    let budget = budget(20);
    let memory = stream(&budget);
    memory.arrive(15, 0).await.unwrap();
    // From the reserve.
    memory.arrive(15, 0).await.unwrap();
    drop(memory);
    let ledger = budget.lock();
    assert_eq!((ledger.free, ledger.reserve), (20, PART + MESSAGE));
}

#[tokio::test]
async fn the_reserve_is_lent_to_another_stream_after_a_part() {
    let budget = budget(0);
    let (first, second) = (stream(&budget), stream(&budget));
    let mut part = begin(&budget, &first);
    for _ in 0..PART / 10 {
        first.arrive(10, 0).await.unwrap();
        part.reserve(10, false).await.unwrap();
    }
    let mut waits = std::pin::pin!(second.arrive(10, 0));
    assert!(poll!(waits.as_mut()).is_pending());
    // The next message of the first stream has begun.
    first.arrive(10, 0).await.unwrap();
    assert!(poll!(waits.as_mut()).is_pending());
    drop(part);
    assert!(poll!(waits.as_mut()).is_ready());
    let more = std::pin::pin!(first.arrive(10, 0));
    assert!(more.now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_part_is_recalled_for_the_memory_of_its_message() {
    let budget = budget(20);
    let idle = stream(&budget);
    let other = stream(&budget);
    // Recalled, although the message began to arrive after the stream began to wait.
    let idle = tokio::spawn(async move {
        tokio::select! {
            () = idle.recalled(None) => {}
            () = async {
                idle.arrive(20, 0).await.unwrap();
                std::future::pending().await
            } => {}
        }
    });
    yield_now().await;
    other.arrive(PART + MESSAGE, 0).await.unwrap();
    other.arrive(1, 0).await.unwrap();
    idle.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn streams_whose_senders_stall_make_room_within_seconds() {
    let budget = budget(100);
    let mut stalled = Vec::new();
    for _ in 0..40 {
        let memory = stream(&budget);
        stalled.push(tokio::spawn(async move {
            // A message whose last bytes never arrive.
            tokio::select! {
                () = memory.recalled(None) => {}
                () = async {
                    for _ in 0..3 {
                        if memory.arrive(5, 20).await.is_err() {
                            return;
                        }
                    }
                    std::future::pending().await
                } => {}
            }
        }));
    }
    sleep(Duration::from_secs(5)).await;
    let begun = Instant::now();
    let honest = stream(&budget);
    for _ in 0..10 {
        honest.arrive(4, 0).await.unwrap();
        honest.keep(0);
    }
    // At most one stall for each of the ten messages.
    assert!(begun.elapsed() <= 10 * STALL_LIMIT, "{:?}", begun.elapsed());
}

/// Receives a byte of a message from time to time, until it is recalled.
async fn trickle(memory: MessageMemory) {
    loop {
        tokio::select! {
            () = memory.recalled(None) => return,
            () = sleep(STALL_LIMIT / 2) => memory.arrive(1, MESSAGE).await.unwrap(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_slowest_stream_is_recalled_even_if_it_does_not_stall() {
    let budget = budget(0);
    let slow = stream(&budget);
    // It gets the reserve.
    slow.arrive(1, MESSAGE).await.unwrap();
    let slow = tokio::spawn(trickle(slow));
    let begun = Instant::now();
    let waiting = stream(&budget);
    waiting.arrive(1, 0).await.unwrap();
    slow.await.unwrap();
    assert!(begun.elapsed() >= WAIT_LIMIT / 2);
}

/// Waits for the last message, and returns whether the stream was recalled meanwhile.
async fn is_recalled(memory: MessageMemory, bytes: u64) -> bool {
    tokio::select! {
        () = memory.recalled(None) => true,
        _ = memory.arrive(bytes, MESSAGE) => false,
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_all_wait_for_memory_make_room_for_each_other() {
    let budget = budget(40);
    let begun = Instant::now();
    let streams: Vec<_> = (0..4).map(|_| stream(&budget)).collect();
    for memory in &streams {
        memory.arrive(10, MESSAGE).await.unwrap();
    }
    let holder = stream(&budget);
    holder.arrive(PART + MESSAGE, 0).await.unwrap();
    let waiting = streams
        .into_iter()
        .map(|memory| tokio::spawn(is_recalled(memory, 10)));
    let ended = join_all(waiting).await;
    let recalled = ended.into_iter().filter(|ended| *ended.as_ref().unwrap());
    assert_eq!(recalled.count(), 1);
    assert!(begun.elapsed() < WAIT_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_just_begun_is_not_recalled() {
    let budget = budget(1);
    let slow = stream(&budget);
    // It gets the reserve.
    slow.arrive(30, MESSAGE).await.unwrap();
    let slow = tokio::spawn(trickle(slow));
    let waiting = stream(&budget);
    let waiting = tokio::spawn(async move { waiting.arrive(2, MESSAGE).await });
    sleep(WAIT_LIMIT / 2 - STALL_LIMIT / 2).await;
    let new = stream(&budget);
    // Slower so far than the slow one.
    new.arrive(1, 1).await.unwrap();
    let mut recalled = std::pin::pin!(new.recalled(None));
    assert!(poll!(recalled.as_mut()).is_pending());
    waiting.await.unwrap().unwrap();
    slow.await.unwrap();
    assert!(poll!(recalled.as_mut()).is_pending());
}

#[tokio::test]
async fn the_stream_with_more_bytes_in_its_part_is_served_first_then_the_shorter_message() {
    let budget = budget(100);
    let holder = stream(&budget);
    holder.arrive(60, 0).await.unwrap();
    let [fuller, longer, shorter] = [(); 3].map(|()| stream(&budget));
    let mut part = begin(&budget, &fuller);
    fuller.arrive(10, 20).await.unwrap();
    part.reserve(10, false).await.unwrap();
    part.fill(10);
    // What is left of the reserve does not suffice for another request.
    let rest = stream(&budget);
    rest.arrive(30, 0).await.unwrap();
    rest.arrive(PART + MESSAGE, 0).await.unwrap();
    let waits = [(&longer, 1000), (&shorter, 20), (&fuller, 2000)];
    let mut waits = waits.map(|(memory, length)| Box::pin(memory.arrive(30, length)));
    for waiting in &mut waits {
        assert!(poll!(waiting.as_mut()).is_pending());
    }
    holder.keep(0);
    let served = waits.map(|mut waiting| poll_once(&mut waiting));
    assert_eq!(served, [false, true, true]);
}

fn poll_once(waiting: &mut (impl Future + Unpin)) -> bool {
    waiting.now_or_never().is_some()
}

#[tokio::test]
async fn long_messages_leave_memory_for_short_ones() {
    const MIB: u64 = 1 << 20;
    let budget = Budget::new(16 * MIB, MIB, MIB, WAIT_LIMIT);
    let long: Vec<_> = (0..5).map(|_| stream(&budget)).collect();
    // The reserve is 2 MiB, and an eighth of all is not for long messages.
    let taken = long
        .iter()
        .filter(|memory| memory.try_arrive(3 * MIB, 4 * MIB));
    assert_eq!(taken.count(), 4);
    let mut waits = std::pin::pin!(long[4].arrive(3 * MIB, 4 * MIB));
    assert!(poll!(waits.as_mut()).is_pending());
    let short = stream(&budget);
    short.arrive(2 * MIB, MIB).now_or_never().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_for_memory_is_not_recalled() {
    let budget = budget(20);
    let (holder, waiting) = (stream(&budget), stream(&budget));
    holder.arrive(20, 0).await.unwrap();
    holder.arrive(PART + MESSAGE, 0).await.unwrap();
    let mut recalled = std::pin::pin!(waiting.recalled(None));
    assert!(poll!(recalled.as_mut()).is_pending());
    let error = waiting.arrive(1, 0).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Overloaded);
    assert!(poll!(recalled.as_mut()).is_pending());
    assert_eq!(waiting.waited(), WAIT_LIMIT);
}
