//! Where the carets stand, in any text.

use proptest::prelude::*;

use super::*;

fn drawn(text: &str, culprit: &str) -> String {
    let start = text.find(culprit).expect("the culprit is in the text");
    Excerpt::new(&Lines::new(text), Span { start, end: start + culprit.len() }).to_string()
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
    for mark in ['\u{301}', '\u{5b0}', '\u{fe0f}'] {
        let text = format!("e{mark} = x");
        assert_eq!(drawn(&text, "x"), format!("  |\n1 | {text}\n  |     ^"));
    }
}

#[test]
fn columns_count_characters() {
    let text = "'中文' = x";
    let start = text.find('x').expect("x");
    assert_eq!(Excerpt::new(&Lines::new(text), Span { start, end: start + 1 }).column, 8);
}

#[test]
fn a_long_line_is_shortened_around_the_culprit() {
    for (letter, cells) in [("a", 1), ("中", 2)] {
        let text = format!("{} HERE {}", letter.repeat(300), letter.repeat(300));
        let excerpt = drawn(&text, "HERE");
        let (_, line) = excerpt.split_once("1 | ...").expect("the start is left out");
        let (before, after) = line.split_once(" HERE ").expect("the culprit is shown");
        assert!(after.contains(&format!("{}...\n", letter.repeat(40 / cells))), "{excerpt}");
        let letters = before.trim_start();
        let indent = before.len() - letters.len() + letters.chars().count() * cells;
        assert!(indent >= 40, "{excerpt}");
        assert!(excerpt.ends_with(&format!("\n  |    {} ^^^^", " ".repeat(indent))), "{excerpt}");
    }
}

#[test]
fn a_long_culprit_is_shortened() {
    let culprit = "x".repeat(1000);
    let excerpt = drawn(&format!("key = {culprit}"), &culprit);
    let (xs, carets) = ("x".repeat(MARKED), "^".repeat(MARKED));
    assert_eq!(excerpt, format!("  |\n1 | key = {xs}...\n  |       {carets}"));
}

#[test]
fn of_several_lines_the_first_is_shown() {
    assert_eq!(drawn("a = [\n  1,\n]\n", "[\n  1,\n]"), "  |\n1 | a = [\n  |     ^");
}

#[test]
fn the_end_of_the_text_and_of_a_dos_line_are_places_too() {
    let end = Excerpt::new(&Lines::new("a = \n"), Span { start: 5, end: 5 });
    assert_eq!((end.line, end.column), (2, 1));
    assert_eq!(end.to_string(), "  |\n2 |\n  | ^");
    let dos = Excerpt::new(&Lines::new("a = \r\nb"), Span { start: 5, end: 6 });
    assert_eq!((dos.line, dos.column), (1, 5));
}

#[test]
fn lines_are_counted_to_the_end_of_the_text() {
    let lines = Lines::new("a\n\nb\n");
    let numbers: Vec<usize> = (0..=6).map(|at| lines.number(at)).collect();
    assert_eq!(numbers, [1, 1, 2, 3, 3, 4, 4]);
    assert_eq!(Lines::new("").number(0), 1);
}

proptest! {
    #[test]
    fn any_text_and_any_span_can_be_drawn(
        text in "(?s).{0,200}", start in 0_usize..300, length in 0_usize..300,
    ) {
        let excerpt = Excerpt::new(&Lines::new(&text), Span { start, end: start + length });
        prop_assert!(excerpt.line >= 1 && excerpt.column >= 1);
        prop_assert_eq!(excerpt.to_string().lines().count(), 3);
    }

    #[test]
    fn nothing_drawn_affects_the_terminal(
        text in "[\u{0}-\u{9f}\u{61c}\u{200b}-\u{202e}\u{2066}-\u{2069}\u{feff}]{0,300}",
        start in 0_usize..300,
    ) {
        let excerpt = Excerpt::new(&Lines::new(&text), Span { start, end: start + 1 }).to_string();
        let affects = |character: char| {
            character.is_control() && character != '\n'
                || ('\u{200b}'..='\u{200f}').contains(&character)
                || ('\u{2028}'..='\u{202e}').contains(&character)
                || ('\u{2066}'..='\u{2069}').contains(&character)
                || ['\u{61c}', '\u{feff}'].contains(&character)
        };
        prop_assert!(!excerpt.contains(affects), "{:?}", excerpt);
    }
}
