//! What is logged of uploads that the sweeper ends.

use std::{
    io,
    sync::{Arc, Mutex},
};

use super::world::{DAY, HOUR, PART, embedded, sweep};

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_upload_that_the_sweeper_ends_has_one_line() {
    let world = embedded().await;
    let gateway = world.gateway().await;
    let left = world.interrupted(&gateway, PART + 1).await;
    world.clock.advance(DAY + HOUR);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let guard = tracing::subscriber::set_default(subscriber.finish());
    assert_eq!(sweep(&gateway).await.expired, 1);
    world.clock.advance(9 * DAY);
    sweep(&gateway).await;
    drop(guard);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let id = left.id.to_string();
    let lines: Vec<_> = text.lines().filter(|line| line.contains(&id)).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(lines[0].contains("result=\"expired\""), "{text}");
}
