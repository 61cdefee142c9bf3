//! The README as sections, fences and tables.

pub(crate) const README: &str = include_str!("../../README.md");

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    pub(crate) language: String,
    pub(crate) text: String,
}

/// The section under the second-level heading.
pub(crate) fn section(heading: &str) -> &'static str {
    let begin = README
        .find(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("no section {heading}"));
    let section = &README[begin + 1..];
    section
        .split_once("\n## ")
        .map_or(section, |(section, _)| section)
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

/// The cells of the section's first table, without its head. An empty first cell repeats the one above.
pub(crate) fn table(heading: &str) -> Vec<Vec<String>> {
    let rows = section(heading)
        .lines()
        .skip_while(|line| !line.starts_with('|'));
    let mut rows: Vec<Vec<String>> = rows
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect();
    for index in 1..rows.len() {
        if rows[index][0].is_empty() {
            rows[index][0] = rows[index - 1][0].clone();
        }
    }
    rows
}
