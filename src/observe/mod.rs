//! What ringgate tells about itself: one access record per connection, request and tunnel, and
//! diagnostics. Workers format both; threads of their own write them, so that a log that takes
//! nothing more stops neither a worker nor the control plane. Knows nothing of the configuration's
//! shape and nothing of sockets.

pub mod access_log;
pub mod diagnostics;
mod outlet;
