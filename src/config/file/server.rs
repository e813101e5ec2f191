//! `[server]` and `[log]` as typed.

use std::time::Duration;

use toml::de::DeValue;

use crate::config::report::{Report, advice, quoted};
use crate::config::table::{At, Field, Table, out_of_range, whole_number};
use crate::config::{Driver, Workers};

/// `[server]`
#[derive(Default)]
pub(in crate::config) struct Server {
    pub(in crate::config) workers: Field<Workers>,
    pub(in crate::config) driver: Field<Driver>,
    pub(in crate::config) drain_timeout: Field<Duration>,
}

/// `[log]`
#[derive(Default)]
pub(in crate::config) struct Log {
    pub(in crate::config) level: Field<&'static str>,
    pub(in crate::config) json: Field<bool>,
}

impl Server {
    pub(super) fn read(mut table: Table<'_>) -> Server {
        let drivers =
            [("auto", Driver::Auto), ("io_uring", Driver::IoUring), ("epoll", Driver::Epoll)];
        let server = Server {
            workers: read_workers(&mut table),
            driver: table.word("driver", &drivers, &[]),
            drain_timeout: table.duration("drain_timeout"),
        };
        table.report_unknown_keys(&[]);
        server
    }
}

/// Reads `"auto"`, a number, or a list of CPU ids.
fn read_workers(table: &mut Table<'_>) -> Field<Workers> {
    const KINDS: &str = "write \"auto\", a number of workers, or a list of CPU ids such as [0, 2]";
    let report = table.report;
    let field = table.any("workers");
    let value = field.value.and_then(|at| {
        let workers = match at.value {
            DeValue::String(text) if text == "auto" => Some(Workers::Auto),
            DeValue::String(text) => {
                let what = format!("`workers` cannot be {}", quoted(text));
                let note = advice(text, &["auto"]);
                let note = if note.starts_with("did") { note } else { String::from(KINDS) };
                report.error(at.span, what, note);
                None
            }
            DeValue::Integer(_) => {
                let range = 1..=MAX_WORKERS;
                let count = whole_number(at.value).filter(|count| range.contains(count));
                if count.is_none() {
                    let note = "write \"auto\" for one worker per CPU that this process may use";
                    report.error(at.span, out_of_range("workers", &range), note);
                }
                count.map(|count| Workers::Count(count as usize))
            }
            DeValue::Array(items) => {
                let ids: Vec<Option<usize>> =
                    items.iter().map(|item| read_cpu(report, item)).collect();
                if ids.is_empty() {
                    report.error(at.span, "`workers` is an empty list", KINDS);
                }
                for (index, item) in items.iter().enumerate() {
                    if ids[index].is_some() && ids[..index].contains(&ids[index]) {
                        let note = "two workers on one CPU share its time; list each CPU once";
                        report.error(item.span().into(), "this CPU is in the list already", note);
                    }
                }
                ids.into_iter().collect::<Option<Vec<usize>>>().map(Workers::Cpus)
            }
            _ => {
                report.error(at.span, "`workers` must be \"auto\", a number or a list", KINDS);
                None
            }
        };
        workers.map(|value| At { value, span: at.span })
    });
    Field { key: field.key, value }
}

/// The number of CPUs in an affinity mask, see sched_setaffinity(2).
const MAX_WORKERS: u64 = 1024;

fn read_cpu(report: &Report<'_>, item: &toml::Spanned<DeValue<'_>>) -> Option<usize> {
    let id = whole_number(item.get_ref()).filter(|id| *id < MAX_WORKERS);
    if id.is_none() {
        let what = format!("a CPU id is a number from 0 to {}", MAX_WORKERS - 1);
        report.error(item.span().into(), what, "`lscpu -e` lists the CPUs of this machine");
    }
    id.map(|id| id as usize)
}

impl Log {
    pub(super) fn read(mut table: Table<'_>) -> Log {
        let levels = ["error", "warn", "info", "debug", "trace", "off"].map(|level| (level, level));
        let log = Log {
            level: table.word("level", &levels, &[]),
            json: table.word("format", &[("text", false), ("json", true)], &[]),
        };
        table.report_unknown_keys(&[]);
        log
    }
}
