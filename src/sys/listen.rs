//! Listening sockets. Each worker has its own socket for every IP address (SO_REUSEPORT); all
//! workers share the socket of a Unix path. Options that accepted sockets inherit are set here,
//! once, instead of on every connection.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::sockopt;
use rustix::net::{
    self, AddressFamily, Shutdown, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType,
};

use super::options::set_int;
use super::stream::set_keepalive;
use super::{Address, Errno, Keepalive};

/// Options of a listening socket.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// Length of the accept queue.
    pub backlog: i32,
    /// TCP_NODELAY for accepted connections.
    pub nodelay: bool,
    /// TCP keepalive for accepted connections.
    pub keepalive: Option<Keepalive>,
    /// TCP Fast Open (tcp(7)); its queue is as long as the backlog.
    pub fast_open: bool,
    /// SO_REUSEPORT: several sockets, one for each worker, share the address.
    pub reuse_port: bool,
}

/// Binds and listens. The socket is non-blocking.
///
/// # Errors
/// As bind(2) and listen(2): EADDRINUSE, EACCES, EADDRNOTAVAIL.
pub fn listen(address: &Address, options: ListenOptions) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = match address {
        Address::Ip(ip) => {
            let socket = tcp_socket(*ip, flags)?;
            prepare(&socket, options)?;
            net::bind(&socket, ip)?;
            socket
        }
        Address::Unix(path) => {
            let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            net::bind(&socket, &SocketAddrUnix::new(path)?)?;
            socket
        }
    };
    net::listen(&socket, options.backlog)?;
    // The type stands for Unix listeners as well, since the runtime takes no other type.
    Ok(TcpListener::from(socket))
}

/// Fails with EADDRINUSE if a socket listens on the address. bind(2) without SO_REUSEPORT then
/// fails, even if that socket has set the option. The socket that is bound here never listens, so
/// no client connects to it.
///
/// # Errors
/// As bind(2): EADDRINUSE, EACCES, EADDRNOTAVAIL.
pub fn probe_tcp(ip: SocketAddr) -> io::Result<()> {
    let socket = tcp_socket(ip, SocketFlags::CLOEXEC)?;
    // With this option sockets in TIME_WAIT do not count.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(net::bind(&socket, &ip)?)
}

/// Accepts a connection without waiting.
///
/// # Errors
/// `AGAIN` if no connection waits; otherwise as accept(2).
pub fn try_accept(listener: &impl AsFd) -> Result<(OwnedFd, Address), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (fd, peer) = net::acceptfrom_with(listener, flags)?;
    Ok((fd, peer.map_or_else(unnamed, to_address)))
}

/// Returns how many connections wait in the accept queue of a listening TCP socket; 0 for a Unix
/// socket, which does not report it.
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

/// Ends the accepts that wait on the socket, with EINVAL, and refuses new connections
/// (shutdown(2)).
pub fn stop_listening(listener: &impl AsFd) {
    let _ = net::shutdown(listener, Shutdown::Read);
}

fn tcp_socket(ip: SocketAddr, flags: SocketFlags) -> io::Result<OwnedFd> {
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    if ip.is_ipv6() {
        // `[::]` and `0.0.0.0` are two separate listeners, as in nginx.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

fn prepare(socket: &OwnedFd, options: ListenOptions) -> io::Result<()> {
    sockopt::set_socket_reuseaddr(socket, true)?;
    if options.reuse_port {
        sockopt::set_socket_reuseport(socket, true)?;
    }
    if options.nodelay {
        sockopt::set_tcp_nodelay(socket, true)?;
    }
    if let Some(keepalive) = options.keepalive {
        set_keepalive(socket.as_fd(), keepalive)?;
    }
    if options.fast_open {
        set_int(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN, options.backlog)?;
    }
    Ok(())
}

fn to_address(address: SocketAddrAny) -> Address {
    if let Ok(ip) = address.clone().try_into() {
        return Address::Ip(ip);
    }
    let path = SocketAddrUnix::try_from(address).ok();
    match path.as_ref().and_then(SocketAddrUnix::path_bytes) {
        Some(path) => {
            use std::os::unix::ffi::OsStrExt;
            Address::Unix(std::ffi::OsStr::from_bytes(path).into())
        }
        None => unnamed(),
    }
}

/// The address of a Unix client that is bound to no path.
fn unnamed() -> Address {
    Address::Unix(std::path::PathBuf::new())
}
