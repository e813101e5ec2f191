//! The admin endpoint.

use std::fmt;
use std::path::PathBuf;

use super::address;
use super::report::quoted;
use crate::sys::Address;

/// `[admin]`
#[derive(Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub address: Address,
    /// What requests must show. `None` if they need nothing.
    pub token: Option<Token>,
}

/// `admin.token_file`
#[derive(PartialEq, Eq)]
pub struct Token {
    /// The file.
    pub path: PathBuf,
    secret: Box<str>,
}

/// Reads the address of an admin endpoint, as `admin.listen` has it.
///
/// # Errors
/// The text is no address: what is wrong, and how to mend it.
pub fn admin_address(text: &str) -> Result<Address, (String, String)> {
    match address::listen(text) {
        Ok(mut addresses) if addresses.len() == 1 => Ok(addresses.remove(0)),
        Ok(_) => Err((format!("{} is a range of ports", quoted(text)), RANGE.to_owned())),
        Err(fault) => Err((fault.what, fault.note)),
    }
}

/// The note for a range of ports.
const RANGE: &str = "the admin endpoint has one port";

/// The fewest and the most characters of a token.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=1024;

impl Token {
    /// Makes the token of a file with this text. White space around it does not count. Returns
    /// `None` unless it has 16 to 1024 visible ASCII characters.
    pub fn new(path: PathBuf, text: &str) -> Option<Token> {
        let secret = text.trim_ascii();
        let is_token = secret.bytes().all(|byte| byte.is_ascii_graphic());
        (is_token && LENGTHS.contains(&secret.len())).then(|| Token { path, secret: secret.into() })
    }

    /// Compares in a time that depends on the length alone.
    pub fn is(&self, shown: &[u8]) -> bool {
        let own = self.secret.as_bytes();
        let differ = own.iter().zip(shown).fold(0, |differ, (one, other)| differ | (one ^ other));
        own.len() == shown.len() && std::hint::black_box(differ) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_and_visible_and_is_compared_whole() {
        let token = |text: &str| Token::new("file".into(), text);
        assert_eq!(token("0123456789abcde"), None);
        assert_eq!(token("0123456789 abcdef"), None);
        assert_eq!(token("0123456789abcd\u{e9}f"), None);
        assert_eq!(token(&"a".repeat(1025)), None);
        let own = token(" 0123456789abcdef\n").expect("it is a token");
        assert!(own.is(b"0123456789abcdef"));
        for other in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeF"] {
            assert!(!own.is(other.as_bytes()), "{other}");
        }
        assert!(!format!("{own:?}").contains("0123"));
    }
}
