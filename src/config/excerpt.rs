//! Shows the line of an error and marks the faulty part with carets.
//!
//! Positions are bytes in the text; columns count characters, as editors do. The output is safe for
//! a terminal, and its width is known. Tabs become spaces. Control characters and characters that
//! change the writing direction become U+FFFD. Characters of double width get two carets. Of a very
//! long line only the part around the error is shown.

use std::fmt;

use super::report::Span;

/// The maximum width of a line in terminal cells. Wider lines are shortened.
const WIDEST: usize = 100;
/// Of these cells, the maximum number before the marked part.
const LEAD: usize = 40;

/// One line of the text and the part of it to be marked.
pub(super) struct Excerpt {
    /// Counted from 1.
    pub(super) line: usize,
    /// Characters, counted from 1.
    pub(super) column: usize,
    shown: String,
    indent: usize,
    carets: usize,
}

/// The number of the line that contains byte `at`, counted from 1.
pub(super) fn line_number(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

impl Excerpt {
    /// Creates the excerpt of a span. Of a span over several lines, only the first line is shown.
    /// An empty span gets one caret. Offsets after the end of the text are treated as its end.
    pub(super) fn new(text: &str, span: Span) -> Self {
        let start = floor(text, span.start);
        // The line that holds the start of the span, and the marked part of it, in bytes.
        let from = text[..start].rfind('\n').map_or(0, |feed| feed + 1);
        let to = text[start..].find('\n').map_or(text.len(), |feed| start + feed);
        let line = text[from..to].trim_end_matches('\r');
        let before = start.min(from + line.len()) - from;
        let inside = floor(text, span.end).clamp(from + before, from + line.len()) - from;

        // The visible part of the line, in terminal cells.
        let cells: Vec<Cell> =
            line.char_indices().map(|(at, character)| Cell::new(at, character)).collect();
        let (first, last) = window(&cells, before);
        let visible = &cells[first..last];
        let (head, tail) = (first > 0, last < cells.len());
        let width = |keep: &dyn Fn(&Cell) -> bool| -> usize {
            visible.iter().filter(|cell| keep(cell)).map(|cell| cell.width).sum()
        };
        let mut shown = String::from(if head { "…" } else { "" });
        shown.extend(visible.iter().flat_map(|cell| cell.drawn()));
        shown.push_str(if tail { "…" } else { "" });

        Excerpt {
            line: line_number(text, start),
            column: line[..before].chars().count() + 1,
            shown,
            indent: usize::from(head) + width(&|cell| cell.at < before),
            carets: width(&|cell| cell.at >= before && cell.at < inside).max(1),
        }
    }

    /// The number of digits of the line number.
    pub(super) fn gutter(&self) -> usize {
        self.line.to_string().len()
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let margin = " ".repeat(self.gutter());
        let line = format!("{} | {}", self.line, self.shown);
        let (indent, carets) = (" ".repeat(self.indent), "^".repeat(self.carets));
        write!(f, "{margin} |\n{}\n{margin} | {indent}{carets}", line.trim_end())
    }
}

/// One character of the line, as it is shown.
struct Cell {
    /// Byte offset within the line.
    at: usize,
    character: char,
    /// Width in terminal cells.
    width: usize,
}

impl Cell {
    fn new(at: usize, character: char) -> Self {
        let width = match character {
            '\t' => 4,
            // Combining marks and joiners are drawn over the previous letter.
            '\u{300}'..='\u{36f}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' => 0,
            // East Asian scripts, full-width forms and emoji.
            '\u{1100}'..='\u{115f}'
            | '\u{2e80}'..='\u{a4cf}'
            | '\u{ac00}'..='\u{d7a3}'
            | '\u{f900}'..='\u{faff}'
            | '\u{fe30}'..='\u{fe6f}'
            | '\u{ff00}'..='\u{ff60}'
            | '\u{ffe0}'..='\u{ffe6}'
            | '\u{1f300}'..='\u{1faff}'
            | '\u{20000}'..='\u{3fffd}' => 2,
            _ => 1,
        };
        Cell { at, character, width }
    }

    fn drawn(&self) -> impl Iterator<Item = char> {
        let (character, times) = match self.character {
            '\t' => (' ', 4),
            '\u{200b}' | '\u{200c}' | '\u{200e}' | '\u{200f}' | '\u{feff}' => ('\u{fffd}', 1),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => ('\u{fffd}', 1),
            control if control.is_control() => ('\u{fffd}', 1),
            plain => (plain, 1),
        };
        std::iter::repeat_n(character, times)
    }
}

/// The range of cells to show: all of them, or as many as fit around byte `focus` of the line.
fn window(cells: &[Cell], focus: usize) -> (usize, usize) {
    if cells.iter().map(|cell| cell.width).sum::<usize>() <= WIDEST {
        return (0, cells.len());
    }
    let centre = cells.partition_point(|cell| cell.at < focus);
    let mut first = centre;
    let mut lead = 0;
    while first > 0 && lead + cells[first - 1].width <= LEAD {
        first -= 1;
        lead += cells[first].width;
    }
    let mut last = first;
    let mut used = 0;
    while last < cells.len() && used + cells[last].width <= WIDEST {
        used += cells[last].width;
        last += 1;
    }
    (first, last)
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
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
}
