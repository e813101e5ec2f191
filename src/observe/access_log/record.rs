//! What one finished connection, request or tunnel tells.
//!
//! Borrowed from whoever knows it, so that telling it allocates nothing; the lines it becomes are
//! `format`'s business.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use crate::sys::Address;

/// One finished connection, request or tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the connection was accepted, or the first byte of the request came.
    pub start: SystemTime,
    /// The listener's name.
    pub listener: &'a str,
    /// `tcp`, `HTTP/1.1`, `HTTP/1.0`, `tls` or `udp`.
    pub protocol: &'static str,
    /// Who connected.
    pub client: &'a Address,
    /// The request's method as sent.
    pub method: Option<&'a str>,
    /// The request's host as sent.
    pub host: Option<&'a str>,
    /// The request's path as sent.
    pub path: Option<&'a str>,
    /// The status the client was given.
    pub status: Option<u16>,
    /// The route that matched.
    pub route: Option<&'a str>,
    /// The cluster the route names.
    pub cluster: Option<&'a str>,
    /// The endpoint that was chosen, whether or not it could be reached.
    pub endpoint: Option<&'a Address>,
    /// Connect attempts made; none: the record has no connect.
    pub attempts: Option<u32>,
    /// The endpoints that failed, without repetitions.
    pub failed_endpoints: &'a [Rc<Address>],
    /// Why the request was refused, in one word.
    pub reason: Option<&'static str>,
    /// From `start` to the end.
    pub duration: Duration,
    /// How long connecting to the upstream took, all attempts together; none: it was not tried.
    pub connect: Option<Duration>,
    /// Bytes from client to upstream.
    pub bytes_up: u64,
    /// Bytes from upstream to client, or of our own answer.
    pub bytes_down: u64,
    /// How bytes were moved.
    pub relay: Relay,
    /// Who ended it, or what failed.
    pub end: End,
}

/// How the bytes of a record went between client and upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// Nothing was relayed.
    None,
    /// Through a buffer of ours.
    Copy,
    /// Through a pipe in the kernel.
    Splice,
}

impl Relay {
    /// The word the log writes.
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
    /// The client closed in good order.
    Client,
    /// The upstream closed in good order.
    Upstream,
    /// The client reset the connection or vanished.
    ClientReset,
    /// The upstream reset the connection or vanished.
    UpstreamReset,
    /// Neither side sent a byte for the idle timeout.
    Idle,
    /// One side had ended and the other fell silent for the half-closed timeout.
    HalfClosedTimeout,
    /// The client did not complete a request head in time.
    HeadTimeout,
    /// No endpoint took the connection within the connect timeout.
    ConnectTimeout,
    /// Every endpoint that was tried refused or was unreachable.
    ConnectFailed,
    /// The cluster had no endpoint to try.
    NoEndpoint,
    /// No rule takes what the client asks for.
    NoRoute,
    /// A session had to make room for another one.
    Evicted,
    /// A limit on connections was reached.
    Overflow,
    /// The client sent what is no request that we accept, or no frame in a tunnel of frames.
    BadRequest,
    /// The upstream sent something that is not an answer we accept.
    BadResponse,
    /// The upstream did not answer in time.
    ResponseTimeout,
    /// We are shutting down and the drain timeout was over.
    Drain,
    /// The request was answered and the connection can carry the next one.
    Done,
    /// We failed ourselves, for example for want of descriptors.
    Local,
}

impl End {
    /// The word the log writes.
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
