//! What a connection is doing, and when it ends if that does not change.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use tokio_util::sync::CancellationToken;

use super::Protocol;

/// How long a client may take for the HTTP/2 preface or the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// How long an HTTP/2 connection that answers pings may be without a call. gRPC clients keep such connections on purpose.
const IDLE_TIME: Duration = Duration::from_secs(60 * 60);

/// How long a client may take to answer GOAWAY.
const GOAWAY_TIME: Duration = Duration::from_secs(10);

/// The same while others wait for it: a shutdown, or another client at the limit of connections.
const SHORT_GOAWAY_TIME: Duration = Duration::from_secs(1);

/// The length in bytes of the preface with which a client begins HTTP/2 (RFC 9113, section 3.4).
const PREFACE: usize = 24;

/// How many bytes an HTTP/2 client may send without a call. A client that sends only calls with too much metadata, which take
/// time to decode and reach no service, loses its connection. Twice the largest metadata that costs only its call.
const MAX_WITHOUT_CALL: usize = 512 * 1024;

/// How a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// HTTP/2 sends GOAWAY, HTTP/1.1 closes after the running response.
    Close,
    /// At once.
    Drop,
}

/// Whether there ever was a call on a connection, and since when there has been none.
pub(super) type Quiet = (bool, Instant);

/// What a connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    protocol: Protocol,
    state: Mutex<State>,
    /// Another connection needs the place.
    replaced: Notify,
    /// The client must use another connection for its next calls.
    leaves: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// The bytes received.
    received: usize,
    /// The bytes received since the last call.
    without_call: usize,
    /// The calls that have begun and whose response has not been sent completely.
    calls: usize,
    /// Whether there was a call.
    has_served: bool,
    /// When the last call ended, or the connection began.
    quiet_since: Instant,
    /// When the first bytes after that arrived.
    head_since: Option<Instant>,
    /// Since when, and for how long, the connection is closing.
    closing: Option<(Instant, Duration)>,
}

// === impl Activity ===

impl Activity {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            state: Mutex::new(State {
                received: 0,
                without_call: 0,
                calls: 0,
                has_served: false,
                quiet_since: Instant::now(),
                head_since: None,
                closing: None,
            }),
            replaced: Notify::new(),
            leaves: CancellationToken::new(),
        }
    }

    /// Records that `bytes` arrived.
    pub(super) fn receive(&self, bytes: usize) {
        let mut state = self.lock();
        state.received = state.received.saturating_add(bytes);
        if state.calls == 0 && bytes > 0 {
            state.without_call = state.without_call.saturating_add(bytes);
            state.head_since.get_or_insert_with(Instant::now);
        }
    }

    /// Records that a call began.
    pub(super) fn begin_call(&self) {
        let mut state = self.lock();
        state.calls += 1;
        state.has_served = true;
        state.head_since = None;
        state.without_call = 0;
    }

    /// Records that a call ended.
    pub(super) fn end_call(&self) {
        let mut state = self.lock();
        state.calls -= 1;
        state.quiet_since = Instant::now();
        state.head_since = None;
    }

    /// Asks for the end of the connection, because another one needs its place.
    pub(super) fn replace(&self) {
        self.replaced.notify_one();
    }

    /// What closes the connection as soon as it has no call, when it is cancelled.
    pub(super) fn leaves(&self) -> CancellationToken {
        self.leaves.clone()
    }

    /// Begins to close because the listener stops.
    pub(super) fn stop(&self) -> Ending {
        self.close(SHORT_GOAWAY_TIME)
    }

    /// `None` while there is a call, or while the connection closes.
    pub(super) fn quiet(&self) -> Option<Quiet> {
        let state = self.lock();
        let is_quiet = state.calls == 0 && state.closing.is_none();
        is_quiet.then_some((state.has_served, state.quiet_since))
    }

    /// Waits until the connection must end. Polled again after each read and each call, so it always waits for the latest
    /// deadline.
    pub(super) async fn ending(&self) -> Ending {
        let mut replaced = pin!(self.replaced.notified());
        let mut leaves = pin!(self.leaves.cancelled());
        let mut waiting = pin!(sleep_until(Instant::now()));
        poll_fn(|context| {
            if replaced.as_mut().poll(context).is_ready() && self.quiet().is_some() {
                return Poll::Ready(self.close(SHORT_GOAWAY_TIME));
            }
            if !self.is_closing() && leaves.as_mut().poll(context).is_ready() {
                return Poll::Ready(self.close(GOAWAY_TIME));
            }
            if self.is_excessive() {
                return Poll::Ready(self.close(SHORT_GOAWAY_TIME));
            }
            let Some((deadline, ending)) = self.deadline() else {
                return Poll::Pending;
            };
            if waiting.deadline() != deadline {
                waiting.as_mut().reset(deadline);
            }
            waiting.as_mut().poll(context).map(|()| match ending {
                Ending::Close => self.close(GOAWAY_TIME),
                Ending::Drop => Ending::Drop,
            })
        })
        .await
    }

    fn is_closing(&self) -> bool {
        self.lock().closing.is_some()
    }

    /// Whether the client has sent too much without a call.
    fn is_excessive(&self) -> bool {
        let state = self.lock();
        // The rest of an HTTP/1.1 body can follow the response, and hyper ends that.
        let is_http2 = matches!(self.protocol, Protocol::Http2 { .. });
        is_http2 && state.closing.is_none() && state.without_call > MAX_WITHOUT_CALL
    }

    /// When and how the connection ends if nothing happens. Never while there is a call.
    fn deadline(&self) -> Option<(Instant, Ending)> {
        let state = self.lock();
        if state.calls > 0 {
            return None;
        }
        if let Some((since, time)) = state.closing {
            return Some((since.max(state.quiet_since) + time, Ending::Drop));
        }
        let (begun, time, ending) = match self.protocol {
            Protocol::Http2 { .. } if state.received < PREFACE => {
                (state.quiet_since, HEAD_TIME, Ending::Drop)
            }
            Protocol::Http2 { .. } => (state.quiet_since, IDLE_TIME, Ending::Close),
            Protocol::Http1 { keep_alive } => match state.head_since {
                Some(since) => (since, HEAD_TIME, Ending::Drop),
                None if state.has_served => (state.quiet_since, keep_alive, Ending::Drop),
                None => (state.quiet_since, HEAD_TIME, Ending::Drop),
            },
        };
        Some((begun + time, ending))
    }

    /// Begins to close: the client has `time` to agree after its last call.
    fn close(&self, time: Duration) -> Ending {
        let mut state = self.lock();
        let speaks = match self.protocol {
            Protocol::Http1 { .. } => false,
            Protocol::Http2 { .. } => state.received >= PREFACE,
        };
        if state.calls == 0 && !speaks {
            return Ending::Drop;
        }
        state.closing = Some((Instant::now(), time));
        Ending::Close
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A std mutex: held for a few instructions, never across an await.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::{advance, timeout};

    use super::*;

    const KEEP_ALIVE: Duration = Duration::from_secs(75);
    const HTTP1: Protocol = Protocol::Http1 {
        keep_alive: KEEP_ALIVE,
    };
    const HTTP2: Protocol = Protocol::Http2 {
        stream_window: 65_535,
        max_concurrent_streams: 1,
    };

    /// After how long, and how, a connection ends.
    async fn end_of(activity: &Activity) -> (Duration, Ending) {
        let begun = Instant::now();
        let ending = activity.ending().await;
        (begun.elapsed(), ending)
    }

    async fn never_ends(activity: &Activity) -> bool {
        let day = Duration::from_secs(24 * 60 * 60);
        timeout(day, activity.ending()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_sends_nothing_is_dropped_after_ten_seconds() {
        for protocol in [HTTP1, HTTP2] {
            let (after, ending) = end_of(&Activity::new(protocol)).await;
            assert_eq!((after.as_secs(), ending), (10, Ending::Drop));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_is_dropped_ten_seconds_after_its_first_byte() {
        let activity = Activity::new(HTTP1);
        activity.begin_call();
        activity.end_call();
        advance(Duration::from_secs(60)).await;
        activity.receive(1);
        advance(Duration::from_secs(5)).await;
        activity.receive(1);
        let (after, ending) = end_of(&activity).await;
        assert_eq!((after.as_secs(), ending), (5, Ending::Drop));
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_preface_is_dropped_after_ten_seconds() {
        let activity = Activity::new(HTTP2);
        activity.receive(PREFACE - 1);
        let (after, ending) = end_of(&activity).await;
        assert_eq!((after.as_secs(), ending), (10, Ending::Drop));
    }

    #[tokio::test(start_paused = true)]
    async fn http1_is_kept_alive_between_requests() {
        let activity = Activity::new(HTTP1);
        activity.receive(100);
        activity.begin_call();
        activity.end_call();
        let (after, ending) = end_of(&activity).await;
        assert_eq!((after, ending), (KEEP_ALIVE, Ending::Drop));
    }

    #[tokio::test(start_paused = true)]
    async fn http2_without_a_call_gets_goaway_after_an_hour_and_time_to_answer_it() {
        let activity = Activity::new(HTTP2);
        activity.receive(PREFACE);
        let (after, ending) = end_of(&activity).await;
        assert_eq!((after, ending), (IDLE_TIME, Ending::Close));
        let (after, ending) = end_of(&activity).await;
        assert_eq!((after, ending), (GOAWAY_TIME, Ending::Drop));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_much_without_a_call_loses_its_connection() {
        let activity = Activity::new(HTTP2);
        activity.receive(MAX_WITHOUT_CALL);
        activity.begin_call();
        activity.receive(MAX_WITHOUT_CALL + 1);
        activity.end_call();
        activity.receive(MAX_WITHOUT_CALL);
        assert!(activity.ending().now_or_never().is_none());
        activity.receive(1);
        let (after, ending) = end_of(&activity).await;
        assert_eq!((after, ending), (Duration::ZERO, Ending::Close));
        let (after, ending) = end_of(&activity).await;
        assert_eq!((after, ending), (SHORT_GOAWAY_TIME, Ending::Drop));
        let activity = Activity::new(HTTP1);
        activity.begin_call();
        activity.end_call();
        activity.receive(MAX_WITHOUT_CALL + 1);
        assert!(activity.ending().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_call_keeps_its_connection() {
        for protocol in [HTTP1, HTTP2] {
            let activity = Activity::new(protocol);
            activity.receive(PREFACE);
            activity.begin_call();
            assert!(never_ends(&activity).await);
            assert_eq!(activity.stop(), Ending::Close);
            assert!(never_ends(&activity).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_drops_silent_connections_at_once_and_others_after_a_second() {
        assert_eq!(Activity::new(HTTP2).stop(), Ending::Drop);
        assert_eq!(Activity::new(HTTP1).stop(), Ending::Drop);
        let activity = Activity::new(HTTP2);
        activity.receive(PREFACE);
        assert_eq!(activity.stop(), Ending::Close);
        let (after, ending) = end_of(&activity).await;
        assert_eq!((after, ending), (SHORT_GOAWAY_TIME, Ending::Drop));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_left_closes_once_and_ends_after_its_last_call() {
        let activity = Activity::new(HTTP2);
        activity.receive(PREFACE);
        activity.begin_call();
        activity.leaves().cancel();
        let (after, ending) = end_of(&activity).await;
        assert_eq!((after, ending), (Duration::ZERO, Ending::Close));
        assert!(never_ends(&activity).await);
        activity.end_call();
        let (after, ending) = end_of(&activity).await;
        assert_eq!((after, ending), (GOAWAY_TIME, Ending::Drop));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_connection_ends_only_without_a_call() {
        let activity = Activity::new(HTTP1);
        activity.begin_call();
        activity.replace();
        assert!(never_ends(&activity).await);
        activity.end_call();
        activity.replace();
        let (after, ending) = end_of(&activity).await;
        assert_eq!((after, ending), (Duration::ZERO, Ending::Drop));
    }
}
