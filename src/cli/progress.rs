//! The progress of uploads and downloads on standard error: bars on a terminal, otherwise lines.

mod form;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use tokio::time::Instant;
use upload_gateway_client::{ClientError, Event, proto::v1::Phase};
use upload_gateway_core::escape::escaped;

use super::{
    error::{CliError, chain},
    output,
};
use crate::values::ByteSize;

/// The maximum time between two lines. For one file a line is also printed for each tenth of it.
const INTERVAL: Duration = Duration::from_secs(5);

/// How many files a command transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    One,
    Many,
}

/// The progress of a command. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Display {
    form: Form,
    files: Files,
    totals: Arc<Mutex<Totals>>,
}

#[derive(Debug, Clone)]
enum Form {
    Silent,
    /// A bar for each running file, and one for all of them if there are many.
    Bars(MultiProgress, Option<ProgressBar>),
    Lines,
}

/// What is known of many files.
#[derive(Debug)]
struct Totals {
    began: Instant,
    /// When the last line was printed.
    reported: Instant,
    found: u64,
    done: u64,
    /// The bytes that are to be transferred, of the files found so far.
    bytes: u64,
    transferred: u64,
}

/// The progress of one file.
#[derive(Debug)]
pub(super) struct Reporter {
    display: Display,
    form: FileForm,
    size: Option<u64>,
    position: u64,
    upload_id: Option<String>,
}

#[derive(Debug)]
enum FileForm {
    Silent,
    Bar(ProgressBar),
    Lines {
        began: Instant,
        reported: Instant,
        tenth: u64,
    },
}

/// A bar for something of `size` bytes that is no file of a command, if standard error is a terminal.
pub(super) fn bar(size: Option<u64>) -> Option<ProgressBar> {
    form::has_bars().then(|| {
        let bar = form::file_bar(Files::One, "", size);
        bar.set_draw_target(ProgressDrawTarget::stderr());
        bar
    })
}

// === impl Display ===

impl Display {
    pub(super) fn new(files: Files, silent: bool) -> Self {
        let form = if silent {
            Form::Silent
        } else if form::has_bars() {
            let bars = MultiProgress::new();
            let total = (files == Files::Many).then(|| bars.add(form::total_bar()));
            Form::Bars(bars, total)
        } else {
            Form::Lines
        };
        let now = Instant::now();
        let totals = Totals {
            began: now,
            reported: now,
            found: 0,
            done: 0,
            bytes: 0,
            transferred: 0,
        };
        Self {
            form,
            files,
            totals: Arc::new(Mutex::new(totals)),
        }
    }

    /// A file of `size` bytes is to be transferred, too.
    pub(super) fn expect(&self, size: Option<u64>) {
        self.update(|totals| {
            totals.found += 1;
            totals.bytes += size.unwrap_or_default();
        });
    }

    /// A file that was expected to have `expected` bytes has `size`.
    pub(super) fn resize(&self, expected: Option<u64>, size: Option<u64>) {
        self.update(|totals| {
            totals.bytes += size.unwrap_or_default();
            totals.bytes = totals.bytes.saturating_sub(expected.unwrap_or_default());
        });
    }

    /// A file is done, or has failed. Its `missing` bytes are no longer expected.
    pub(super) fn end(&self, missing: u64) {
        self.update(|totals| {
            totals.done += 1;
            totals.bytes = totals.bytes.saturating_sub(missing);
        });
    }

    /// Begins to show a file of `size` bytes.
    pub(super) fn file(&self, name: &str, size: Option<u64>) -> Reporter {
        let now = Instant::now();
        let form = match (&self.form, self.files) {
            (Form::Silent, _) | (Form::Lines, Files::Many) => FileForm::Silent,
            (Form::Bars(bars, total), _) => {
                let bar = form::file_bar(self.files, name, size);
                FileForm::Bar(match total {
                    Some(total) => bars.insert_before(total, bar),
                    None => bars.add(bar),
                })
            }
            (Form::Lines, Files::One) => FileForm::Lines {
                began: now,
                reported: now,
                tenth: 0,
            },
        };
        Reporter {
            display: self.clone(),
            form,
            size,
            position: 0,
            upload_id: None,
        }
    }

    /// Prints a line for people, above the bars.
    pub(super) fn log(&self, line: impl fmt::Display) {
        match &self.form {
            Form::Bars(bars, _) => bars.suspend(|| output::log(line)),
            Form::Silent | Form::Lines => output::log(line),
        }
    }

    /// Prints a line of data to standard output, above the bars.
    pub(super) fn data(&self, line: impl fmt::Display) -> Result<(), CliError> {
        match &self.form {
            Form::Bars(bars, _) => bars.suspend(|| output::data(line)),
            Form::Silent | Form::Lines => output::data(line),
        }
    }

    /// Removes the bars.
    pub(super) fn clear(&self) {
        if let Form::Bars(bars, total) = &self.form {
            if let Some(total) = total {
                total.finish_and_clear();
            }
            // A terminal that fails has no bars.
            let _ = bars.clear();
        }
    }

    /// The bytes that were transferred, and the time that it took.
    pub(super) fn transferred(&self) -> (u64, Duration) {
        let totals = self.totals();
        (totals.transferred, totals.began.elapsed())
    }

    fn update(&self, change: impl FnOnce(&mut Totals)) {
        let mut totals = self.totals();
        change(&mut totals);
        match &self.form {
            Form::Silent | Form::Bars(_, None) => {}
            Form::Bars(_, Some(total)) => {
                total.set_prefix(format!("{} of {} files", totals.done, totals.found));
                total.set_length(totals.bytes);
                total.set_position(totals.transferred);
            }
            Form::Lines if self.files == Files::One => {}
            Form::Lines => {
                if totals.reported.elapsed() >= INTERVAL {
                    totals.reported = Instant::now();
                    output::log(&*totals);
                }
            }
        }
    }

    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Totals ===

impl fmt::Display for Totals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, found) = (self.done, self.found);
        let sizes = [self.transferred, self.bytes].map(|size| ByteSize(size >> 10 << 10));
        let rate = rate(self.transferred, self.began.elapsed());
        let [transferred, bytes] = sizes;
        write!(
            formatter,
            "{done} of {found} files, {transferred} of {bytes}, {rate}"
        )
    }
}

// === impl Reporter ===

impl Reporter {
    pub(super) fn report(&mut self, event: Event) {
        match event {
            Event::Opened { upload, offset } => {
                self.upload_id = Some(upload.upload_id);
                if let FileForm::Bar(bar) = &self.form {
                    bar.set_message("");
                }
                if offset > 0 {
                    self.resume_from(offset);
                }
            }
            Event::Progress(progress) => {
                self.advance(progress.size());
                if let FileForm::Bar(bar) = &self.form {
                    let is_committing = progress.phase == Phase::Committing;
                    bar.set_message(if is_committing { "committing" } else { "" });
                }
            }
            Event::Retrying { cause, delay } => self.retry(&cause, delay),
        }
    }

    /// Shows what happens before the first byte is sent.
    pub(super) fn prepare(&self, what: &'static str) {
        if let FileForm::Bar(bar) = &self.form {
            bar.set_message(what);
        }
    }

    /// The upload, as soon as the gateway has opened it.
    pub(super) fn upload_id(&self) -> Option<&str> {
        self.upload_id.as_deref()
    }

    /// Shows that this many bytes are there from an earlier call.
    fn resume_from(&mut self, position: u64) {
        match &self.form {
            FileForm::Bar(bar) => {
                bar.set_position(position);
                // The rate and the ETA start again: these bytes took no time.
                bar.reset_eta();
            }
            FileForm::Lines { .. } => output::log(format_args!("resuming from byte {position}")),
            FileForm::Silent => {}
        }
        let added = position.saturating_sub(self.position);
        self.position = self.position.max(position);
        self.display
            .update(|totals| totals.bytes = totals.bytes.saturating_sub(added));
    }

    /// Shows that this many bytes are there.
    fn advance(&mut self, position: u64) {
        let added = position.saturating_sub(self.position);
        self.position = self.position.max(position);
        self.display.update(|totals| totals.transferred += added);
        match &mut self.form {
            FileForm::Silent => {}
            FileForm::Bar(bar) => bar.set_position(position),
            FileForm::Lines {
                began,
                reported,
                tenth,
            } => {
                let size = self.size.filter(|size| *size > 0);
                let now_tenth = size.map_or(0, |size| position.saturating_mul(10) / size);
                if now_tenth <= *tenth && reported.elapsed() < INTERVAL {
                    return;
                }
                *tenth = now_tenth;
                *reported = Instant::now();
                let rate = rate(position, began.elapsed());
                match self.size {
                    Some(size) => output::log(format_args!("{position} of {size} bytes, {rate}")),
                    None => output::log(format_args!("{position} bytes, {rate}")),
                }
            }
        }
    }

    fn retry(&self, cause: &ClientError, delay: Duration) {
        let text = format!("{}; retrying in {:.1} s", chain(cause), delay.as_secs_f64());
        match (&self.form, &self.display.form) {
            (FileForm::Bar(bar), _) => bar.set_message(escaped(&text).into_owned()),
            (_, Form::Lines) => output::log(text),
            _ => {}
        }
    }
}

impl Drop for Reporter {
    /// The file is done, or has failed. What was not transferred is no longer expected.
    fn drop(&mut self) {
        if let FileForm::Bar(bar) = &self.form {
            bar.finish_and_clear();
            if let Form::Bars(bars, _) = &self.display.form {
                bars.remove(bar);
            }
        }
        let missing = self.size.unwrap_or_default().saturating_sub(self.position);
        self.display.end(missing);
    }
}

/// The rate in whole KiB per second.
pub(super) fn rate(bytes: u64, elapsed: Duration) -> String {
    let millis = u64::try_from(elapsed.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let kib = bytes.saturating_mul(1000) / millis / 1024;
    format!("{}/s", ByteSize(kib * 1024))
}
