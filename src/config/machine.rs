//! Properties of the machine that warnings depend on. Errors do not depend on them: a valid file is
//! valid on every machine.

use std::net::IpAddr;

use crate::sys;

/// A machine that may run a configuration.
pub(super) struct Machine {
    /// The hard limit of open descriptors per process.
    pub(super) file_limit: u64,
    /// Returns true for an address of this machine.
    pub(super) is_local: fn(IpAddr) -> bool,
}

impl Machine {
    /// A machine without limits and with unknown addresses.
    pub(super) const UNKNOWN: Machine = Machine { file_limit: u64::MAX, is_local: |_| false };

    /// The machine that this process runs on.
    pub(super) fn this() -> Self {
        Machine { file_limit: sys::hard_file_limit(), is_local: sys::is_local }
    }
}
