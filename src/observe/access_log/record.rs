//! The data of one finished connection, request or tunnel.
//!
//! A record borrows its values from their owners, so creating it allocates nothing. The `format`
//! module turns it into a line.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use crate::observe::outcome::{Copied, End, Relay};
use crate::sys::Address;

/// One finished connection, request or tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the connection was accepted or the first byte of the request arrived.
    pub start: SystemTime,
    /// The listener's name.
    pub listener: &'a str,
    /// `tcp`, `HTTP/1.1`, `HTTP/1.0`, `tls` or `udp`.
    pub protocol: &'static str,
    /// The client's address.
    pub client: &'a Address,
    /// The request's method as sent.
    pub method: Option<&'a str>,
    /// The request's host as sent.
    pub host: Option<&'a str>,
    /// The request's path as sent.
    pub path: Option<&'a str>,
    /// The status of the response that the client received.
    pub status: Option<u16>,
    /// The route that matched.
    pub route: Option<&'a str>,
    /// The cluster of the route.
    pub cluster: Option<&'a str>,
    /// The endpoint that was chosen, whether or not it could be reached.
    pub endpoint: Option<&'a Address>,
    /// The number of connect attempts. `None` if the record has no connect.
    pub attempts: Option<u32>,
    /// The endpoints that failed, without repetitions.
    pub failed_endpoints: &'a [Rc<Address>],
    /// Why the request was refused, in one word.
    pub reason: Option<&'static str>,
    /// The time from `start` to the end.
    pub duration: Duration,
    /// The time spent on connecting to the upstream, all attempts together. `None` if no attempt
    /// was made.
    pub connect: Option<Duration>,
    /// Bytes from client to upstream.
    pub bytes_up: u64,
    /// Bytes from upstream to client, or bytes of ringgate's own response.
    pub bytes_down: u64,
    /// How bytes were relayed.
    pub relay: Relay,
    /// Which side ended it, or what failed.
    pub end: End,
    /// The status of the upstream's response.
    pub upstream_status: Option<u16>,
    /// The time from the end of the request to the first byte of the upstream's response.
    pub first_byte: Option<Duration>,
    /// Whether the connection to the upstream had a request before.
    pub is_reused: Option<bool>,
    /// How often the request was sent again over another connection.
    pub retries: Option<u32>,
    /// Why the direction with more bytes was copied.
    pub copied: Option<Copied>,
    /// Bytes to the client without the heads of responses.
    pub body_bytes: u64,
    /// The request's `Referer`. `None` also if the format does not ask for it.
    pub referer: Option<&'a [u8]>,
    /// The request's `User-Agent`. `None` also if the format does not ask for it.
    pub user_agent: Option<&'a [u8]>,
    /// The client's TLS session, if it has one that ends here.
    pub tls: Option<Tls<'a>>,
}

/// A TLS session, or an attempt at one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tls<'a> {
    /// "1.2" or "1.3".
    pub version: Option<&'static str>,
    /// The name of the cipher suite.
    pub cipher: Option<&'static str>,
    /// The server name that the client has sent (SNI).
    pub server_name: Option<&'a str>,
    /// The protocol that was agreed on (ALPN).
    pub protocol: Option<&'a str>,
    /// Whether an earlier session was resumed.
    pub is_resumed: Option<bool>,
    /// The time from the accept to the end of the handshake.
    pub handshake: Option<Duration>,
    /// Why the handshake or the session failed, in one word.
    pub error: Option<&'static str>,
}
