//! The report on the terminal.

use std::fmt::Write;

use super::results::{Rest, Results};
use super::rows::{self, Table};
use super::targets::Verdict;

const LEGEND: &str = "Latency in µs, medians. Busy and load: shares of one CPU, of the proxy and \
                      of clients with servers.";

pub(crate) fn print(results: &Results, verdicts: &[Verdict]) {
    print!("{}", text(results, verdicts));
}

fn text(results: &Results, verdicts: &[Verdict]) -> String {
    let mut text = String::new();
    for line in rows::circumstances(results).iter().chain(&rows::versions(results)) {
        add(&mut text, line);
    }
    add(&mut text, rows::READING);
    add(&mut text, LEGEND);
    text.push('\n');
    for workload in results.workloads() {
        add_table(&mut text, &rows::workload(results, workload));
    }
    for rest in Rest::ALL {
        add_table(&mut text, &rows::memory(results, rest));
    }
    add_table(&mut text, &rows::balance(results));
    for row in &rows::targets(verdicts).rows {
        let [word, margin, target, measured] = row.as_slice() else { continue };
        add(&mut text, &format!("{word:<6} {margin:>7}  {target}: {measured}"));
    }
    text
}

fn add(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

/// The title above its columns; nothing of a table without rows.
fn add_table(text: &mut String, table: &Table) {
    if table.rows.is_empty() {
        return;
    }
    add(text, &table.title);
    let lines = || [&table.header].into_iter().chain(&table.rows);
    let widths: Vec<usize> = (0..table.header.len())
        .map(|column| lines().map(|line| line[column].chars().count()).max().unwrap_or_default())
        .collect();
    for line in lines() {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            // Writing to a string does not fail.
            let _ = write!(row, "{cell:<width$}  ");
        }
        add(text, &row);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn the_whole_report_fits_the_terminal_and_misses_nothing() {
        let text = text(&example::full(), &example::verdicts());
        let widest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
        assert!(widest.chars().count() <= 130, "{widest}");
        for part in
            ["301 keep-alive, 64", "idle L4 pairs", "idle TLS", "each of 9000", "the busiest"]
        {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
        assert!(text.contains("MISSED"), "{text}");
    }

    #[test]
    fn an_empty_run_is_a_header() {
        let text = text(&example::nothing(), &[]);
        assert_eq!(text.lines().count(), 6, "{text}");
    }
}
