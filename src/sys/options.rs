//! Socket options that neither socket2 nor rustix has: TCP_FASTOPEN of a listening socket, UDP_GRO
//! and IPV6_DONTFRAG.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets an option whose value is a number (setsockopt(2)).
pub(super) fn set_int(
    socket: &impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of `value`, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
