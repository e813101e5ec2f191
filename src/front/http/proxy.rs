//! Requests that go on to a cluster, and the responses to them (RFC 9110 section 7.6).
//!
//! | file | what it does |
//! | --- | --- |
//! | `request` | makes the request that the cluster gets, before anything waits |
//! | `exchange` | sends it, and passes the response on; the same for each version of HTTP |
//! | `http1` | the client's side of an exchange in HTTP/1.1; that of HTTP/2 is in `http2` |
//! | `response` | what the client gets: head, framing, persistence |
//! | `upload` | sends the body of the request, beside what is read of the response |
//!
//! Bodies are never stored: a side that is slow slows the other one down. A body with a length is
//! spliced if both sides are plain, as in a tunnel.

mod exchange;
mod http1;
mod request;
mod response;
mod upload;

pub(in crate::front) use exchange::{Client, Exchange, Missing, Passed};
pub(in crate::front) use request::{Proxied, Source, write_head};
pub(in crate::front) use response::{pass_interim, response_fields};
pub(in crate::front) use upload::{Sent, beside, failed, is_whole};
