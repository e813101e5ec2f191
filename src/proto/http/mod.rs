//! HTTP/1.1 as a strict server reads it (RFC 9110, RFC 9112).
//!
//! If a front end guesses the meaning of a malformed request, the server behind it may guess
//! differently. Therefore everything ambiguous is refused: see `request`. [`HeadScan`] finds the
//! end of a head as bytes arrive; the head is parsed once, when it is complete. What is passed on
//! is written anew: heads by [`forward`], chunked bodies by the codecs of `chunks`.

mod body;
mod chunks;
mod coding;
mod conditional;
mod fields;
pub mod forward;
mod media_type;
mod path;
mod percent;
mod range;
mod request;
mod response;
pub mod response_head;
mod scan;
mod upgrade;

pub use body::{Body, BodyEnd};
pub use chunks::{Dechunk, Enchunk, Rechunk};
pub use coding::{Coding, Codings};
pub use conditional::{Conditions, Etag, Lines, Validators, Verdict};
pub use fields::{Fields, Hop, write_title_case};
pub use media_type::{UNKNOWN as UNKNOWN_MEDIA_TYPE, media_type};
pub use path::{has_dot_segment, is_same_path, match_prefix};
pub use percent::{FilePath, MAX_FILE_PATH};
pub use range::{ByteRange, Requested};
pub use request::{Reject, Request, Version, parse_request};
pub use response::{RequestKind, Response, may_begin_response, parse_response};
pub use scan::{HeadScan, Scan};
pub use upgrade::{UpgradeList, write_websocket_alone};

/// The largest number of fields in a head. The configured limit is lower or equal.
pub const MAX_HEADERS: usize = 256;
