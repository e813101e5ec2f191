//! The order and the form of errors and warnings, and the words in them.

use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::findings::wrapped;
use super::*;
use crate::config;

#[test]
fn problems_come_in_the_order_of_the_file() {
    let report = Report::new("a = 1\nb = 2\n");
    report.error(Span { start: 6, end: 7 }, "second", "");
    report.error(Span { start: 0, end: 1 }, "first", "mend it\nor not");
    assert!(!report.is_empty());
    let errors = report.into_errors("edge.toml");
    assert_eq!(errors.count(), 2);
    let first = "error: first\n --> edge.toml:1:1\n  |\n1 | a = 1\n  | ^\n  = mend it\n  = or not";
    let second = "error: second\n --> edge.toml:2:1\n  |\n2 | b = 2\n  | ^";
    assert_eq!(errors.to_string(), format!("{first}\n\n{second}"));
}

#[test]
fn warnings_are_shown_as_errors_are() {
    let report = Report::new("a = 1\nb = 2\n");
    report.warning(Span { start: 6, end: 7 }, "odd", "mend it\nor not");
    assert!(report.is_empty());
    let warnings = report.into_warnings("edge.toml");
    let shown = "warning: odd\n --> edge.toml:2:1\n  |\n2 | b = 2\n  | ^\n  = mend it\n  = or not";
    assert_eq!(warnings.to_string(), shown);
    let expected = Warning {
        what: "odd",
        file: "edge.toml",
        line: Some(2),
        column: Some(1),
        advice: String::from("mend it; or not"),
    };
    assert_eq!(warnings.each().collect::<Vec<_>>(), [expected]);
    assert!(Report::new("").into_warnings("edge.toml").is_empty());
}

#[test]
fn the_first_hundred_are_shown_and_the_others_counted() {
    let one_more = "\n\n… and 1 more error";
    for (count, rest) in [(100, ""), (101, one_more), (157, "\n\n… and 57 more errors")] {
        let text = "a = 1\n".repeat(count);
        let report = Report::new(&text);
        for line in (0..count).rev() {
            report.error(Span { start: line * 6, end: line * 6 + 1 }, "wrong", "");
        }
        let errors = report.into_errors("edge.toml");
        assert_eq!(errors.count(), count);
        let shown = errors.to_string();
        assert_eq!(shown.matches("error: wrong\n").count(), 100);
        let last = " --> edge.toml:100:1\n    |\n100 | a = 1\n    | ^";
        assert!(shown.ends_with(&format!("{last}{rest}")), "{shown}");
    }
}

#[test]
fn of_many_warnings_the_first_are_logged() {
    let report = Report::new("a = 1\n");
    for number in 0..102 {
        report.warning(Span { start: 0, end: 1 }, format!("odd {number}"), "");
    }
    let warnings = report.into_warnings("edge.toml");
    assert!(warnings.to_string().ends_with("\n\n… and 2 more warnings"));
    let logged: Vec<Warning<'_>> = warnings.each().collect();
    assert_eq!(logged.len(), 101);
    assert_eq!(logged[99].what, "odd 99");
    assert_eq!(logged[100].what, "… and 2 more warnings");
    assert_eq!(logged[100].line, None);
}

/// CPU time that is enough on a slow machine. Work that grows with the square of the errors, or
/// with their number times the length of the file, takes minutes.
const BOUND: Duration = Duration::from_secs(20);

/// The CPU time of this thread, which other programs on the machine do not change.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("the clock begins at 0")
}

#[track_caller]
fn assert_takes_little(start: Duration) {
    let taken = cpu_time() - start;
    assert!(taken < BOUND, "it took {taken:?}");
}

#[test]
fn ten_thousand_wrong_listeners_are_refused_in_time() {
    let rest = "listen = \"nowhere:80\"\nprotocol = \"tcp\"\ncluster = \"a\"\n";
    let listener = |number| format!("[[listener]]\nname = \"{number}\"\n{rest}");
    let mut text: String = (0..10_000).map(listener).collect();
    text.push_str("[cluster.a]\nendpoints = [\"127.0.0.1:80\"]\n");
    let start = cpu_time();
    let errors = config::parse("edge.toml", &text, Path::new("")).expect_err("all are wrong");
    let shown = errors.to_string();
    assert_takes_little(start);
    assert_eq!(errors.count(), 10_000);
    assert_eq!(shown.matches("error: ").count(), 100);
    assert!(shown.ends_with("\n\n… and 9900 more errors"));
}

#[test]
fn errors_at_the_end_of_a_large_file_are_found_in_time() {
    const LENGTH: usize = 16 << 20;
    for text in ["a = 1\n".repeat(LENGTH / 6), "中".repeat(LENGTH / 3)] {
        let start = cpu_time();
        let report = Report::new(&text);
        for before_end in 1..=10_000 {
            let at = text.len() - 3 * before_end;
            let line = report.line(Span { start: at, end: at });
            report.error(Span { start: at, end: text.len() }, format!("line {line}"), "");
        }
        let errors = report.into_errors("edge.toml");
        assert_eq!(errors.to_string().matches("error: line ").count(), 100);
        assert_eq!(errors.count(), 10_000);
        assert_takes_little(start);
    }
}

#[test]
fn a_value_cannot_speak_to_the_terminal() {
    assert_eq!(quoted("a\u{1b}[31m\r\n\u{202e}\"b\""), r#"`a\u{1b}[31m\r\n\u{202e}"b"`"#);
    assert_eq!(quoted(&"x".repeat(61)), format!("`{}…`", "x".repeat(60)));
}

#[test]
fn a_guess_is_made_only_for_a_near_miss() {
    let known = ["idle_timeout", "name", "tls"];
    assert_eq!(closest("idle_timout", known), Some("idle_timeout"));
    assert_eq!(closest("Name", known), Some("name"));
    assert_eq!(closest("deny", known), None);
    assert_eq!(closest("tcp", known), None);
    // Their distance would take hours to compute.
    assert_eq!(closest(&"a".repeat(1_000_000), ["b".repeat(1_000_100).as_str()]), None);
}

#[test]
fn long_notes_are_broken_between_words() {
    assert_eq!(wrapped("aaa bbb ccc", 7, 2), "aaa bbb\n  ccc");
    assert_eq!(wrapped("aaaaaaaaaa b", 7, 1), "aaaaaaaaaa\n b");
}

#[test]
fn a_place_within_a_string_is_found_unless_it_holds_escapes() {
    let report = Report::new(r#"a = "x%{y" b = "\tz""#);
    let plain = Span { start: 4, end: 10 };
    assert_eq!(report.within(plain, "x%{y", 1), Span { start: 6, end: 7 });
    assert_eq!(report.within(plain, "x%{y", 4), plain);
    let escaped = Span { start: 15, end: 20 };
    assert_eq!(report.within(escaped, "\tz", 1), escaped);
}
