//! Log lines on standard error.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{task::JoinHandle, time::sleep};
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    registry,
    reload::{self, Handle},
    util::SubscriberInitExt,
};
use upload_gateway_core::escape::{escaped, escaped_with_colours};

use crate::config::{Log, LogFormat};

/// Writes each event as one line, whatever text of callers and stores it has.
struct OneLine<W> {
    output: W,
    has_colours: bool,
}

/// What the process logs. It can be changed for a limited time.
#[derive(Debug, Clone)]
pub struct LogFilter {
    handle: Handle<Targets, Registry>,
    configured: Targets,
    /// Sets the configured filter again later.
    later: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// What is wrong with a filter.
#[derive(Debug)]
pub(crate) struct InvalidFilter(pub(crate) &'static str);

/// Sends log lines to standard error, as `log` configures. A process can call it once.
///
/// # Errors
/// The filter is invalid, or it is the second call.
pub fn init(log: &Log) -> Result<LogFilter, Box<dyn std::error::Error + Send + Sync>> {
    let configured: Targets = log.filter.parse()?;
    let (filter, handle) = reload::Layer::new(configured.clone());
    let lines = match log.format {
        // JSON escapes control characters itself.
        LogFormat::Json => fmt::layer().with_writer(io::stderr).json().boxed(),
        // The default on a terminal: with colours, unless NO_COLOR is set.
        LogFormat::Text if io::stderr().is_terminal() => fmt::layer()
            .with_writer(|| OneLine::to_stderr(true))
            .boxed(),
        LogFormat::Text => {
            let lines = fmt::layer().with_ansi(false);
            lines.with_writer(|| OneLine::to_stderr(false)).boxed()
        }
    };
    registry().with(filter).with(lines).try_init()?;
    Ok(LogFilter {
        handle,
        configured,
        later: Arc::default(),
    })
}

// === impl LogFilter ===

impl LogFilter {
    /// Logs what `filter` selects, for `time`, and then again what the configuration selects.
    ///
    /// # Errors
    /// The filter is invalid, or shows credentials.
    pub(crate) fn set(&self, filter: &str, time: Duration) -> Result<(), InvalidFilter> {
        let Ok(filter) = filter.parse::<Targets>() else {
            return Err(InvalidFilter(
                "must be a level, or levels by module: info,upload_gateway=debug",
            ));
        };
        // Libraries log the headers of requests at this level.
        if filter.iter().any(|(_, level)| level > LevelFilter::DEBUG)
            || filter.default_level() > Some(LevelFilter::DEBUG)
        {
            return Err(InvalidFilter(
                "must be debug or less: trace shows credentials",
            ));
        }
        self.apply(filter);
        let this = self.clone();
        self.replace_later(Some(tokio::spawn(async move {
            sleep(time).await;
            this.apply(this.configured.clone());
        })));
        Ok(())
    }

    /// Logs what the configuration selects, and returns that filter.
    pub(crate) fn reset(&self) -> &Targets {
        self.replace_later(None);
        self.apply(self.configured.clone());
        &self.configured
    }

    fn apply(&self, filter: Targets) {
        // Fails only if there is no subscriber any more, and so no log.
        let _ = self.handle.reload(filter);
    }

    fn replace_later(&self, later: Option<JoinHandle<()>>) {
        let mut current = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = std::mem::replace(&mut *current, later) {
            earlier.abort();
        }
    }
}

// === impl OneLine ===

impl OneLine<io::Stderr> {
    fn to_stderr(has_colours: bool) -> Self {
        Self {
            output: io::stderr(),
            has_colours,
        }
    }
}

impl<W: Write> Write for OneLine<W> {
    /// Takes a whole event, which is how it is called.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = match self.has_colours {
            true => escaped_with_colours(line),
            false => escaped(line),
        };
        self.output.write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        for (has_colours, expected) in [
            (false, "no upload x\\n2026 ERROR\\u{1b}\n"),
            (true, "no upload x\\n2026 ERROR\u{1b}\n"),
        ] {
            let mut lines = OneLine {
                output: Vec::new(),
                has_colours,
            };
            lines.write_all(b"no upload x\n2026 ERROR\x1b\n").unwrap();
            assert_eq!(String::from_utf8(lines.output).unwrap(), expected);
        }
    }
}
