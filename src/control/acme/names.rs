//! The names that share a certificate, and the name of the file in which it is kept.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

/// A DNS name has 253 characters at most (RFC 1035 section 2.3.4), a label 63.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;
/// A certificate of a public authority has 100 names at most.
const MAX_NAMES: usize = 100;
/// A longer first name is shortened in the name of the file, which has 255 bytes at most.
const MAX_STEM: usize = 100;

/// The exact DNS names of one certificate, at least one, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Names(Vec<Box<str>>);

/// Why names cannot share a certificate of an ACME directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamesError {
    /// There is none.
    Empty,
    /// There are more than a certificate may have.
    TooMany,
    /// This one is no exact DNS name in its ASCII form.
    Invalid(String),
}

impl Names {
    /// Checks names. Duplicates are dropped; the first name stays the first.
    ///
    /// # Errors
    /// There is none, there are too many, or one is no exact DNS name: a wildcard cannot be proven
    /// by http-01 or tls-alpn-01.
    pub fn new<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Result<Names, NamesError> {
        let mut kept: Vec<Box<str>> = Vec::new();
        for name in names {
            let name = name.as_ref().to_ascii_lowercase();
            if !is_dns_name(&name) {
                return Err(NamesError::Invalid(name));
            }
            if !kept.iter().any(|other| **other == *name) {
                kept.push(name.into());
            }
        }
        match kept.len() {
            0 => Err(NamesError::Empty),
            1..=MAX_NAMES => Ok(Names(kept)),
            _ => Err(NamesError::TooMany),
        }
    }

    /// The names, the first one first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    /// The first name.
    pub fn first(&self) -> &str {
        &self.0[0]
    }

    /// The name of the file of the certificate: `NAME.pem`, or `NAME+DIGEST.pem` where the name
    /// alone does not tell the certificate. No DNS name has a `+`, so that the two forms differ.
    pub(super) fn file_name(&self) -> String {
        let first = self.first();
        if self.0.len() == 1 && first.len() <= MAX_STEM {
            return format!("{first}.pem");
        }
        let mut sorted: Vec<&str> = self.iter().collect();
        sorted.sort_unstable();
        let digest = short_digest(&sorted.join(" "));
        format!("{}+{digest}.pem", &first[..first.len().min(MAX_STEM)])
    }
}

/// The first 64 bits of the SHA-256 of a text, in hexadecimal.
pub(super) fn short_digest(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns true for letters, digits and hyphens in labels (RFC 1123 section 2.1). The last label is
/// no number: that would be an IPv4 address.
fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= MAX_NAME
        && name.split('.').all(is_label)
        && !name.rsplit('.').next().is_none_or(is_number)
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl fmt::Display for NamesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NamesError::Empty => f.write_str("a certificate needs at least one name"),
            NamesError::TooMany => write!(f, "a certificate has {MAX_NAMES} names at most"),
            NamesError::Invalid(name) => {
                write!(f, "{name:?} is no exact DNS name in its ASCII form")
            }
        }
    }
}

impl std::error::Error for NamesError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(names: &[&str]) -> Names {
        Names::new(names).unwrap()
    }

    #[test]
    fn names_are_lower_case_and_counted_once() {
        let names = names(&["WWW.Example.com", "example.com", "www.example.com"]);
        assert_eq!(names.iter().collect::<Vec<_>>(), ["www.example.com", "example.com"]);
        assert_eq!(names.to_string(), "www.example.com, example.com");
    }

    #[test]
    fn only_exact_dns_names_are_accepted() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", &label[..61]);
        for good in ["a", "a.b", "xn--bcher-kva.example", "1.example", "a--b.c", longest.as_str()] {
            assert!(Names::new([good]).is_ok(), "{good}");
        }
        let (long_label, long) = (format!("{label}a.com"), format!("{longest}a"));
        for bad in [
            "",
            ".",
            "..",
            "../a",
            "a/b",
            "a..b",
            ".a",
            "a.",
            "*.a",
            "a_b",
            "a b",
            "a\0b",
            "-a.b",
            "a-.b",
            "bücher.example",
            "127.0.0.1",
            "[::1]",
            "a+b",
            "a\n",
            &long_label,
            &long,
        ] {
            assert_eq!(Names::new([bad]), Err(NamesError::Invalid(bad.to_owned())), "{bad}");
        }
        assert_eq!(Names::new::<&str>([]), Err(NamesError::Empty));
        let many = (0..101).map(|number| format!("n{number}.test"));
        assert_eq!(Names::new(many), Err(NamesError::TooMany));
    }

    #[test]
    fn the_file_is_told_by_the_names_and_not_by_their_order() {
        assert_eq!(names(&["a.test"]).file_name(), "a.test.pem");
        let file = |list: &[&str]| names(list).file_name();
        let three = file(&["a.test", "b.test", "c.test"]);
        assert!(three.starts_with("a.test+") && three.ends_with(".pem"), "{three}");
        assert_eq!(three, file(&["a.test", "c.test", "b.test"]));
        assert_ne!(three, file(&["a.test", "b.test"]));
        // The separator is not part of a name.
        assert_ne!(file(&["a.test", "b.test"]), file(&["a.test", "b.tes", "t"]));
    }

    proptest! {
        #[test]
        fn a_file_lies_in_its_directory(
            list in prop::collection::vec("\\PC{0,40}|[a-z./+-]{0,260}", 1..4)
        ) {
            if let Ok(names) = Names::new(&list) {
                let file = names.file_name();
                prop_assert!(file.len() <= 200 && file.ends_with(".pem"));
                prop_assert!(!file.starts_with('.') && !file.contains(['/', '\0']));
            }
        }

        #[test]
        fn names_that_differ_have_files_that_differ(
            one in "[a-c]{1,2}(\\.[a-c]){0,60}", other in "[a-c]{1,2}(\\.[a-c]){0,60}"
        ) {
            let (one, other) = (names(&[&one]), names(&[&other]));
            prop_assert_eq!(one == other, one.file_name() == other.file_name());
        }
    }
}
