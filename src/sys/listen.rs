//! Listening sockets. Each worker has its own socket for every IP address (SO_REUSEPORT); all
//! workers share the socket of a Unix path. Options that accepted sockets inherit are set here,
//! once, instead of on every connection.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use socket2::{SockAddr, SockRef, Socket, Type};

use super::options::SocketOptions;
use super::{Address, Errno, to_errno};

/// Binds and listens. The socket is non-blocking. With `reuse_port` several sockets, one for each
/// worker, share the address (SO_REUSEPORT).
///
/// # Errors
/// As bind(2) and listen(2): EADDRINUSE, EACCES, EADDRNOTAVAIL.
pub fn listen(
    address: &Address,
    options: &SocketOptions,
    reuse_port: bool,
) -> io::Result<TcpListener> {
    let socket = bind_without_listening(address, options, reuse_port)?;
    SockRef::from(&socket).listen(options.backlog)?;
    Ok(socket)
}

/// As [`listen`], but clients that connect do not come to this socket until [`listen_anew`].
///
/// # Errors
/// As bind(2).
pub fn bind_without_listening(
    address: &Address,
    options: &SocketOptions,
    reuse_port: bool,
) -> io::Result<TcpListener> {
    let address = address.to_sock_addr()?;
    let socket = socket_for(&address, Type::STREAM.nonblocking())?;
    if !address.is_unix() {
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(reuse_port)?;
        options.set_on_listener(&socket)?;
    }
    socket.bind(&address)?;
    // The type stands for Unix listeners as well, since the runtime takes no other type.
    Ok(TcpListener::from(socket))
}

/// Sets the options of a socket that listens already: of one that a reload keeps, or that another
/// process has bound. A second listen(2) changes the length of the accept queue.
///
/// # Errors
/// As listen(2) and setsockopt(2); practically never.
pub fn listen_anew(listener: &impl AsFd, options: &SocketOptions, is_unix: bool) -> io::Result<()> {
    let socket = SockRef::from(listener);
    if !is_unix {
        options.set_on_listener(&socket)?;
    }
    socket.listen(options.backlog)
}

/// Returns true if a socket listens (SO_ACCEPTCONN of socket(7)).
pub fn listens(socket: &impl AsFd) -> bool {
    SockRef::from(socket).is_listener().unwrap_or_default()
}

/// Fails with EADDRINUSE if a socket listens on the address. bind(2) without SO_REUSEPORT then
/// fails, even if that socket has set the option. The socket that is bound here never listens, so
/// no client connects to it.
///
/// # Errors
/// As bind(2): EADDRINUSE, EACCES, EADDRNOTAVAIL.
pub fn probe_tcp(ip: SocketAddr) -> io::Result<()> {
    let address = ip.into();
    let socket = socket_for(&address, Type::STREAM)?;
    // With this option sockets in TIME_WAIT do not count.
    socket.set_reuse_address(true)?;
    socket.bind(&address)
}

/// Accepts a connection without waiting.
///
/// # Errors
/// `AGAIN` if no connection waits; otherwise as accept(2).
pub fn try_accept(listener: &impl AsFd) -> Result<(OwnedFd, Address), Errno> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let (socket, peer) = SockRef::from(listener).accept4(flags).map_err(to_errno)?;
    Ok((socket.into(), Address::of_peer(&peer)))
}

/// Returns how many connections wait in the accept queue of a listening TCP socket; 0 for a Unix
/// socket, which does not report it. Neither socket2 nor rustix has TCP_INFO.
pub fn accept_queue_length(listener: &impl AsFd) -> usize {
    const LENGTH: usize = size_of::<libc::tcp_info>();
    // SAFETY: all of its fields are numbers, for which zero bytes are a valid value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = LENGTH as libc::socklen_t;
    // SAFETY: the pointers and the length are those of `info` and `length`, which live until the
    // call returns.
    let result = unsafe {
        libc::getsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    // For a listening socket this field is the length of the queue (tcp_get_info of Linux).
    if result == 0 { info.tcpi_unacked as usize } else { 0 }
}

/// Makes a socket that can be bound to the address.
pub(super) fn socket_for(address: &SockAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), kind, None)?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are two separate listeners, as in nginx.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}
