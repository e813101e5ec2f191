//! The report as Markdown, to be put beside its plots.

use super::plots;
use super::results::{Rest, Results, Workload};
use super::rows::{self, Table};
use super::targets::Verdict;

pub(crate) fn text(results: &Results, verdicts: &[Verdict]) -> String {
    let mut text = "# ringgate and its peers\n".to_string();
    add_list(&mut text, "Where and how", &rows::circumstances(results));
    add_list(&mut text, "Versions", &rows::versions(results));
    add_section(&mut text, "How to repeat", &repeating(&results.settings.command));
    add_section(&mut text, "How to read", &reading(results));
    add_tables(&mut text, "Targets", &[rows::targets(verdicts)]);
    add_plots(&mut text, results);
    for (group, workloads) in groups(results) {
        let tables: Vec<Table> =
            workloads.into_iter().map(|workload| rows::workload(results, workload)).collect();
        add_tables(&mut text, group, &tables);
    }
    let rests = Rest::ALL.map(|rest| rows::memory(results, rest));
    add_tables(&mut text, "Memory", &rests);
    add_tables(&mut text, "Balance between workers", &[rows::balance(results)]);
    text
}

fn repeating(command: &str) -> String {
    format!(
        "\
```sh
{command}
```

`results.json`, beside this file, holds every sample of every round, \
from which all tables and plots here are computed."
    )
}

fn reading(results: &Results) -> String {
    let (proxy_cpu, load_cpu) = (results.settings.proxy_cpu, results.settings.load_cpu);
    format!(
        "\
- {READING} Latencies are medians alone, in µs.
- A round takes everyone at a workload right after each other. Each ratio is between two of the \
same round, so that what slows the machine for a while slows both; the medians of single figures \
come from different moments and need not divide to it.
- A rate ratio above 1 and a cost ratio below 1 speak for ringgate.
- CPU cost is the CPU time of all threads of the proxy, in user space and kernel, for one unit of \
work: CPU-s/GB for bulk, CPU-s/M for a million round trips, connections or requests. It also \
compares proxies that waited for the load.
- Busy is the share of one CPU that the proxy used. Well under 100 % the load was the limit and \
not the proxy: then its rate says little, and its cost is what counts.
- Load is the share of one CPU that clients and servers used. They all share CPU {load_cpu}; a \
proxy in its turn has CPU {proxy_cpu}.
- Floor is a loop of epoll and splice that does nothing else; direct is the load without a proxy.",
        READING = rows::READING
    )
}

/// The workloads under the heading they belong to, in the order in which they were measured.
fn groups(results: &Results) -> Vec<(&'static str, Vec<Workload>)> {
    let mut groups: Vec<(&str, Vec<Workload>)> = Vec::new();
    for workload in results.workloads() {
        let heading = heading(workload);
        match groups.iter_mut().find(|group| group.0 == heading) {
            Some((_, workloads)) => workloads.push(workload),
            None => groups.push((heading, vec![workload])),
        }
    }
    groups
}

fn heading(workload: Workload) -> &'static str {
    match workload {
        Workload::BulkUp { .. } | Workload::BulkDown { .. } => "Bulk at L4",
        Workload::RoundTrips { .. } => "Round trips at L4",
        Workload::Churn { .. } => "Short connections at L4",
        Workload::Redirects { .. } | Workload::RedirectsOnce { .. } => "Redirects",
        Workload::StreamUp { .. }
        | Workload::StreamDown { .. }
        | Workload::StreamRoundTrips { .. } => "`/stream` tunnels",
        Workload::ObfsUp { .. }
        | Workload::ObfsDown { .. }
        | Workload::WebSocketUp { .. }
        | Workload::WebSocketDown { .. } => "Tunnels that the proxy ends",
        Workload::TlsUp { .. }
        | Workload::TlsDown { .. }
        | Workload::TlsRoundTrips { .. }
        | Workload::TlsRedirects { .. } => "TLS that the proxy ends",
        Workload::Handshakes { .. } | Workload::Resumptions { .. } => "TLS handshakes",
        Workload::WssUp { .. } | Workload::WssDown { .. } => "WebSocket in TLS, both ended",
        Workload::Datagrams { .. } => "Datagrams",
        Workload::Mixed { .. } => "Round trips beside bulk",
        Workload::SiteAnswers { .. } | Workload::SiteUploads { .. } => "Requests to a backend",
        Workload::SiteFiles { .. } => "Files",
        Workload::SiteStreams { .. } => "HTTP/2",
        Workload::SiteMixed { .. } => "Requests beside large bodies",
    }
}

fn add_section(text: &mut String, heading: &str, body: &str) {
    text.push_str(&format!("\n## {heading}\n\n{body}\n"));
}

fn add_list(text: &mut String, heading: &str, lines: &[String]) {
    if !lines.is_empty() {
        let items: Vec<String> = lines.iter().map(|line| format!("- {line}")).collect();
        add_section(text, heading, &items.join("\n"));
    }
}

fn add_plots(text: &mut String, results: &Results) {
    let plots = plots::all(results);
    let images: Vec<String> =
        plots.iter().map(|plot| format!("![{}]({})", plot.title, plot.file)).collect();
    if !images.is_empty() {
        add_section(text, "Plots", &images.join("\n\n"));
    }
}

/// Tables under one heading, each with its own title where that says more.
fn add_tables(text: &mut String, heading: &str, tables: &[Table]) {
    let tables = tables.iter().filter(|table| !table.rows.is_empty());
    let parts: Vec<String> = tables
        .map(|table| {
            if table.title == heading {
                lines(table)
            } else {
                format!("### {}\n\n{}", table.title, lines(table))
            }
        })
        .collect();
    if !parts.is_empty() {
        add_section(text, heading, &parts.join("\n\n"));
    }
}

fn lines(table: &Table) -> String {
    let rule = vec!["---".to_string(); table.header.len()];
    let lines = [&table.header, &rule].into_iter().chain(&table.rows);
    lines.map(|cells| line(cells)).collect::<Vec<String>>().join("\n")
}

fn line(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn every_part_of_a_full_run_has_its_section() {
        let text = text(&example::full(), &example::verdicts());
        for heading in [
            "Where and how",
            "Versions",
            "How to repeat",
            "How to read",
            "Targets",
            "Plots",
            "Bulk at L4",
            "Round trips at L4",
            "Short connections at L4",
            "Redirects",
            "`/stream` tunnels",
            "TLS that the proxy ends",
            "TLS handshakes",
            "WebSocket in TLS, both ended",
            "Round trips beside bulk",
            "Requests to a backend",
            "Files",
            "HTTP/2",
            "Requests beside large bodies",
            "Memory",
            "Balance between workers",
        ] {
            assert_eq!(text.matches(&format!("\n## {heading}\n")).count(), 1, "{heading}");
        }
        for plot in plots::all(&example::full()) {
            assert!(text.contains(&format!("]({})", plot.file)), "{}", plot.file);
        }
    }

    #[test]
    fn every_line_of_a_table_has_as_many_cells_as_its_header() {
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        let text = text(&example::full(), &example::verdicts());
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair.iter().all(|line| line.starts_with('|'))) {
            assert_eq!(cells(pair[0]), cells(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn an_empty_run_has_no_tables_and_no_plots() {
        let text = text(&example::nothing(), &[]);
        assert!(!text.contains('|') && !text.contains("!["), "{text}");
    }

    #[test]
    fn a_bar_in_a_cell_does_not_end_it() {
        assert_eq!(line(&["a|b".to_string()]), "| a\\|b |");
    }
}
