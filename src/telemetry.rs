//! Log lines on standard error.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::{
    Layer, filter::Targets, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt,
};
use upload_gateway_core::escape::{escaped, escaped_with_colours};

use crate::config::{Log, LogFormat};

/// Writes each event as one line, whatever text of callers and stores it has.
struct OneLine<W> {
    output: W,
    has_colours: bool,
}

/// Sends log lines to standard error, as `log` configures. A process can call it once.
///
/// # Errors
/// The filter is invalid, or it is the second call.
pub fn init(log: &Log) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter: Targets = log.filter.parse()?;
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
    Ok(registry().with(filter).with(lines).try_init()?)
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
