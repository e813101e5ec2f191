//! Requests that go on to a cluster, and the responses to them (RFC 9110 section 7.6).
//!
//! | file | what it does |
//! | --- | --- |
//! | `request` | makes the request that the cluster gets, before anything waits |
//! | `exchange` | sends it, and passes the response on |
//! | `response` | what the client gets: head, framing, persistence |
//! | `upload` | sends the body of the request, beside what is read of the response |
//!
//! Bodies are never stored: a side that is slow slows the other one down. A body with a length is
//! spliced if both sides are plain, as in a tunnel.

mod exchange;
mod request;
mod response;
mod upload;

pub(in crate::front) use exchange::{Missing, Passed, outcome_of};
pub(in crate::front) use request::{Proxied, Source, write_head};
pub(in crate::front) use response::response_fields;
pub(in crate::front) use upload::{Sent, beside};
