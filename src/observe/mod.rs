//! Output about ringgate's own work: one outcome and one access-log record for each connection,
//! request and tunnel, counters, and diagnostics. Workers format records and diagnostics. Separate
//! threads write them, so a blocked log stops neither a worker nor the control plane. This module
//! does not depend on the structure of the configuration or on sockets.

pub mod access_log;
pub mod counters;
pub mod diagnostics;
pub mod earlier;
pub mod endpoints;
pub mod histogram;
pub mod hosts;
pub mod live;
mod log_file;
pub mod outcome;
mod pages;
