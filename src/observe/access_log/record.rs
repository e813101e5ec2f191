//! The data of one finished connection, request or tunnel.
//!
//! A record borrows its values from their owners, so creating it allocates nothing. The `format`
//! module turns it into a line.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

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
}

/// How the bytes of a record were relayed between client and upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// Nothing was relayed.
    None,
    /// Through a buffer of ringgate.
    Copy,
    /// Through a pipe in the kernel.
    Splice,
}

impl Relay {
    /// The word in the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            Relay::None => "none",
            Relay::Copy => "copy",
            Relay::Splice => "splice",
        }
    }
}

/// Why a record ended: the first cause, not what followed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed cleanly.
    Client,
    /// The upstream closed cleanly.
    Upstream,
    /// The client reset the connection or vanished.
    ClientReset,
    /// The upstream reset the connection or vanished.
    UpstreamReset,
    /// Neither side sent a byte within the idle timeout.
    Idle,
    /// One side had ended, and the other sent nothing within the half-closed timeout.
    HalfClosedTimeout,
    /// The client did not complete a request head in time.
    HeadTimeout,
    /// No endpoint accepted the connection within the connect timeout.
    ConnectTimeout,
    /// Every endpoint that was tried refused the connection or was unreachable.
    ConnectFailed,
    /// The cluster had no endpoint to try.
    NoEndpoint,
    /// No rule matches what the client asks for.
    NoRoute,
    /// The session was removed to make room for another one.
    Evicted,
    /// A limit on connections was reached.
    Overflow,
    /// The client sent an invalid or unacceptable request, or an invalid frame in a tunnel.
    BadRequest,
    /// The upstream sent an invalid or unacceptable response.
    BadResponse,
    /// The upstream did not respond in time.
    ResponseTimeout,
    /// ringgate is shutting down and the drain timeout has expired.
    Drain,
    /// The request was answered, and the connection can carry the next one.
    Done,
    /// ringgate itself failed, for example because it had no free descriptors.
    Local,
}

impl End {
    /// The word in the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            End::Client => "client",
            End::Upstream => "upstream",
            End::ClientReset => "client_reset",
            End::UpstreamReset => "upstream_reset",
            End::Idle => "idle",
            End::HalfClosedTimeout => "half_closed_timeout",
            End::HeadTimeout => "head_timeout",
            End::ConnectTimeout => "connect_timeout",
            End::ConnectFailed => "connect_failed",
            End::NoEndpoint => "no_endpoint",
            End::NoRoute => "no_route",
            End::Evicted => "evicted",
            End::Overflow => "overflow",
            End::BadRequest => "bad_request",
            End::BadResponse => "bad_response",
            End::ResponseTimeout => "response_timeout",
            End::Drain => "drain",
            End::Done => "done",
            End::Local => "local",
        }
    }
}
