//! A value that may be missing, for serde's derive.
//!
//! An `Option` of serde ends with an error if its value has one. Here such a value is reported by
//! `read` and counts as missing, so that reading goes on.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// The name by which [`maybe`] asks for its value.
pub(in crate::config) const MAYBE: &str = "$maybe";

/// Reads a value; `None` if it does not exist or was reported.
pub(super) fn maybe<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct AtMostOne<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMostOne<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut value: A) -> Result<Option<T>, A::Error> {
            value.next_element()
        }
    }

    deserializer.deserialize_newtype_struct(MAYBE, AtMostOne(PhantomData))
}

/// Reads a list, without the elements that were reported.
pub(super) fn valid<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let elements = Vec::<Element<T>>::deserialize(deserializer)?;
    Ok(elements.into_iter().filter_map(|element| element.0).collect())
}

/// Like [`valid`]. If all elements were reported, the list is wrong as a whole, because an empty
/// list means something else.
pub(super) fn some_valid<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let valid = valid(deserializer)?;
    // `read` refuses a list that is empty in the file. An error without a text is reported already.
    if valid.is_empty() { Err(D::Error::custom("")) } else { Ok(valid) }
}

/// An element of a list, or the value of an entry; `None` if it was reported.
#[derive(Deserialize)]
#[serde(transparent, bound = "T: Deserialize<'de>")]
pub(super) struct Element<T>(#[serde(deserialize_with = "maybe")] pub(super) Option<T>);
