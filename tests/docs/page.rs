//! The pages of the documentation, as sections, fences, tables and links.

use std::{fs, path::Path};

use super::run::repository;

/// A file of the documentation.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its path from the repository's root, `docs/cli.md`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    pub(crate) language: String,
    pub(crate) text: String,
}

/// All pages: the Markdown files of the root and of `docs/`.
pub(crate) fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    for directory in ["", "docs/"] {
        for entry in fs::read_dir(repository().join(directory)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if Path::new(&name).extension().is_some_and(|is| is == "md") {
                pages.push(Page::read(&format!("{directory}{name}")));
            }
        }
    }
    pages.sort_by(|one, other| one.path.cmp(&other.path));
    pages
}

pub(crate) fn fences(text: &str) -> Vec<Fence> {
    let mut fences = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text = lines.by_ref().take_while(|line| *line != "```");
            fences.push(Fence {
                language: language.to_owned(),
                text: text.map(|line| format!("{line}\n")).collect(),
            });
        }
    }
    fences
}

/// The text in the first pair of backticks.
pub(crate) fn code(cell: &str) -> Option<&str> {
    cell.split('`').nth(1)
}

/// The lines of `text` that are outside of fences.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_fence = false;
    text.lines().filter(move |line| {
        let is_mark = line.starts_with("```");
        in_fence ^= is_mark;
        !in_fence && !is_mark
    })
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter_map(|character| match character {
            ' ' => Some('-'),
            '-' | '_' => Some(character),
            _ => character.is_alphanumeric().then_some(character),
        })
        .collect()
}

fn cells(row: &str) -> Vec<String> {
    // A bar inside a cell is written `\|`.
    let row = row.replace("\\|", "\0");
    let row = row.trim().trim_start_matches('|');
    let row = row.strip_suffix('|').unwrap_or(row);
    row.split('|')
        .map(|cell| cell.trim().replace('\0', "|"))
        .collect()
}

// === impl Page ===

impl Page {
    pub(crate) fn read(path: &str) -> Self {
        let text = fs::read_to_string(repository().join(path));
        Self {
            path: path.to_owned(),
            text: text.unwrap_or_else(|error| panic!("read {path}: {error}")),
        }
    }

    /// The headings of the first two levels and the text below each, subsections included.
    pub(crate) fn sections(&self) -> Vec<(&str, &str)> {
        let mut sections = Vec::new();
        for piece in self.text.split("\n## ") {
            sections.push(piece.split_once('\n').unwrap_or((piece, "")));
        }
        sections
    }

    /// The section under the second-level heading.
    pub(crate) fn section(&self, heading: &str) -> &str {
        let sections = self.sections();
        let found = sections.iter().find(|(found, _)| *found == heading);
        found
            .unwrap_or_else(|| panic!("{} has no section {heading}", self.path))
            .1
    }

    /// The rows of the table that begins with these columns, without its head, wherever it is on the page. An empty first
    /// cell repeats the one above.
    pub(crate) fn table(&self, columns: &[&str]) -> Vec<Vec<String>> {
        let lines = prose(&self.text).skip_while(|line| {
            !line.starts_with('|') || !cells(line).iter().take(columns.len()).eq(columns)
        });
        let mut rows: Vec<Vec<String>> = lines
            .take_while(|line| line.starts_with('|'))
            .skip(2)
            .map(cells)
            .collect();
        assert!(!rows.is_empty(), "{} has no table {columns:?}", self.path);
        for index in 1..rows.len() {
            if rows[index][0].is_empty() {
                rows[index][0] = rows[index - 1][0].clone();
            }
        }
        rows
    }

    /// The targets of all links outside of code.
    pub(crate) fn links(&self) -> Vec<String> {
        let mut links = Vec::new();
        for line in prose(&self.text) {
            // Every other piece is code, or the text of a link that is code; targets are never.
            for piece in line.split("](").skip(1) {
                if let Some((target, _)) = piece.split_once(')') {
                    links.push(target.to_owned());
                }
            }
        }
        links
    }

    /// The anchors of its headings.
    pub(crate) fn anchors(&self) -> Vec<String> {
        prose(&self.text)
            .filter(|line| line.starts_with('#'))
            .map(|line| anchor(line.trim_start_matches('#').trim_start()))
            .collect()
    }
}
