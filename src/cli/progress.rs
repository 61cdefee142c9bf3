//! The progress of an upload or a download: a bar on a terminal, otherwise lines.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;
use upload_gateway_client::{Event, proto::v1::Phase};
use upload_gateway_core::escape::escaped;

use super::{error::chain, output};
use crate::values::ByteSize;

/// The maximum time between two lines. A line is also printed for each tenth of the file.
const INTERVAL: Duration = Duration::from_secs(5);

const BAR: &str = "{wide_bar} {bytes} of {total_bytes} {binary_bytes_per_sec} ETA {eta} {msg}";
const SPINNER: &str = "{spinner} {bytes} {binary_bytes_per_sec} {elapsed} {msg}";

/// Prints the progress of one upload or download to standard error.
#[derive(Debug)]
pub(super) struct Reporter {
    form: Form,
    total: Option<u64>,
    upload_id: Option<String>,
}

#[derive(Debug)]
enum Form {
    Silent,
    Bar(ProgressBar),
    Lines {
        began: Instant,
        reported: Instant,
        tenth: u64,
    },
}

// === impl Reporter ===

impl Reporter {
    /// For a file of `total` bytes.
    pub(super) fn new(total: Option<u64>, silent: bool) -> Self {
        let now = Instant::now();
        let form = if silent {
            Form::Silent
        } else if stderr().is_terminal() {
            Form::Bar(bar(total))
        } else {
            Form::Lines {
                began: now,
                reported: now,
                tenth: 0,
            }
        };
        Self {
            form,
            total,
            upload_id: None,
        }
    }

    pub(super) fn report(&mut self, event: &Event<'_>) {
        match event {
            Event::Opened(upload) => {
                self.upload_id = Some(upload.upload_id.clone());
                let committed = u64::try_from(upload.committed_size).unwrap_or_default();
                if let Form::Bar(bar) = &self.form {
                    bar.set_message("");
                    bar.set_position(0);
                }
                if committed > 0 {
                    self.resume_from(committed);
                }
            }
            Event::Progress(progress) => {
                let received = progress.received_size.max(progress.committed_size);
                self.advance(u64::try_from(received).unwrap_or_default());
                if let Form::Bar(bar) = &self.form {
                    let is_committing = progress.phase() == Phase::Committing;
                    bar.set_message(if is_committing { "committing" } else { "" });
                }
            }
            Event::Retrying { cause, delay } => {
                let text = format!("{}; retrying in {:.1} s", chain(cause), delay.as_secs_f64());
                let text = escaped(&text).into_owned();
                match &self.form {
                    Form::Silent => {}
                    Form::Bar(bar) => bar.set_message(text),
                    Form::Lines { .. } => output::log(text),
                }
            }
        }
    }

    /// Removes the bar.
    pub(super) fn clear(&self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }

    /// Shows what happens before the first byte is sent.
    pub(super) fn prepare(&self, what: &'static str) {
        if let Form::Bar(bar) = &self.form {
            bar.set_message(what);
        }
    }

    /// The upload, as soon as the gateway has opened it.
    pub(super) fn upload_id(&self) -> Option<&str> {
        self.upload_id.as_deref()
    }

    /// Shows that this many bytes are there from an earlier call.
    pub(super) fn resume_from(&mut self, position: u64) {
        match &self.form {
            Form::Bar(bar) => {
                bar.set_position(position);
                // The rate and the ETA start again: these bytes took no time.
                bar.reset_eta();
            }
            Form::Lines { .. } => output::log(format_args!("resuming from byte {position}")),
            Form::Silent => {}
        }
    }

    /// Shows that this many bytes are there.
    pub(super) fn advance(&mut self, position: u64) {
        match &mut self.form {
            Form::Silent => {}
            Form::Bar(bar) => bar.set_position(position),
            Form::Lines {
                began,
                reported,
                tenth,
            } => {
                let now_tenth = self
                    .total
                    .filter(|total| *total > 0)
                    .map_or(0, |total| position * 10 / total);
                if now_tenth <= *tenth && reported.elapsed() < INTERVAL {
                    return;
                }
                *tenth = now_tenth;
                *reported = Instant::now();
                let rate = rate(position, began.elapsed());
                match self.total {
                    Some(total) => output::log(format_args!("{position} of {total} bytes, {rate}")),
                    None => output::log(format_args!("{position} bytes, {rate}")),
                }
            }
        }
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let template = if total.is_some() { BAR } else { SPINNER };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_style(style)
}

/// The rate in whole KiB per second.
fn rate(bytes: u64, elapsed: Duration) -> String {
    let millis = u64::try_from(elapsed.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let kib = bytes.saturating_mul(1000) / millis / 1024;
    format!("{}/s", ByteSize(kib * 1024))
}
