//! What is logged of uploads that the sweeper ends.

use super::{
    common::Log,
    world::{DAY, HOUR, PART, embedded, sweep},
};

#[tokio::test]
async fn an_upload_that_the_sweeper_ends_has_one_line() {
    let world = embedded().await;
    let gateway = world.gateway().await;
    let left = world.interrupted(&gateway, PART + 1).await;
    world.clock.advance(DAY + HOUR);
    let log = Log::begin();
    assert_eq!(sweep(&gateway).await.expired, 1);
    world.clock.advance(9 * DAY);
    sweep(&gateway).await;
    let lines = log.lines(&left.id.to_string());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("result=\"expired\""), "{lines:?}");
}
