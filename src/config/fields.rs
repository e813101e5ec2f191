//! Names and values of header fields, and what the configuration changes in them.

use std::fmt;

use crate::proto::http::write_title_case;

/// The name of a field, in lower case: a token (RFC 9110 section 5.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldName(Box<str>);

/// The value of a field: no control characters, and no spaces around it (RFC 9110 section 5.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldValue(Box<str>);

/// `request_fields` or `response_fields`: fields of a head that are set and removed. A name occurs
/// once in both lists together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldRules {
    /// Fields that the head gets, in place of all that have the same name. Sorted by name.
    pub set: Vec<(FieldName, FieldValue)>,
    /// The names of fields that the head loses, sorted.
    pub remove: Vec<FieldName>,
    /// The lines of `set` in HTTP/1.1, made once.
    lines: Box<[u8]>,
}

impl FieldName {
    /// Returns `None` if the text is not a token.
    pub fn new(text: &str) -> Option<FieldName> {
        let is_token_byte =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_token = !text.is_empty() && text.bytes().all(is_token_byte);
        is_token.then(|| FieldName(text.to_ascii_lowercase().into()))
    }

    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FieldValue {
    /// Returns `None` if the text cannot be the value of a field.
    pub fn new(text: &str) -> Option<FieldValue> {
        let is_value = !text.chars().any(char::is_control) && text.trim_matches(' ') == text;
        is_value.then(|| FieldValue(text.into()))
    }

    /// The value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<[u8]> for FieldName {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl AsRef<[u8]> for FieldValue {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FieldRules {
    /// Makes rules. A name must not be in both lists.
    pub fn new(mut set: Vec<(FieldName, FieldValue)>, mut remove: Vec<FieldName>) -> FieldRules {
        set.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        remove.sort_unstable();
        let mut lines = Vec::new();
        for (name, value) in &set {
            write_title_case(name.as_ref(), &mut lines);
            for bytes in [b": ", value.as_ref(), b"\r\n"] {
                lines.extend_from_slice(bytes);
            }
        }
        FieldRules { set, remove, lines: lines.into() }
    }

    /// Returns these rules followed by others. What these are about, the others do not change.
    pub fn followed_by(&self, others: &FieldRules) -> FieldRules {
        let (mut set, mut remove) = (self.set.clone(), self.remove.clone());
        let is_new = |name: &FieldName| !self.drops(name.as_str());
        set.extend(others.set.iter().filter(|(name, _)| is_new(name)).cloned());
        remove.extend(others.remove.iter().filter(|name| is_new(name)).cloned());
        FieldRules::new(set, remove)
    }

    /// The fields that are set as lines of HTTP/1.1: names in Title-Case, each line with its end.
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// Returns true if nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// Returns true if a field of the head is removed, or replaced by one that is set. The name may
    /// have any case.
    pub fn drops(&self, name: &str) -> bool {
        let is_named = |one: &FieldName| one.as_str().eq_ignore_ascii_case(name);
        self.remove.iter().any(is_named) || self.set.iter().any(|(one, _)| is_named(one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_token_in_lower_case() {
        assert_eq!(FieldName::new("X-Env").expect("a token").as_str(), "x-env");
        assert!(FieldName::new("!#$%&'*+-.^_`|~09aZ").is_some());
        for not in ["", "a b", "a:", ":a", "a\r\n", "é", "(a)", "a/b", "\"a\""] {
            assert_eq!(FieldName::new(not), None, "{not:?}");
        }
    }

    #[test]
    fn a_value_has_no_controls_and_no_spaces_around_it() {
        for value in ["", "a", "a b", "é", "max-age=0, \"x\""] {
            assert_eq!(FieldValue::new(value).expect("a value").as_str(), value);
        }
        for not in [" a", "a ", "a\r\nb: c", "a\nb", "a\0", "\ta", "a\tb", "\u{7f}", "\u{85}"] {
            assert_eq!(FieldValue::new(not), None, "{not:?}");
        }
    }

    #[test]
    fn what_is_set_or_removed_is_dropped_in_any_case() {
        let name = |text| FieldName::new(text).expect("a token");
        let value = FieldValue::new("1").expect("a value");
        let rules = FieldRules::new(vec![(name("X-Set"), value)], vec![name("cookie")]);
        assert!(rules.drops("x-SET") && rules.drops("Cookie") && !rules.drops("x-other"));
        assert!(!rules.is_empty() && FieldRules::default().is_empty());
    }

    #[test]
    fn the_first_rule_about_a_name_counts() {
        let rules = |set: &[(&str, &str)], remove: &[&str]| {
            let name = |text: &&str| FieldName::new(text).expect("a token");
            let value = |text| FieldValue::new(text).expect("a value");
            let set = set.iter().map(|(one, text)| (name(one), value(text))).collect();
            FieldRules::new(set, remove.iter().map(name).collect())
        };
        let route = rules(&[("x-b", "route"), ("etag", "e")], &["x-gone", "server"]);
        let listener = rules(
            &[("server", "s"), ("x-b", "listener"), ("x-gone", "no"), ("x-a", "a")],
            &["etag", "via"],
        );
        let both = route.followed_by(&listener);
        assert_eq!(both.lines(), b"ETag: e\r\nX-A: a\r\nX-B: route\r\n");
        assert_eq!(
            both,
            rules(&[("x-a", "a"), ("x-b", "route"), ("etag", "e")], &["server", "via", "x-gone"])
        );
        assert_eq!(FieldRules::default().followed_by(&listener), listener);
        assert_eq!(listener.followed_by(&FieldRules::default()), listener);
    }
}
