//! Values of the file and words that are known, as they stand in messages.

use std::borrow::Cow;

/// A text without characters that affect a terminal: they are escaped.
pub fn printable(text: Cow<'_, str>) -> Cow<'_, str> {
    let plain = |c: char| c.escape_debug().len() == 1 || "\"'\\".contains(c);
    if text.chars().all(plain) {
        return text;
    }
    let escape = |c: char| if plain(c) { String::from(c) } else { c.escape_debug().to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

/// Prepares a value of the file for a message: in backticks, on one line, shortened and without
/// characters that affect a terminal.
pub(in crate::config) fn quoted(value: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown = String::from("`");
    for character in value.chars().take(LONGEST) {
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown.push_str(if value.chars().nth(LONGEST).is_some() { "…`" } else { "`" });
    shown
}

/// The known word that was probably meant. The edit distance may be a third of its length, but at
/// least 1 and at most 3.
pub(in crate::config) fn closest<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let (length, word) = (word.chars().count(), word.to_lowercase());
    known
        .into_iter()
        .filter_map(|candidate| {
            let known_length = candidate.chars().count();
            let allowed = (known_length / 3).clamp(1, 3);
            // The distance is at least the difference of the lengths.
            if known_length.abs_diff(length) > allowed {
                return None;
            }
            let distance = strsim::damerau_levenshtein(&word, &candidate.to_lowercase());
            (distance <= allowed).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The note for an unknown word: the word that was probably meant, or all known words.
pub(in crate::config) fn advice(word: &str, known: &[&str]) -> String {
    match closest(word, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("write {}", one_of(known)),
    }
}

/// Formats words as "`a`, `b` or `c`".
pub(in crate::config) fn one_of(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} or {last}", before.join(", ")),
        None => String::new(),
    }
}
