//! The order and the form of errors and warnings, and the words in them.

use super::findings::wrapped;
use super::*;

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
