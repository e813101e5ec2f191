//! Conditional requests, each condition alone and in the order of RFC 9110 section 13.2.2.

use super::*;
use proptest::prelude::*;

/// 2015-10-21 07:28:00 UTC.
const MODIFIED: u64 = 1_445_412_480;
const DATE: &str = "Wed, 21 Oct 2015 07:28:00 GMT";
const BEFORE: &str = "Wed, 21 Oct 2015 07:27:59 GMT";
const AFTER: &str = "Wed, 21 Oct 2015 07:28:01 GMT";
const OTHER: &str = "\"other\"";

fn validators() -> Validators {
    let etag = Etag::of_file(MODIFIED * 1_000_000_000, 100, 7, None);
    Validators { etag, last_modified: Some(MODIFIED) }
}

fn tag() -> String {
    String::from_utf8(validators().etag.as_bytes().to_vec()).unwrap()
}

fn verdict(fields: &[(&str, &str)]) -> Verdict {
    let mut conditions = Conditions::default();
    fields.iter().for_each(|(name, value)| conditions.add(name, value.as_bytes()));
    conditions.evaluate(&validators(), 100, true)
}

fn part(start: u64, end: u64) -> Verdict {
    Verdict::Part(ByteRange { start, end })
}

#[test]
fn an_etag_has_what_tells_two_versions_apart() {
    let tag = |modified, size, inode, coding| {
        String::from_utf8(Etag::of_file(modified, size, inode, coding).as_bytes().to_vec()).unwrap()
    };
    assert_eq!(tag(0xabc, 16, 0, None), "\"abc-10-0\"");
    assert_eq!(tag(1, 2, 3, Some(Coding::Zstd)), "\"1-2-3-zstd\"");
    let longest = tag(u64::MAX, u64::MAX, u64::MAX, Some(Coding::Gzip));
    assert!(longest.ends_with("-ffffffffffffffff-gzip\""), "{longest}");
}

#[test]
fn a_date_has_the_format_of_http() {
    assert_eq!(
        validators().last_modified_text().as_ref().map(|text| &text[..]),
        Some(DATE.as_bytes())
    );
    let at = |last_modified| Validators { last_modified, ..validators() }.last_modified_text();
    assert_eq!(
        at(Some(0)).as_ref().map(|text| &text[..]),
        Some(&b"Thu, 01 Jan 1970 00:00:00 GMT"[..])
    );
    assert_eq!((at(Some(u64::MAX)), at(Some(253_402_300_800)), at(None)), (None, None, None));
}

#[test]
fn if_none_match_compares_weakly_and_comes_before_a_date() {
    let (own, weak) = (tag(), format!("W/{}", tag()));
    let none = |value: &str| verdict(&[("If-None-Match", value)]);
    for value in [&*own, &weak, "*", &format!("{OTHER}, {own}"), &format!("\"a,b\" ,{weak}")] {
        assert_eq!(none(value), Verdict::NotModified, "{value}");
    }
    for value in [OTHER, "", "x", &own[1..], &own[..own.len() - 1], &format!("x, {own}"), "**"] {
        assert_eq!(none(value), Verdict::Whole, "{value}");
    }
    let two = [("if-none-match", OTHER), ("IF-NONE-MATCH", &*own)];
    assert_eq!(verdict(&two), Verdict::NotModified, "two lines");
    let newer = [("If-None-Match", OTHER), ("If-Modified-Since", AFTER)];
    assert_eq!(verdict(&newer), Verdict::Whole, "the date is ignored");
    let older = [("If-None-Match", &*own), ("If-Modified-Since", BEFORE)];
    assert_eq!(verdict(&older), Verdict::NotModified);
}

#[test]
fn if_modified_since_compares_seconds() {
    let since = |date| verdict(&[("If-Modified-Since", date)]);
    assert_eq!((since(DATE), since(AFTER)), (Verdict::NotModified, Verdict::NotModified));
    assert_eq!((since(BEFORE), since("yesterday")), (Verdict::Whole, Verdict::Whole));
    assert_eq!(since("Wednesday, 21-Oct-15 07:28:00 GMT"), Verdict::NotModified, "RFC 850");
    assert_eq!(since("Wed Oct 21 07:28:00 2015"), Verdict::NotModified, "asctime");
    let twice = [("If-Modified-Since", DATE), ("If-Modified-Since", DATE)];
    assert_eq!(verdict(&twice), Verdict::Whole, "a field that may occur once");
}

#[test]
fn if_match_compares_strongly_and_comes_before_all() {
    let (own, weak) = (tag(), format!("W/{}", tag()));
    let matches = |value: &str| verdict(&[("If-Match", value)]);
    assert_eq!((matches(&own), matches("*")), (Verdict::Whole, Verdict::Whole));
    assert_eq!(matches(&format!("{OTHER}, {own}")), Verdict::Whole);
    for value in [OTHER, &weak, "", "x"] {
        assert_eq!(matches(value), Verdict::PreconditionFailed, "{value}");
    }
    let both = [("If-None-Match", &*own), ("If-Match", OTHER)];
    assert_eq!(verdict(&both), Verdict::PreconditionFailed);
    let later = [("If-Match", &*own), ("If-Unmodified-Since", BEFORE)];
    assert_eq!(verdict(&later), Verdict::Whole, "the date is ignored");
}

#[test]
fn if_unmodified_since_fails_after_a_change() {
    let since = |date| verdict(&[("If-Unmodified-Since", date)]);
    assert_eq!(
        (since(DATE), since(AFTER), since("x")),
        (Verdict::Whole, Verdict::Whole, Verdict::Whole)
    );
    assert_eq!(since(BEFORE), Verdict::PreconditionFailed);
}

#[test]
fn a_range_is_sent_if_if_range_allows_it() {
    let range = ("Range", "bytes=0-9");
    assert_eq!(verdict(&[range]), part(0, 10));
    let with = |value: &str| verdict(&[("If-Range", value), range]);
    assert_eq!((with(&tag()), with(DATE)), (part(0, 10), part(0, 10)));
    for value in
        [OTHER, &format!("W/{}", tag()), BEFORE, AFTER, "", "x", "*", &format!("{} ,", tag())]
    {
        assert_eq!(with(value), Verdict::Whole, "{value}");
    }
    let twice = [("If-Range", &*tag()), ("If-Range", &tag()), range];
    assert_eq!(verdict(&twice), Verdict::Whole);
    assert_eq!(verdict(&[range, range]), Verdict::Whole);
    assert_eq!(verdict(&[("Range", "bytes=100-")]), Verdict::NotSatisfiable);
    assert_eq!(verdict(&[("Range", "bytes=100-"), ("If-Range", OTHER)]), Verdict::Whole);
    let has_it = [range, ("If-None-Match", &*tag())];
    assert_eq!(verdict(&has_it), Verdict::NotModified, "a range comes last");
}

#[test]
fn the_fields_of_a_head_are_found_in_any_case_and_spacing() {
    let own = tag();
    let head = format!(
        "GET /range: HTTP/1.1\r\nHost: x\r\nrange:bytes=0-9\r\nIF-RANGE: \t {own} \r\n\
         Accept-Encoding: br\r\naccept-encoding: gzip\r\nX-Range: bytes=5-6\r\n\r\n"
    );
    let conditions = Conditions::of_head(head.as_bytes());
    assert_eq!(conditions.evaluate(&validators(), 100, true), part(0, 10));
    let encodings: Vec<_> = conditions.accept_encoding.iter().collect();
    assert_eq!(encodings, [b"br", &b"gzip"[..]]);
    assert!(Conditions::of_head(b"GET / HTTP/1.1\r\n\r\n").accept_encoding.is_empty());
}

#[test]
fn head_knows_no_ranges() {
    let mut conditions = Conditions::default();
    conditions.add("range", b"bytes=0-9");
    assert_eq!(conditions.evaluate(&validators(), 100, false), Verdict::Whole);
}

#[test]
fn a_file_of_the_future_has_no_date_to_compare() {
    let mut conditions = Conditions::default();
    conditions.add("if-modified-since", AFTER.as_bytes());
    conditions.add("if-unmodified-since", BEFORE.as_bytes());
    let validators = Validators { last_modified: None, ..validators() };
    assert_eq!(conditions.evaluate(&validators, 100, true), Verdict::Whole);
}

#[test]
fn more_lines_than_are_kept_match_nothing() {
    let mut conditions = Conditions::default();
    let own = tag();
    (0..MAX_LINES).for_each(|_| conditions.add("if-none-match", OTHER.as_bytes()));
    conditions.add("if-none-match", own.as_bytes());
    assert_eq!(conditions.evaluate(&validators(), 100, true), Verdict::Whole);
}

proptest! {
    #[test]
    fn an_own_tag_is_found_at_every_position(
        before in proptest::collection::vec("(W/)?\"[!#-~]{0,5}\"", 0..4),
        is_weak: bool,
        after in proptest::collection::vec("\"[!#-~]{0,5}\"", 0..4),
        separator in "[ \t]?,[ \t,]?",
    ) {
        let own = if is_weak { format!("W/{}", tag()) } else { tag() };
        let all: Vec<_> = before.into_iter().chain([own]).chain(after).collect();
        let field = all.join(&separator);
        prop_assert_eq!(verdict(&[("If-None-Match", &field)]), Verdict::NotModified);
        let expected = if is_weak { Verdict::PreconditionFailed } else { Verdict::Whole };
        prop_assert_eq!(verdict(&[("If-Match", &field)]), expected);
    }

    #[test]
    fn any_bytes_are_judged(
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 6),
        length: u64,
        is_get: bool,
    ) {
        let names = ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since",
            "if-range", "range"];
        for (skip, _) in names.iter().enumerate() {
            let mut conditions = Conditions::default();
            let fields = names.iter().zip(&values).skip(skip);
            fields.for_each(|(name, value)| conditions.add(name, value));
            let verdict = conditions.evaluate(&validators(), length, is_get);
            if let Verdict::Part(range) = verdict {
                prop_assert!(is_get && range.start < range.end && range.end <= length);
            }
        }
    }
}
