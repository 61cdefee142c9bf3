//! The subscription to takeovers and changes: one dedicated connection for the process, replaced whenever it breaks.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use redis::{
    Msg, RedisResult,
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

/// A channel, and who is notified of its messages.
pub(super) struct Channel<T> {
    pub(super) name: String,
    pub(super) listeners: T,
}

/// Reports what is published on the channels; never returns.
pub(super) async fn follow(
    link: Arc<Link>,
    takeovers: Channel<Takeovers>,
    changes: Channel<Changes>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        match subscribe(&link, &takeovers.name).await {
            Ok(mut subscription) => {
                pause = FIRST_PAUSE;
                // Messages published before the subscription are lost, so every watcher must read its record.
                takeovers.listeners.notify_all();
                match subscription.subscribe(&changes.name).await {
                    Ok(()) => changes.listeners.set_connected(true),
                    Err(error) => {
                        tracing::warn!(%error, "cannot subscribe to changes: watched uploads are read every second");
                    }
                }
                let (sink, messages) = subscription.split();
                deliver(sink, messages, &takeovers.listeners, &changes).await;
                changes.listeners.set_connected(false);
                tracing::debug!("the subscription to takeovers broke; subscribe again");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot subscribe to takeovers: until that works, a stream that is taken over ends only with its next part");
            }
        }
        sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

async fn subscribe(link: &Link, channel: &str) -> RedisResult<PubSub> {
    let mut subscription = link.subscription().await?;
    subscription.subscribe(channel).await?;
    Ok(subscription)
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
