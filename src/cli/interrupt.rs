//! What ends a command from outside.

use std::{future::pending, io, process};

use tokio::sync::mpsc;

use super::signals::Signals;

/// The first signal of a client command.
#[derive(Debug)]
pub(super) struct Interrupts(mpsc::Receiver<&'static str>);

// === impl Interrupts ===

impl Interrupts {
    /// From now on the first signal is the command's, and the second one ends the process at once, whatever the command waits
    /// for then: its exit code is 128 and the number of the signal.
    pub(super) fn listen() -> io::Result<Self> {
        let mut signals = Signals::of_client()?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let (name, _) = signals.received().await;
            // The command may have ended.
            let _ = sender.send(name).await;
            let (_, number) = signals.received().await;
            process::exit(128 + number);
        });
        Ok(Self(receiver))
    }

    /// Waits for the first signal, and returns its name.
    pub(super) async fn next(&mut self) -> &'static str {
        match self.0.recv().await {
            Some(name) => name,
            None => pending().await,
        }
    }
}
