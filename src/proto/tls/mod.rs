//! TLS on the server's side: bytes of the wire on one side, plaintext on the other.
//!
//! rustls makes the handshake and protects the records. This module is its only user. It uses the
//! unbuffered API: bytes are processed where they were read, in the worker's buffer, and an idle
//! [`Session`] holds no buffer. A session knows no sockets, no clocks and no configuration. The
//! caller passes in a `rustls::ServerConfig`, and sends whatever is appended to an output.

mod error;
mod session;

pub use error::Error;
pub use session::{MAX_HANDSHAKE, MAX_KEPT, MAX_PLAINTEXT, Session, State};
