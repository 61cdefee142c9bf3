//! Rows in columns, which fit into a terminal.

use console::{Alignment, measure_text_width, pad_str, style, truncate_str};

/// The columns between two cells.
const GAP: usize = 2;

/// The fewest columns of the terminal that the last column needs, so that others are left out for it.
const MIN_LAST: usize = 12;

/// A column of a table.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) alignment: Alignment,
    /// Where it is left out if the terminal is narrow: the column with the largest number first. 0: never.
    pub(super) optional: u8,
}

/// Where the columns of a table are. The last column has the rest of the width.
#[derive(Debug)]
pub(super) struct Layout<const N: usize> {
    columns: &'static [Column; N],
    /// The width of each column. `None` if it is left out.
    widths: [Option<usize>; N],
    /// The width of the terminal. `None`: any.
    terminal: Option<usize>,
}

// === impl Column ===

impl Column {
    pub(super) const fn left(title: &'static str, optional: u8) -> Self {
        Self {
            title,
            alignment: Alignment::Left,
            optional,
        }
    }

    pub(super) const fn right(title: &'static str, optional: u8) -> Self {
        Self {
            alignment: Alignment::Right,
            ..Self::left(title, optional)
        }
    }
}

// === impl Layout ===

impl<const N: usize> Layout<N> {
    /// A layout for these rows. Others can follow; wider cells move what is right of them.
    pub(super) fn new(
        columns: &'static [Column; N],
        rows: &[[String; N]],
        terminal: Option<usize>,
    ) -> Self {
        let widest = |index: usize| {
            let cells = rows.iter().map(|row| measure_text_width(&row[index]));
            cells.max().unwrap_or(0).max(columns[index].title.len())
        };
        let mut layout = Self {
            columns,
            widths: std::array::from_fn(|index| Some(widest(index))),
            terminal,
        };
        while let Some(index) = layout.superfluous() {
            layout.widths[index] = None;
        }
        layout
    }

    /// The layout without the column with this index.
    pub(super) fn without(mut self, index: usize) -> Self {
        self.widths[index] = None;
        self
    }

    /// The titles of the columns.
    pub(super) fn header(&self) -> String {
        let titles = self
            .columns
            .each_ref()
            .map(|column| column.title.to_owned());
        style(self.line(&titles)).bold().to_string()
    }

    /// A row. If it is wider than the terminal, its last cell is cut.
    pub(super) fn line(&self, row: &[String; N]) -> String {
        let mut line = String::new();
        for (index, (cell, column)) in row.iter().zip(self.columns).enumerate() {
            let Some(width) = self.widths[index] else {
                continue;
            };
            let is_last = index + 1 == N;
            if !is_last {
                line += &pad_str(cell, width, column.alignment, None);
                line += &" ".repeat(GAP);
                continue;
            }
            match self.terminal {
                Some(terminal) => {
                    let rest = terminal.saturating_sub(measure_text_width(&line)).max(1);
                    line += &truncate_str(cell, rest, "…");
                }
                None => line += cell,
            }
        }
        line.truncate(line.trim_end().len());
        line
    }

    /// The column to leave out next, if the others are too wide for the last one.
    fn superfluous(&self) -> Option<usize> {
        let others = &self.widths[..N - 1];
        let others: usize = others.iter().flatten().map(|width| width + GAP).sum();
        let last = self.widths[N - 1].unwrap_or(0).min(MIN_LAST);
        if others + last <= self.terminal? {
            return None;
        }
        let shown = (0..N).filter(|index| self.widths[*index].is_some());
        let optional = shown.filter(|index| self.columns[*index].optional > 0);
        optional.max_by_key(|index| self.columns[*index].optional)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::left("ID", 0),
        Column::right("SIZE", 1),
        Column::left("CREATED", 2),
        Column::left("NAME", 0),
    ];

    fn lines(terminal: Option<usize>) -> Vec<String> {
        let rows = [
            ["0123456789", "1 B", "2026-01-31", "später.bin"],
            [
                "abcd",
                "12.0 MiB",
                "5 min ago",
                "图片图片图片图片图片图片图片图片图片.png",
            ],
        ];
        let rows = rows.map(|row| row.map(str::to_owned));
        let layout = Layout::new(&COLUMNS, &rows, terminal);
        let titles = COLUMNS.each_ref().map(|column| column.title.to_owned());
        let lines = [layout.line(&titles)].into_iter();
        lines
            .chain(rows.iter().map(|row| layout.line(row)))
            .collect()
    }

    #[test]
    fn a_wide_terminal_has_every_column() {
        let expected = [
            "ID              SIZE  CREATED     NAME",
            "0123456789       1 B  2026-01-31  später.bin",
            "abcd        12.0 MiB  5 min ago   图片图片图片图片图片图片图片图片图片.png",
        ];
        assert_eq!(lines(Some(200)), expected);
        assert_eq!(lines(Some(80)), expected);
        assert_eq!(lines(None), expected);
    }

    #[test]
    fn a_narrow_terminal_cuts_names_and_leaves_out_columns() {
        let expected = [
            "ID              SIZE  NAME",
            "0123456789       1 B  später.bin",
            "abcd        12.0 MiB  图片图片图片图片…",
        ];
        assert_eq!(lines(Some(40)), expected);
        let expected = [
            "ID          NAME",
            "0123456789  später.bin",
            "abcd        图片图片图片…",
        ];
        assert_eq!(lines(Some(25)), expected);
        for width in 20..90 {
            for line in lines(Some(width)) {
                assert!(measure_text_width(&line) <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn a_table_without_rows_has_a_header() {
        let layout = Layout::new(&COLUMNS, &[], None).without(1);
        assert_eq!(
            console::strip_ansi_codes(&layout.header()),
            "ID  CREATED  NAME"
        );
    }
}
