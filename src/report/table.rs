//! Aligned tables.

use std::fmt;

/// Rows of cells; the first row is the head. Numbers stand to the right, everything else to the left.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of these columns.
    pub(crate) fn new(head: &[&str]) -> Self {
        let mut table = Self::default();
        table.row(head.iter().map(ToString::to_string));
        table
    }

    /// Adds a row. Control characters, which a daemon or a guest may have had its hand in, are not let through.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|c| c.replace(char::is_control, "?")).collect());
    }

    fn column(&self, n: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().filter_map(move |row| row.get(n).map(String::as_str))
    }

    fn is_numeric(&self, n: usize) -> bool {
        self.column(n).skip(1).all(|cell| cell.is_empty() || cell == "-" || cell.parse::<f64>().is_ok())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |n| self.column(n).map(|c| c.chars().count()).max().unwrap_or(0);
        let layout: Vec<_> = (0..columns).map(|n| (width(n), self.is_numeric(n))).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, (width, numeric)) in row.iter().zip(&layout) {
                let cell = if *numeric { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
                line.push_str(&cell);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut t = Table::new(&["name", "packets"]);
        t.row(["a".to_owned(), "10".to_owned()]);
        t.row(["long\n".to_owned(), "7".to_owned()]);
        assert_eq!(t.to_string(), "name   packets\na           10\nlong?        7\n");
    }
}
