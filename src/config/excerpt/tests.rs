//! Where the carets stand, in any text.

use proptest::prelude::*;

use super::*;

fn drawn(text: &str, culprit: &str) -> String {
    let start = text.find(culprit).expect("the culprit is in the text");
    Excerpt::new(text, Span { start, end: start + culprit.len() }).to_string()
}

#[test]
fn carets_stand_under_the_culprit() {
    assert_eq!(drawn("a = 1\nb = two\n", "two"), "  |\n2 | b = two\n  |     ^^^");
}

#[test]
fn tabs_wide_letters_and_marks_keep_the_carets_in_place() {
    assert_eq!(drawn("\ta = x", "x"), "  |\n1 |     a = x\n  |         ^");
    assert_eq!(drawn("'中文' = x", "x"), "  |\n1 | '中文' = x\n  |          ^");
    assert_eq!(drawn("é = 中", "中"), "  |\n1 | é = 中\n  |     ^^");
    assert_eq!(drawn("e\u{301} = x", "x"), "  |\n1 | e\u{301} = x\n  |     ^");
}

#[test]
fn columns_count_characters() {
    let text = "'中文' = x";
    let start = text.find('x').expect("x");
    assert_eq!(Excerpt::new(text, Span { start, end: start + 1 }).column, 8);
}

#[test]
fn a_long_line_is_shortened_around_the_culprit() {
    let text = format!("{} HERE {}", "a".repeat(300), "b".repeat(300));
    let excerpt = drawn(&text, "HERE");
    let lines: Vec<&str> = excerpt.lines().collect();
    assert_eq!(lines[1], format!("1 | …{} HERE {}…", "a".repeat(39), "b".repeat(55)));
    assert_eq!(lines[2], format!("  | {}^^^^", " ".repeat(41)));
}

#[test]
fn the_end_of_the_text_and_of_a_dos_line_are_places_too() {
    let end = Excerpt::new("a = \n", Span { start: 5, end: 5 });
    assert_eq!((end.line, end.column), (2, 1));
    assert_eq!(end.to_string(), "  |\n2 |\n  | ^");
    let dos = Excerpt::new("a = \r\nb", Span { start: 5, end: 6 });
    assert_eq!((dos.line, dos.column), (1, 5));
}

#[test]
fn escapes_for_the_terminal_are_not_drawn() {
    let excerpt = drawn("a = \u{1b}[2J\u{202e}x", "x");
    assert!(!excerpt.contains('\u{1b}') && !excerpt.contains('\u{202e}'), "{excerpt:?}");
}

proptest! {
    #[test]
    fn any_text_and_any_span_can_be_drawn(
        text in "(?s).{0,200}", start in 0_usize..300, length in 0_usize..300,
    ) {
        let excerpt = Excerpt::new(&text, Span { start, end: start + length });
        prop_assert!(excerpt.line >= 1 && excerpt.column >= 1);
        prop_assert_eq!(excerpt.to_string().lines().count(), 3);
    }
}
