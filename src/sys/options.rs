//! Options of sockets: those that an operator sets, and a way to set those that neither socket2 nor
//! rustix has (TCP_FASTOPEN of a listening socket, UDP_GRO and IPV6_DONTFRAG).

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use socket2::{SockRef, Socket};

use super::{Keepalive, Stream};

/// Options of the sockets of a listener and of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Length of the accept queue, 1 to 65535.
    pub backlog: i32,
    /// TCP_NODELAY on both sides.
    pub nodelay: bool,
    /// TCP keepalive on both sides; `None` if off.
    pub keepalive: Option<Keepalive>,
    /// TCP_USER_TIMEOUT on both sides (tcp(7)), at most 24 days; `None` leaves it to the kernel.
    pub user_timeout: Option<Duration>,
    /// TCP Fast Open of the listening sockets (tcp(7)); its queue is as long as the backlog.
    pub fast_open: bool,
}

impl SocketOptions {
    /// Sets the options of a TCP socket that listens or is going to. Accepted connections inherit
    /// those for connections. Options that are off are set, too, because the socket may have had
    /// others before.
    pub(super) fn set_on_listener(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(self.nodelay)?;
        match self.keepalive {
            Some(keepalive) => socket.set_tcp_keepalive(&keepalive.into())?,
            None => socket.set_keepalive(false)?,
        }
        socket.set_tcp_user_timeout(self.user_timeout)?;
        if self.fast_open {
            set_int(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, self.backlog)?;
        } else {
            // A kernel without Fast Open refuses the option, and has it off.
            let _ = set_int(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 0);
        }
        Ok(())
    }

    /// Sets the options of a connection to an upstream, without keepalive, which is set later. A
    /// failure (a Unix socket) is ignored, because no caller could act on it.
    pub fn set_on_upstream(&self, stream: &Stream) {
        let socket = SockRef::from(stream);
        if self.nodelay {
            let _ = socket.set_tcp_nodelay(true);
        }
        if self.user_timeout.is_some() {
            let _ = socket.set_tcp_user_timeout(self.user_timeout);
        }
    }
}

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
