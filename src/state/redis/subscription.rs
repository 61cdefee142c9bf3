//! The subscription to takeovers and changes: one dedicated connection for the process, replaced whenever it breaks.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use redis::{
    ErrorKind, Msg, RedisError, RedisResult, ServerErrorKind,
    aio::{PubSub, PubSubSink, PubSubStream},
};
use tokio::time::{sleep, timeout};
use upload_gateway_core::state::{Changes, Takeovers};

use super::{connection::Link, record};

/// The first pause before the next attempt to subscribe; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long the connection may deliver nothing before it is tested with PING, and how long the reply may take.
const QUIET: Duration = Duration::from_secs(5);

/// How long a connection is used while a channel is not permitted. The next one shows whether it is permitted now.
const RECHECK: Duration = Duration::from_secs(60);

/// What is logged without a subscription to takeovers.
const NO_TAKEOVERS: &str = "cannot subscribe to takeovers: until that works, a stream that is taken over ends only with its next part";

/// What is logged without a subscription to changes.
const NO_CHANGES: &str =
    "cannot subscribe to changes: until that works, watched uploads are read every second";

/// A channel, and who is notified of its messages.
pub(super) struct Channel<T> {
    pub(super) name: String,
    pub(super) listeners: T,
}

/// A connection, and the channels that it is subscribed to.
struct Subscribed {
    connection: PubSub,
    takeovers: bool,
    changes: bool,
}

/// The problems that are in the log. A problem is logged at its first attempt only, until it is over.
#[derive(Default)]
struct Logged {
    takeovers: bool,
    changes: bool,
}

/// Reports what is published on the channels; never returns.
pub(super) async fn follow(
    link: Arc<Link>,
    takeovers: Channel<Takeovers>,
    changes: Channel<Changes>,
) {
    let mut pause = FIRST_PAUSE;
    let mut logged = Logged::default();
    loop {
        match subscribe(&link, &takeovers.name, &changes.name, &mut logged).await {
            Ok(subscribed) => {
                if subscribed.takeovers {
                    // Messages published before the subscription are lost, so every watcher must read its record.
                    takeovers.listeners.notify_all();
                }
                changes.listeners.set_connected(subscribed.changes);
                let (sink, messages) = subscribed.connection.split();
                let delivery = deliver(sink, messages, &takeovers.listeners, &changes);
                if subscribed.takeovers && subscribed.changes {
                    pause = FIRST_PAUSE;
                    delivery.await;
                } else {
                    let _ = timeout(RECHECK, delivery).await;
                }
                changes.listeners.set_connected(false);
                tracing::debug!("the subscription to takeovers and changes ended; subscribe again");
            }
            Err(error) => report_problem(&mut logged.takeovers, &error, NO_TAKEOVERS),
        }
        sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// Subscribes to both channels, or to the one that is permitted. Redis may permit neither: then the connection delivers
/// nothing.
async fn subscribe(
    link: &Link,
    takeovers: &str,
    changes: &str,
    logged: &mut Logged,
) -> RedisResult<Subscribed> {
    let mut connection = link.subscription().await?;
    let to_takeovers = permitted(connection.subscribe(takeovers).await)?;
    let to_changes = permitted(connection.subscribe(changes).await)?;
    match &to_takeovers {
        Ok(()) => logged.takeovers = false,
        Err(denied) => report_problem(&mut logged.takeovers, denied, NO_TAKEOVERS),
    }
    match &to_changes {
        Ok(()) => logged.changes = false,
        Err(denied) => report_problem(&mut logged.changes, denied, NO_CHANGES),
    }
    Ok(Subscribed {
        connection,
        takeovers: to_takeovers.is_ok(),
        changes: to_changes.is_ok(),
    })
}

/// Separates the refusal of a channel from failures of the connection, which are the error.
fn permitted(subscribed: RedisResult<()>) -> RedisResult<RedisResult<()>> {
    match subscribed {
        Err(error) if error.kind() != ErrorKind::Server(ServerErrorKind::NoPerm) => Err(error),
        settled => Ok(settled),
    }
}

/// Logs a problem, unless it `is_logged`.
fn report_problem(is_logged: &mut bool, error: &RedisError, problem: &'static str) {
    if std::mem::replace(is_logged, true) {
        tracing::debug!(%error, "{problem}");
    } else {
        tracing::warn!(%error, "{problem}");
    }
}

/// Returns when the connection breaks.
async fn deliver(
    mut sink: PubSubSink,
    mut messages: PubSubStream,
    takeovers: &Takeovers,
    changes: &Channel<Changes>,
) {
    loop {
        match timeout(QUIET, messages.next()).await {
            Ok(Some(message)) => report(&message, takeovers, changes),
            Ok(None) => return,
            Err(_) => match timeout(QUIET, sink.ping::<redis::Value>()).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return,
            },
        }
    }
}

/// Notifies the listeners of a message. Other messages are not ours and are ignored.
fn report(message: &Msg, takeovers: &Takeovers, changes: &Channel<Changes>) {
    let text: String = message.get_payload().unwrap_or_default();
    if message.get_channel_name() == changes.name {
        if let Ok(id) = text.parse() {
            changes.listeners.notify(&id);
        }
        return;
    }
    let (id, writer) = text.split_once(' ').unwrap_or_default();
    if let (Ok(id), Some(writer)) = (id.parse(), record::parse_writer(writer)) {
        takeovers.notify(&id, writer);
    }
}
