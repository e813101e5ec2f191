//! Shows the line of an error and marks the faulty part with carets.
//!
//! Positions are bytes in the text; columns count characters, as editors do. The output is safe for
//! a terminal, and its width is known. Tabs become spaces. Control characters and characters that
//! change the writing direction become U+FFFD. Characters of double width get two carets. Of a very
//! long line only the part around the error is shown.

use std::fmt;

use super::span::Span;

/// The maximum width of a line in terminal cells. Wider lines are shortened.
const MAX_WIDTH: usize = 100;
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
        let start = char_boundary_before(text, span.start);
        // The line that holds the start of the span, and the marked part of it, in bytes.
        let from = text[..start].rfind('\n').map_or(0, |feed| feed + 1);
        let to = text[start..].find('\n').map_or(text.len(), |feed| start + feed);
        let line = text[from..to].trim_end_matches('\r');
        let before = start.min(from + line.len()) - from;
        let inside =
            char_boundary_before(text, span.end).clamp(from + before, from + line.len()) - from;

        // The visible part of the line, in terminal cells.
        let cells: Vec<Cell> =
            line.char_indices().map(|(at, character)| Cell::new(at, character)).collect();
        let (first, last) = visible_range(&cells, before);
        let visible = &cells[first..last];
        let (head, tail) = (first > 0, last < cells.len());
        let width = |keep: &dyn Fn(&Cell) -> bool| -> usize {
            visible.iter().filter(|cell| keep(cell)).map(|cell| cell.width).sum()
        };
        let mut shown = String::from(if head { "…" } else { "" });
        shown.extend(visible.iter().flat_map(|cell| cell.characters()));
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

    fn characters(&self) -> impl Iterator<Item = char> {
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
fn visible_range(cells: &[Cell], focus: usize) -> (usize, usize) {
    if cells.iter().map(|cell| cell.width).sum::<usize>() <= MAX_WIDTH {
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
    while last < cells.len() && used + cells[last].width <= MAX_WIDTH {
        used += cells[last].width;
        last += 1;
    }
    (first, last)
}

/// The nearest character boundary at or before `at`.
fn char_boundary_before(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
