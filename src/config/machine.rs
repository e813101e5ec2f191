//! What warnings know of the machine. Errors do not depend on it: a file that is valid is so
//! everywhere.

use std::net::IpAddr;

use crate::sys;

/// A machine that a configuration may run on.
pub(super) struct Machine {
    /// The most descriptors that a process may have open.
    pub(super) file_limit: u64,
    /// Whether an address is one of the machine's own.
    pub(super) is_local: fn(IpAddr) -> bool,
}

impl Machine {
    /// One that gives everything and of whose addresses nothing is known.
    pub(super) const UNKNOWN: Machine = Machine { file_limit: u64::MAX, is_local: |_| false };

    /// The one this process runs on.
    pub(super) fn this() -> Self {
        Machine { file_limit: sys::hard_file_limit(), is_local: sys::is_local }
    }
}
