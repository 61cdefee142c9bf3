//! The signals of each system.

#[cfg(not(unix))]
pub(super) use self::other::Signals;
#[cfg(unix)]
pub(super) use self::unix::Signals;

#[cfg(unix)]
mod unix {
    use std::{fs, future::pending, io};

    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// The signals that end a command.
    #[derive(Debug)]
    pub(in crate::cli) struct Signals {
        interrupt: Option<Signal>,
        terminate: Option<Signal>,
        hang_up: Option<Signal>,
    }

    // === impl Signals ===

    impl Signals {
        /// SIGINT and SIGTERM.
        pub(in crate::cli) fn of_server() -> io::Result<Self> {
            Ok(Self {
                interrupt: Some(signal(SignalKind::interrupt())?),
                terminate: Some(signal(SignalKind::terminate())?),
                hang_up: None,
            })
        }

        /// SIGINT, SIGTERM and SIGHUP. Those that were ignored when the process started stay ignored, as `nohup` needs it.
        pub(in crate::cli) fn of_client() -> io::Result<Self> {
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
        pub(in crate::cli) async fn received(&mut self) -> (&'static str, i32) {
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
mod other {
    use std::{future::pending, io};

    use tokio::signal::ctrl_c;

    /// Ctrl-C.
    #[derive(Debug)]
    pub(in crate::cli) struct Signals;

    // === impl Signals ===

    impl Signals {
        #[expect(clippy::unnecessary_wraps, reason = "fails on Unix")]
        pub(in crate::cli) fn of_server() -> io::Result<Self> {
            Ok(Self)
        }

        pub(in crate::cli) fn of_client() -> io::Result<Self> {
            Self::of_server()
        }

        /// The name of Ctrl-C, and the number of the signal that it is on Unix.
        pub(in crate::cli) async fn received(&mut self) -> (&'static str, i32) {
            // Without a console there is nothing to wait for.
            if ctrl_c().await.is_err() {
                pending::<()>().await;
            }
            ("Ctrl-C", 2)
        }
    }
}
