//! What is logged in a test that runs on one thread.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tracing::{Dispatch, dispatcher::DefaultGuard};

/// What was logged since it began, until it is dropped.
#[derive(Debug)]
pub struct Log {
    text: Text,
    _guard: DefaultGuard,
    /// If there is one subscriber only, tracing asks the thread that first reaches a line whether it is logged at all: it can be
    /// that of another test.
    _other: Dispatch,
}

#[derive(Debug, Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

// === impl Log ===

impl Log {
    pub fn begin() -> Self {
        let text = Text::default();
        let dispatch = || {
            let writer = text.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || writer.clone());
            Dispatch::new(subscriber.finish())
        };
        Self {
            _other: dispatch(),
            _guard: tracing::dispatcher::set_default(&dispatch()),
            text,
        }
    }

    /// The lines that contain this text.
    pub fn lines(&self, text: &str) -> Vec<String> {
        let log = String::from_utf8(self.text.0.lock().unwrap().clone()).unwrap();
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }
}

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
