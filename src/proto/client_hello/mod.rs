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
mod tests;
