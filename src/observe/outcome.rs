//! How a connection, request, tunnel or session went. Every way of serving makes an [`Outcome`];
//! the access log and the counters read it.

use std::rc::Rc;
use std::time::Duration;

use super::endpoints::EndpointCells;
use crate::sys::Address;

/// What is known of a connection, request, tunnel or session when it has ended.
#[derive(Debug)]
pub struct Outcome {
    /// Which side ended it, or what failed.
    pub end: End,
    /// The status of the response that the client received.
    pub status: Option<u16>,
    /// The status of the upstream's response.
    pub upstream_status: Option<u16>,
    /// Why a request was refused, in one word.
    pub reason: Option<&'static str>,
    /// The endpoint that was chosen, whether or not it could be reached.
    pub endpoint: Option<Rc<Address>>,
    /// The counters of the endpoint. `None` if it was not connected to.
    pub used: Option<Rc<EndpointCells>>,
    /// The number of connect attempts. `None` if there was nothing to connect to.
    pub attempts: Option<u32>,
    /// The endpoints that failed, without repetitions.
    pub failed_endpoints: Vec<Rc<Address>>,
    /// The time spent on connecting, all attempts together. `None` if nothing was connected.
    pub connect: Option<Duration>,
    /// The time from the end of the request to the first byte of the upstream's response, 0 if that
    /// came first. `None` without a response to a request that was passed on.
    pub first_byte: Option<Duration>,
    /// Whether the connection to the upstream had a request before. `None` unless a request was
    /// passed on.
    pub is_reused: Option<bool>,
    /// How often the request was sent again over another connection. `None` unless a request was
    /// passed on.
    pub retries: Option<u32>,
    /// Bytes from client to upstream, or of the head of a request that ringgate answered itself.
    pub bytes_up: u64,
    /// Bytes from upstream to client, or bytes of ringgate's own response.
    pub bytes_down: u64,
    /// Those of `bytes_up` and `bytes_down` that the counters of the listener have already.
    pub counted: [u64; 2],
    /// Those of `bytes_down` that are the head of a response.
    pub head_down: u64,
    /// Those of `bytes_down` that are a response of ringgate in place of the upstream's.
    pub own_down: u64,
    /// How bytes were relayed.
    pub relay: Relay,
    /// Why the direction with more bytes was copied; `None` if it was spliced or had no bytes.
    pub copied: Option<Copied>,
}

impl Outcome {
    /// An outcome without a connect and without bytes.
    pub fn new(end: End) -> Outcome {
        Outcome {
            end,
            status: None,
            upstream_status: None,
            reason: None,
            endpoint: None,
            used: None,
            attempts: None,
            failed_endpoints: Vec::new(),
            connect: None,
            first_byte: None,
            is_reused: None,
            retries: None,
            bytes_up: 0,
            bytes_down: 0,
            counted: [0; 2],
            head_down: 0,
            own_down: 0,
            relay: Relay::None,
            copied: None,
        }
    }
}

/// Why bytes were copied and not spliced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// Never enough bytes arrived at one time.
    FewBytes,
    /// A codec changes the bytes.
    Codec,
    /// No pipe was free.
    NoPipe,
    /// One of the sides is encrypted.
    Tls,
}

impl Copied {
    /// The number of reasons.
    pub const COUNT: usize = Copied::Tls as usize + 1;

    /// All reasons, in the order of their numbers.
    pub const ALL: [Copied; Copied::COUNT] =
        [Copied::FewBytes, Copied::Codec, Copied::NoPipe, Copied::Tls];

    /// The word in the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            Copied::FewBytes => "few_bytes",
            Copied::Codec => "codec",
            Copied::NoPipe => "no_pipe",
            Copied::Tls => "tls",
        }
    }
}

/// How bytes were relayed between client and upstream, or how those of a large file were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Relay {
    /// Nothing was relayed.
    #[default]
    None,
    /// Through a buffer of ringgate.
    Copy,
    /// Through a pipe in the kernel.
    Splice,
}

impl Relay {
    /// The number of ways.
    pub const COUNT: usize = Relay::Splice as usize + 1;

    /// All ways, in the order of their numbers.
    pub const ALL: [Relay; Relay::COUNT] = [Relay::None, Relay::Copy, Relay::Splice];

    /// The word in the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            Relay::None => "none",
            Relay::Copy => "copy",
            Relay::Splice => "splice",
        }
    }
}

/// Why a connection, request, tunnel or session ended: the first cause, not what followed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
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
    /// The client did not complete a request head or a ClientHello in time.
    HeadTimeout,
    /// The client did not complete a request body in time.
    BodyTimeout,
    /// No endpoint accepted the connection within the connect timeout.
    ConnectTimeout,
    /// Every endpoint that was tried refused the connection or was unreachable.
    ConnectFailed,
    /// The cluster had no endpoint to try.
    NoEndpoint,
    /// No rule matches what the client asks for.
    NoRoute,
    /// The session, or the unfinished TLS handshake, made room for another one.
    Evicted,
    /// A limit on connections, or on what streams of HTTP/2 may open, or the budget of memory was
    /// reached.
    Overflow,
    /// The client sent an invalid or unacceptable request, or an invalid frame in a tunnel.
    BadRequest,
    /// The upstream sent an invalid or unacceptable response.
    BadResponse,
    /// The upstream did not respond in time.
    ResponseTimeout,
    /// The worker drains or stops.
    Drain,
    /// The request was answered completely.
    Done,
    /// ringgate itself failed, for example because it had no free descriptors.
    Local,
    /// The client's TLS handshake failed, or its session: a record was invalid, or the connection
    /// ended without close_notify.
    TlsFailed,
    /// The same of the session with the upstream.
    UpstreamTlsFailed,
    /// The admin endpoint was asked to close the connection.
    AdminClosed,
}

impl End {
    /// The number of different ends.
    pub const COUNT: usize = End::AdminClosed as usize + 1;

    /// All ends, in the order of their numbers.
    pub const ALL: [End; End::COUNT] = [
        End::Client,
        End::Upstream,
        End::ClientReset,
        End::UpstreamReset,
        End::Idle,
        End::HalfClosedTimeout,
        End::HeadTimeout,
        End::BodyTimeout,
        End::ConnectTimeout,
        End::ConnectFailed,
        End::NoEndpoint,
        End::NoRoute,
        End::Evicted,
        End::Overflow,
        End::BadRequest,
        End::BadResponse,
        End::ResponseTimeout,
        End::Drain,
        End::Done,
        End::Local,
        End::TlsFailed,
        End::UpstreamTlsFailed,
        End::AdminClosed,
    ];

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
            End::BodyTimeout => "body_timeout",
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
            End::TlsFailed => "tls_failed",
            End::UpstreamTlsFailed => "upstream_tls_failed",
            End::AdminClosed => "admin_closed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_is_listed_once_at_its_number() {
        for (index, end) in End::ALL.into_iter().enumerate() {
            assert_eq!(end as usize, index, "{end:?}");
        }
        for (index, copied) in Copied::ALL.into_iter().enumerate() {
            assert_eq!(copied as usize, index, "{copied:?}");
        }
        for (index, relay) in Relay::ALL.into_iter().enumerate() {
            assert_eq!(relay as usize, index, "{relay:?}");
        }
    }
}
