//! Ports from the kernel that stay ours, and endpoints that do not answer.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// A port of 127.0.0.1 that nobody else is given while this lives.
///
/// The socket is bound but does not listen: a child that sets SO_REUSEADDR can listen there, the
/// kernel gives the port to nobody who asks for any port, and until somebody listens connecting to
/// it is refused.
pub(crate) struct ReservedPort {
    address: SocketAddr,
    _socket: Socket,
}

/// Reserves a port for a child that cannot say which port it got.
pub(crate) fn free_port() -> ReservedPort {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    ReservedPort { address, _socket: socket }
}

impl ReservedPort {
    pub(crate) fn number(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// An address where connecting neither succeeds nor fails: its accept queue is full, so SYNs are
/// dropped.
pub(crate) struct Blackhole {
    address: SocketAddr,
    _listener: Socket,
    _filler: TcpStream,
}

impl Blackhole {
    pub(crate) fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        // A queue of 0 still takes one connection (listen(2)).
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let filler = TcpStream::connect(address).unwrap();
        let probe = TcpStream::connect_timeout(&address, Duration::from_millis(100));
        assert!(probe.is_err(), "the blackhole answers");
        Blackhole { address, _listener: listener, _filler: filler }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}
