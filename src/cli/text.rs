//! Numbers and tables as people read them. Paths, names of certificates and errors come from
//! others: what would affect the terminal is escaped.

use crate::config::printable;

/// Columns of one width each: the first `left` ones to the left, the others to the right.
pub(super) fn table<const N: usize>(rows: &[[String; N]], left: usize) -> String {
    let cell = |cell: &String| printable(cell.into()).into_owned();
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(cell)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text += "\n";
    }
    text
}

/// A text of several lines, each without what would affect a terminal.
pub(super) fn lines(text: &str) -> String {
    text.split('\n').map(|line| printable(line.into())).collect::<Vec<_>>().join("\n")
}

/// A size with its unit: `512 B`, `1.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A time with its two largest units: `3 d 4 h`.
pub(super) fn time(seconds: u64) -> String {
    let parts = [
        (seconds / 86400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let first = parts.iter().position(|(value, _)| *value > 0).unwrap_or(3);
    let shown = parts[first..].iter().take(2).map(|(value, unit)| format!("{value} {unit}"));
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_the_units_that_are_read_best() {
        assert_eq!(size(512), "512 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "16384.0 PiB");
        assert_eq!(time(0), "0 s");
        assert_eq!(time(61), "1 min 1 s");
        assert_eq!(time(3 * 86400 + 4 * 3600), "3 d 4 h");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["NAME", "N"], ["a", "1000"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows, 1), "NAME     N\na     1000\n");
        assert_eq!(table(&rows, 2), "NAME  N\na     1000\n");
    }

    #[test]
    fn nothing_that_others_have_named_reaches_the_terminal_raw() {
        let rows = [["NAME", "N"], ["\u{1b}]0;a\u{7}\r\u{9b}2J\n\u{202e}", "1"]];
        let text = table(&rows.map(|row| row.map(str::to_owned)), 1);
        let line = "\\u{1b}]0;a\\u{7}\\r\\u{9b}2J\\n\\u{202e}";
        assert_eq!(text.lines().nth(1), Some(&*format!("{line}  1")), "{text:?}");
        // The head is as wide as what is shown.
        assert_eq!(text.lines().next().map(str::len), Some(line.len() + 3));
        assert_eq!(
            lines("error: \"x\"\n  1 | \u{1b}[2J\r\n"),
            "error: \"x\"\n  1 | \\u{1b}[2J\\r\n"
        );
    }
}
