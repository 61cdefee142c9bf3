//! The signals that end a command.

use std::{future::pending, io, process};

use tokio::sync::mpsc;

/// SIGINT, SIGTERM and SIGHUP. Those that were ignored when the process started stay ignored, as `nohup` needs it. On Windows
/// Ctrl-C.
#[derive(Debug)]
pub(super) struct Interrupts(mpsc::Receiver<&'static str>);

// === impl Interrupts ===

impl Interrupts {
    /// From now on the first signal is the command's, and the second one ends the process at once, whatever the command waits
    /// for then: its exit code is 128 and the number of the signal.
    pub(super) fn listen() -> io::Result<Self> {
        let mut signals = system::Signals::listen()?;
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

#[cfg(unix)]
mod system {
    use std::{fs, future::pending, io};

    use tokio::signal::unix::{Signal, SignalKind, signal};

    #[derive(Debug)]
    pub(super) struct Signals {
        interrupt: Option<Signal>,
        terminate: Option<Signal>,
        hang_up: Option<Signal>,
    }

    // === impl Signals ===

    impl Signals {
        pub(super) fn listen() -> io::Result<Self> {
            let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
            let ignored = ignored_signals(&status);
            let listen = |kind: SignalKind| {
                let bit = 1 << (kind.as_raw_value() - 1);
                (ignored & bit == 0).then(|| signal(kind)).transpose()
            };
            Ok(Self {
                interrupt: listen(SignalKind::interrupt())?,
                terminate: listen(SignalKind::terminate())?,
                hang_up: listen(SignalKind::hangup())?,
            })
        }

        /// The name and the number of the next signal.
        pub(super) async fn received(&mut self) -> (&'static str, i32) {
            tokio::select! {
                () = next(&mut self.interrupt) => ("SIGINT", SignalKind::interrupt().as_raw_value()),
                () = next(&mut self.terminate) => ("SIGTERM", SignalKind::terminate().as_raw_value()),
                () = next(&mut self.hang_up) => ("SIGHUP", SignalKind::hangup().as_raw_value()),
            }
        }
    }

    async fn next(signal: &mut Option<Signal>) {
        match signal {
            Some(signal) => {
                signal.recv().await;
            }
            None => pending().await,
        }
    }

    /// One bit for each ignored signal, from a file like `/proc/self/status`. 0 on systems without that file.
    fn ignored_signals(status: &str) -> u64 {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or_default()
    }
}

#[cfg(not(unix))]
mod system {
    use std::{future::pending, io};

    use tokio::signal::ctrl_c;

    #[derive(Debug)]
    pub(super) struct Signals;

    // === impl Signals ===

    impl Signals {
        pub(super) fn listen() -> io::Result<Self> {
            Ok(Self)
        }

        /// The name of Ctrl-C, and the number of the signal that it is on Unix.
        pub(super) async fn received(&mut self) -> (&'static str, i32) {
            // Without a console there is nothing to wait for.
            if ctrl_c().await.is_err() {
                pending::<()>().await;
            }
            ("Ctrl-C", 2)
        }
    }
}
