//! What goes to standard output.

use std::io::{self, ErrorKind, Write};

/// Writes results. A reader that has gone (`bazaar … | head`) is not a failure.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    reader_may_go(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Takes "broken pipe" for success.
pub fn reader_may_go(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// A text of others without what a terminal would take for a command: control characters, and what is not seen or turns the
/// direction of writing around, are written as Rust writes them, such as `\u{1b}`.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match is_plain(char) {
            true => shown.push(char),
            false => shown.extend(char.escape_debug()),
        }
    }
    shown
}

/// Whether it is shown as it is.
pub fn is_plain(char: char) -> bool {
    // Quotes would be escaped as well, and need not be.
    matches!(char, ' '..='~') || char.escape_debug().nth(1).is_none()
}

/// Lines of columns, each as wide as it must be.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

const GAP: &str = "  ";

impl Table {
    /// A table with nothing but these headings.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self {
            rows: vec![headings.map(str::to_owned).to_vec()],
        }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// The lines, each ended. Numbers and their headings stand to the right.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.cells(column).map(width).max().unwrap_or(0))
            .collect();
        let numeric: Vec<bool> = (0..columns)
            .map(|column| self.cells(column).skip(1).all(is_number))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let padding = " ".repeat(widths[column] - width(cell));
                if numeric[column] {
                    padding + cell
                } else {
                    cell.clone() + &padding
                }
            });
            let line = cells.collect::<Vec<_>>().join(GAP);
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &str> {
        self.rows
            .iter()
            .filter_map(move |row| row.get(column))
            .map(String::as_str)
    }
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

/// Also a number with a unit behind it, and the dash that stands for none.
fn is_number(cell: &str) -> bool {
    cell == "-"
        || cell.starts_with(|first: char| first.is_ascii_digit())
            && !cell.contains("://")
            && !cell.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_would_obey_is_left_of_a_text() {
        for (text, shown) in [
            (
                "plain \"quoted\" it's \\ fine",
                "plain \"quoted\" it's \\ fine",
            ),
            ("größer, 株, 🚀", "größer, 株, 🚀"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\r\nb\tc\0d\u{7f}", "a\\r\\nb\\tc\\0d\\u{7f}"),
            ("abc\u{202e}fed", "abc\\u{202e}fed"),
            ("zero\u{200b}width\u{feff}", "zero\\u{200b}width\\u{feff}"),
        ] {
            assert_eq!(escaped(text), shown);
        }
    }

    #[test]
    fn texts_stand_left_and_numbers_right() {
        let mut table = Table::new(["name", "count", "url"]);
        table.row(["a".to_owned(), "1,000".to_owned(), "http://x".to_owned()]);
        table.row(["long name".to_owned(), "7".to_owned(), String::new()]);
        assert_eq!(
            table.render(),
            "name       count  url\na          1,000  http://x\nlong name      7\n"
        );
    }
}
