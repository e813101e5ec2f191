//! What is wrong with a value, before it is known under which key it stands.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

/// What is wrong with a value.
#[derive(Debug)]
pub(super) enum Mistake {
    /// The value has another type than `wanted`.
    Type { wanted: String, found: &'static str },
    /// A number is out of this range, which is in words.
    Range(String),
    /// A word is none of the known ones.
    Word { word: String, known: Vec<&'static str> },
    /// One sentence that says what is wrong, and advice.
    Other { what: String, note: String },
    /// It is reported already.
    Reported,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Mistake {}

impl Error for Mistake {
    /// The first line says what is wrong, the others are advice. Without a text the mistake is
    /// reported already.
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = message.to_string();
        if message.is_empty() {
            return Mistake::Reported;
        }
        let (what, note) = message.split_once('\n').unwrap_or((&message, ""));
        Mistake::Other { what: what.to_owned(), note: note.to_owned() }
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "true or false",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number",
            Unexpected::Float(_) => "a number with a fraction",
            Unexpected::Str(_) => "a string",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            _ => "a date",
        };
        Mistake::Type { wanted: wanted.to_string(), found }
    }

    fn invalid_value(_: Unexpected<'_>, range: &dyn Expected) -> Self {
        Mistake::Range(range.to_string())
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Mistake::Word { word: word.to_owned(), known: known.to_vec() }
    }
}
