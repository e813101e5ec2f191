//! HTTP/1.1 as a strict server reads it (RFC 9110, RFC 9112).
//!
//! A front end that guesses what a malformed request meant will one day guess otherwise than the
//! server behind it. So everything ambiguous is refused: see [`request`]. Heads are found by
//! [`HeadScan`] as bytes arrive and parsed once, when they are complete.

pub mod answer;
mod body;
mod path;
mod request;
mod response;
mod scan;
mod upgrade;

pub use body::{Body, BodyEnd};
pub use path::has_dot_segment;
pub use request::{Reject, Request, Version, parse_request};
pub use response::{Response, may_begin_response, parse_response};
pub use scan::{HeadScan, Scan};
pub use upgrade::{UpgradeList, write_websocket_alone};

/// Fields that a head may have at most; the configuration's limit is lower or equal.
pub const MAX_HEADERS: usize = 256;
