//! TLS, as a server and as a client: bytes of the wire on one side, plaintext on the other.
//!
//! rustls makes the handshake and protects the records. This module is its only user. It uses the
//! unbuffered API: bytes are processed where they were read, in the worker's buffer, and an idle
//! [`Session`] holds no buffer. A session knows no sockets, no clocks and no configuration: a
//! [`Server`] or a [`Client`] makes it. Its caller sends whatever is appended to an output.

mod authorities;
mod client;
mod error;
mod identity;
mod server;
mod session;
mod tickets;
mod verifier;

pub use authorities::{Authorities, SystemError};
pub use client::{Client, ClientSettings, is_server_name};
pub use error::Error;
pub use identity::{Identity, IdentityError, KeyKind, PemFault};
pub use server::{Server, ServerSettings};
pub use session::{MAX_HANDSHAKE, MAX_KEPT, MAX_PLAINTEXT, Output, Session, State};
pub use tickets::{KeysFault, ROTATION, TicketKeys};

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

#[cfg(test)]
mod tests;
