//! Colour for text on a terminal: errors, warnings and the excerpts of a configuration.
//!
//! Text is made without colour. When it is printed, each line is painted by its form. So the code
//! that makes the text does not depend on where it is printed.

use std::fmt::Write;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HEADLINE: Style = Style::new().bold();
/// Line numbers, and the bars beside an excerpt.
const MARGIN: Style = AnsiColor::Blue.on_default().bold();
const NOTE: Style = AnsiColor::Cyan.on_default();

/// Returns true when stderr is a terminal that shows colour and the environment allows it.
/// NO_COLOR, CLICOLOR, CLICOLOR_FORCE and TERM count as they do for the messages of the command
/// line.
pub(super) fn stderr_shows_colour() -> bool {
    AutoStream::choice(&std::io::stderr()) != ColorChoice::Never
}

/// The text as it is written to stderr: painted or not.
pub fn for_stderr(text: &str) -> String {
    if stderr_shows_colour() { painted(text) } else { text.to_owned() }
}

/// Paints errors, warnings and excerpts.
fn painted(text: &str) -> String {
    let mut painted = String::with_capacity(text.len() * 2);
    // Carets have the colour of the headline above them.
    let mut severity = ERROR;
    for line in text.split_inclusive('\n') {
        let (line, feed) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let headline = [("error:", ERROR), ("warning:", WARNING)]
            .into_iter()
            .find_map(|(word, style)| line.strip_prefix(word).map(|rest| (word, rest, style)));
        if let Some((word, rest, style)) = headline {
            severity = style;
            put(&mut painted, style, word);
            put(&mut painted, HEADLINE, rest);
        } else {
            paint_detail(&mut painted, line, severity);
        }
        painted.push_str(feed);
    }
    painted
}

/// Paints a line below a headline.
fn paint_detail(painted: &mut String, line: &str, severity: Style) {
    let content = line.trim_start();
    let (indent, content) = line.split_at(line.len() - content.len());
    if let Some(place) = content.strip_prefix("--> ") {
        painted.push_str(indent);
        put(painted, MARGIN, "-->");
        painted.push(' ');
        painted.push_str(place);
    } else if let Some(note) = content.strip_prefix("= ") {
        painted.push_str(indent);
        put(painted, NOTE, "=");
        painted.push(' ');
        painted.push_str(note);
    } else if let Some((number, shown)) = content.split_once('|')
        && number.trim_end().bytes().all(|byte| byte.is_ascii_digit())
    {
        painted.push_str(indent);
        put(painted, MARGIN, &format!("{number}|"));
        // A line of the file has a number. A line with carets has none.
        let style = if number.is_empty() { severity } else { Style::new() };
        put(painted, style, shown);
    } else {
        painted.push_str(line);
    }
}

fn put(painted: &mut String, style: Style, text: &str) {
    if text.is_empty() || style.is_plain() {
        painted.push_str(text);
    } else {
        let _ = write!(painted, "{style}{text}{style:#}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Paints the text and replaces the styles by words.
    fn shown(text: &str) -> String {
        let styles = [
            (ERROR, "<error>"),
            (WARNING, "<warning>"),
            (MARGIN, "<margin>"),
            (NOTE, "<note>"),
            // Last, because other styles begin with the same bytes.
            (HEADLINE, "<bold>"),
        ];
        let named = styles
            .iter()
            .fold(painted(text), |text, (style, name)| text.replace(&style.to_string(), name));
        named.replace(&Style::new().bold().render_reset().to_string(), "</>")
    }

    #[test]
    fn every_part_of_an_error_has_its_colour() {
        let text = "error: no such key\n --> edge.toml:12:1\n   |\n12 | a|b = 1 # ^\n   | ^^^\n   \
                    = did you mean `c`?";
        let expected = "<error>error:</><bold> no such key</>\n <margin>--></> edge.toml:12:1\n   \
                        <margin>|</>\n<margin>12 |</> a|b = 1 # ^\n   \
                        <margin>|</><error> ^^^</>\n   <note>=</> did you mean `c`?";
        assert_eq!(shown(text), expected);
    }

    #[test]
    fn warnings_are_told_from_errors() {
        let text = "warning: nothing uses it\n   | ^\n\nerror: a\n   | ^\n";
        let expected = "<warning>warning:</><bold> nothing uses it</>\n   <margin>|</>\
                        <warning> ^</>\n\n<error>error:</><bold> a</>\n   <margin>|</>\
                        <error> ^</>\n";
        assert_eq!(shown(text), expected);
    }

    proptest! {
        #[test]
        fn nothing_but_colour_is_added(
            text in "(error: |warning: |[ -~\n\u{e9}]|\n *[0-9]* \\| ){0,60}",
        ) {
            prop_assert_eq!(anstream::adapter::strip_str(&painted(&text)).to_string(), text);
        }
    }
}
