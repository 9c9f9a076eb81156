//! Columns that line up.

use std::fmt;

/// A table of text. The first column stands left, the others right, unless said otherwise.
pub(super) struct Grid {
    title: &'static str,
    rows: Vec<Vec<String>>,
    left: Vec<usize>,
}

impl Grid {
    pub(super) fn new(title: &'static str, header: &[&str]) -> Grid {
        Grid { title, rows: vec![header.iter().map(|word| (*word).to_owned()).collect()], left: vec![0] }
    }

    /// This column stands left, too.
    pub(super) fn left(mut self, column: usize) -> Grid {
        self.left.push(column);
        self
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a row of `{}` has a cell for each column", self.title);
        self.rows.push(cells);
    }

    /// Nothing beyond its header.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        writeln!(f, "{}", self.title)?;
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let space = " ".repeat(width - cell.chars().count());
                line.push_str("  ");
                match self.left.contains(&column) {
                    true => line.extend([cell.as_str(), &space]),
                    false => line.extend([space.as_str(), cell]),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
