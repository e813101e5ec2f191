//! The parts of a TLS ClientHello (RFC 8446 section 4.1.2) that decide where a connection is
//! routed: the server name and the offered protocols. Reading them needs no key.

mod reader;

pub use reader::{HelloReader, Progress};

/// The content type of a record that carries handshake messages (RFC 8446 section 5.1).
pub const HANDSHAKE: u8 = 0x16;

/// The handshake message type of a ClientHello (RFC 8446 section 4).
const CLIENT_HELLO: u8 = 1;

/// Length of a record header: type, version, length.
pub(super) const RECORD_HEADER: usize = 5;

/// The largest plaintext of a record (RFC 8446 section 5.1).
pub(super) const MAX_RECORD: usize = 1 << 14;

/// The names in a ClientHello, borrowed from the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// The server name (RFC 6066 section 3), as sent, without a trailing dot.
    pub server_name: Option<&'a str>,
    /// The protocols that the client offers (RFC 7301), in its order. The bytes have the format of
    /// the extension: each name is preceded by its length.
    protocols: &'a [u8],
}

impl<'a> ClientHello<'a> {
    /// Parses the message that follows the handshake header. Returns `None` if it is malformed.
    pub fn parse(message: &'a [u8]) -> Option<ClientHello<'a>> {
        let mut rest = Bytes(message);
        rest.take(2 + 32)?;
        rest.vector8()?; // legacy_session_id
        rest.vector16()?; // cipher_suites
        rest.vector8()?; // legacy_compression_methods
        let mut hello = ClientHello::default();
        if rest.0.is_empty() {
            return Some(hello);
        }
        let mut extensions = Bytes(rest.vector16()?);
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let body = Bytes(extensions.vector16()?);
            match kind {
                extension::SERVER_NAME if hello.server_name.is_none() => {
                    hello.server_name = server_name(body)?;
                }
                extension::PROTOCOLS if hello.protocols.is_empty() => {
                    hello.protocols = protocols(body)?;
                }
                // An extension that occurs twice is ambiguous: servers may use either one.
                extension::SERVER_NAME | extension::PROTOCOLS => return None,
                _ => {}
            }
        }
        rest.0.is_empty().then_some(hello)
    }

    /// Returns true when the client offers this protocol.
    pub fn offers(&self, protocol: &[u8]) -> bool {
        let mut rest = Bytes(self.protocols);
        std::iter::from_fn(|| rest.vector8()).any(|offered| offered == protocol)
    }
}

pub(super) mod extension {
    pub(crate) const SERVER_NAME: u16 = 0;
    pub(super) const PROTOCOLS: u16 = 16;
    pub(crate) const SESSION_TICKET: u16 = 35;
}

/// The outer `None` means malformed. An IP address is not a valid name (RFC 6066 section 3), but
/// some clients send one, so it is accepted.
fn server_name(mut body: Bytes<'_>) -> Option<Option<&str>> {
    let mut list = Bytes(body.vector16()?);
    let mut found = None;
    while !list.0.is_empty() {
        let kind = list.take(1)?[0];
        let name = list.vector16()?;
        if kind == 0 && found.replace(name).is_some() {
            return None;
        }
    }
    let Some(name) = found else { return Some(None) };
    let name = std::str::from_utf8(name).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    (!name.is_empty() && name.bytes().all(valid)).then_some(Some(name))
}

/// Returns the list if every entry is complete and none is empty.
fn protocols(mut body: Bytes<'_>) -> Option<&[u8]> {
    let list = body.vector16()?;
    let mut rest = Bytes(list);
    while !rest.0.is_empty() {
        rest.vector8().filter(|protocol| !protocol.is_empty())?;
    }
    Some(list)
}

/// A cursor over the bytes that are still to be read.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Reads a vector with a one-byte length prefix.
    pub(super) fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(length.into())
    }

    /// Reads a vector with a two-byte length prefix.
    pub(super) fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector16(content: &[u8]) -> Vec<u8> {
        [&(content.len() as u16).to_be_bytes(), content].concat()
    }

    fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut out = vec![3, 3];
        out.extend_from_slice(&[9; 32]);
        out.extend_from_slice(&[0, 0, 2, 0x13, 0x01, 1, 0]);
        let body =
            |(kind, body): &(u16, Vec<u8>)| [&kind.to_be_bytes()[..], &vector16(body)].concat();
        out.extend(vector16(&extensions.iter().map(body).collect::<Vec<_>>().concat()));
        out
    }

    fn named(name: &str) -> (u16, Vec<u8>) {
        (0, vector16(&[&[0], &vector16(name.as_bytes())[..]].concat()))
    }

    fn offering(protocols: &[&str]) -> (u16, Vec<u8>) {
        let one = |protocol: &&str| [&[protocol.len() as u8], protocol.as_bytes()].concat();
        (16, vector16(&protocols.iter().map(one).collect::<Vec<_>>().concat()))
    }

    #[test]
    fn name_and_protocols_are_found_wherever_they_stand() {
        let ticket = (35, vec![1; 3000]);
        let message = hello(&[ticket, named("Cdn.Example.com."), offering(&["h2", "http/1.1"])]);
        let hello = ClientHello::parse(&message).unwrap();
        assert_eq!(hello.server_name, Some("Cdn.Example.com"));
        assert!(hello.offers(b"h2") && hello.offers(b"http/1.1"));
        assert!(!hello.offers(b"http/1") && !hello.offers(b"h2http/1.1"));
    }

    #[test]
    fn without_extensions_there_is_no_name() {
        let mut message = hello(&[]);
        assert_eq!(ClientHello::parse(&message), Some(ClientHello::default()));
        message.truncate(message.len() - 2);
        assert_eq!(ClientHello::parse(&message), Some(ClientHello::default()));
    }

    #[test]
    fn malformed_hellos_are_none() {
        for (extensions, why) in [
            (vec![named("a"), named("a")], "two names"),
            (vec![named("")], "an empty name"),
            (vec![named("a b")], "a space in the name"),
            (vec![offering(&[""])], "an empty protocol"),
            (vec![(0, vec![0, 9, 0])], "a list that is longer than it is"),
        ] {
            assert_eq!(ClientHello::parse(&hello(&extensions)), None, "{why}");
        }
        let mut longer = hello(&[named("a")]);
        longer.push(0);
        assert_eq!(ClientHello::parse(&longer), None, "a byte too many");
        for end in 0..hello(&[named("a")]).len() {
            let cut = &hello(&[named("a")])[..end];
            let read = ClientHello::parse(cut);
            assert!(read.is_none_or(|read| read.server_name.is_none()), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            at in 0usize..100,
            byte: u8,
        ) {
            let _ = ClientHello::parse(&bytes);
            let mut near = hello(&[named("a.example"), offering(&["h2"])]);
            if at < near.len() {
                near[at] = byte;
            }
            if let Some(hello) = ClientHello::parse(&near) {
                let _ = hello.offers(b"h2");
            }
        }
    }
}
