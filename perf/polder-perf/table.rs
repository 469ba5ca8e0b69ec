//! Tables for a terminal and for a report alike: Markdown, its columns aligned.

/// A table with its head.
pub(crate) fn markdown(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells.zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        format!("| {} |", padded.join(" | "))
    };
    let rule = format!("|{}|", widths.iter().map(|w| "-".repeat(w + 1) + ":").collect::<Vec<_>>().join("|"));
    let mut lines = vec![line(&mut head.iter().copied()), rule];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let table = markdown(&["size", "Mpps"], &[vec!["60".into(), "26.15".into()]]);
        assert_eq!(table, "| size |  Mpps |\n|-----:|------:|\n|   60 | 26.15 |");
    }
}
