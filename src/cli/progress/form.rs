//! What the bars look like, by the width of the terminal.

use std::{
    borrow::Cow,
    io::{IsTerminal, stderr},
};

use console::{Term, measure_text_width};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use upload_gateway_core::escape::escaped;

use super::Files;

/// A terminal with fewer columns gets no bar, only numbers.
const NARROW: u16 = 70;

/// Whether standard error is a terminal that can move its cursor.
pub(super) fn has_bars() -> bool {
    stderr().is_terminal() && !console::is_dumb()
}

/// The bar of one file.
pub(super) fn file_bar(files: Files, name: &str, size: Option<u64>) -> ProgressBar {
    let template = match (files, size, is_narrow()) {
        (Files::One, Some(_), false) => {
            "{wide_bar} {bytes} of {total_bytes} {binary_bytes_per_sec} ETA {eta} {msg}"
        }
        (Files::One, Some(_), true) => "{percent:>3}% {binary_bytes_per_sec} ETA {eta} {msg}",
        (Files::One, None, false) => "{spinner} {bytes} {binary_bytes_per_sec} {elapsed} {msg}",
        (Files::One, None, true) => "{spinner} {bytes} {binary_bytes_per_sec} {msg}",
        (Files::Many, Some(_), false) => "{prefix:30} {wide_bar} {bytes} of {total_bytes} {msg}",
        (Files::Many, Some(_), true) => "{percent:>3}% {prefix:20} {msg}",
        (Files::Many, None, _) => "{spinner} {prefix:20} {bytes} {msg}",
    };
    let columns = match size {
        Some(_) if !is_narrow() => 30,
        _ => 20,
    };
    let name = escaped(name);
    bar(template, size).with_prefix(end_of(&name, columns).into_owned())
}

/// The bar of all files.
pub(super) fn total_bar() -> ProgressBar {
    let template = if is_narrow() {
        "{prefix} {binary_bytes_per_sec} ETA {eta}"
    } else {
        "{prefix} {wide_bar} {bytes} of {total_bytes} {binary_bytes_per_sec} ETA {eta}"
    };
    bar(template, Some(0))
}

fn bar(template: &str, size: Option<u64>) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(size, ProgressDrawTarget::hidden()).with_style(style)
}

/// The end of a path, in which paths of the same directory differ, in that many columns.
fn end_of(path: &str, columns: usize) -> Cow<'_, str> {
    if measure_text_width(path) <= columns {
        return path.into();
    }
    let mut rest = path.chars();
    while measure_text_width(rest.as_str()) >= columns && rest.next().is_some() {}
    format!("…{}", rest.as_str()).into()
}

fn is_narrow() -> bool {
    Term::stderr().size().1 < NARROW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_are_cut_at_their_beginning() {
        for (path, shown) in [
            ("a/b.bin", "a/b.bin"),
            ("directory/b.bin", "…ory/b.bin"),
            ("directory/写真.bin", "…/写真.bin"),
        ] {
            assert_eq!(end_of(path, 10), shown);
        }
    }
}
