//! The subscription to takeovers: one connection of its own for the process, made again whenever it breaks.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use redis::{
    RedisResult,
    aio::{PubSub, PubSubSink, PubSubStream},
};
use tokio::time::{sleep, timeout};
use upload_gateway_core::state::Takeovers;

use super::{connection::Link, record};

/// The first pause before the subscription is made again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long the connection may be quiet before it is asked whether it still lives, and how long it has to answer.
const QUIET: Duration = Duration::from_secs(5);

/// Passes on to `takeovers` what is published on `channel`, for ever.
pub(super) async fn follow(link: Arc<Link>, channel: String, takeovers: Takeovers) {
    let mut pause = FIRST_PAUSE;
    loop {
        match subscribe(&link, &channel).await {
            Ok(subscription) => {
                pause = FIRST_PAUSE;
                // What was published meanwhile is lost.
                takeovers.notify_all();
                let (sink, messages) = subscription.split();
                pass_on(sink, messages, &takeovers).await;
                tracing::debug!("the subscription to takeovers broke");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot subscribe to takeovers: a stream that is taken over ends with its next part");
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

/// Ends when the connection does.
async fn pass_on(mut sink: PubSubSink, mut messages: PubSubStream, takeovers: &Takeovers) {
    loop {
        match timeout(QUIET, messages.next()).await {
            Ok(Some(message)) => {
                let text: String = message.get_payload().unwrap_or_default();
                let (id, writer) = text.split_once(' ').unwrap_or_default();
                // Anything else is nobody's notice.
                if let (Ok(id), Some(writer)) = (id.parse(), record::parse_writer(writer)) {
                    takeovers.notify(&id, writer);
                }
            }
            Ok(None) => return,
            Err(_) => match timeout(QUIET, sink.ping::<redis::Value>()).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return,
            },
        }
    }
}
