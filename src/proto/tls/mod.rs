//! TLS as far as it can be read without a key: what a ClientHello asks for, and simple-obfs, which
//! only dresses up as TLS.

mod client_hello;
mod obfs;
mod reader;

pub use client_hello::ClientHello;
pub use obfs::{Decoder, Encoder, ObfsHello};
pub use reader::{HelloReader, Progress};

/// The first byte of a record that begins a handshake (RFC 8446 section 5.1).
pub const HANDSHAKE: u8 = 0x16;

/// A message of a handshake that begins one (RFC 8446 section 4).
const CLIENT_HELLO: u8 = 1;

/// Bytes of a record's header: type, version, length.
const RECORD_HEADER: usize = 5;

/// Plaintext in a record at most (RFC 8446 section 5.1).
const MAX_RECORD: usize = 1 << 14;
