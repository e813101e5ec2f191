//! Ports for other programs, lent so that no one else can get them, and endpoints that do not
//! answer.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixDatagram};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// A port for a program that cannot say which port the kernel gave it.
///
/// It lies outside the range from which the kernel gives ports to sockets that ask for any, so that
/// nothing but its owner binds it, for TCP or UDP, before, while and after the owner does. Until
/// then connecting to it is refused.
#[derive(Clone, Copy)]
pub(crate) struct LentPort {
    number: u16,
}

/// Lends a port that this test process gets only once, and that no other test process of this
/// machine gets while this one runs.
#[track_caller]
pub(crate) fn free_port() -> LentPort {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let mut bounds = range.split_ascii_whitespace().map(|bound| bound.parse::<u16>().unwrap());
    let (first, last) = (bounds.next().unwrap(), bounds.next().unwrap());
    for number in (last..=u16::MAX).skip(1).chain(1024..first) {
        // An abstract Unix socket is a lock of this network namespace, as the port is, and the
        // kernel unlocks it when the process ends, in whichever way.
        let name = format!("ringgate-port-{number}");
        let name = unix::SocketAddr::from_abstract_name(name).unwrap();
        let Ok(lock) = UnixDatagram::bind_addr(&name) else { continue };
        if is_unused(number) {
            // Never unlocked: a test may go on using the address behind the end of this value.
            std::mem::forget(lock);
            return LentPort { number };
        }
    }
    panic!(
        "the tests need ports outside the kernel's own range, which is {first} to {last}: \
         sysctl net.ipv4.ip_local_port_range=\"32768 60999\" is the default"
    )
}

/// Whether no socket has the port, for TCP or UDP, over IPv4 or IPv6.
fn is_unused(port: u16) -> bool {
    let taken = |result: io::Result<()>| {
        // Any other error is about a machine without IPv6.
        result.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()].iter().all(|any| {
        !taken(TcpListener::bind((*any, port)).map(drop))
            && !taken(UdpSocket::bind((*any, port)).map(drop))
    })
}

impl LentPort {
    pub(crate) fn number(self) -> u16 {
        self.number
    }

    pub(crate) fn address(self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
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

/// A UDP port that refuses what is sent to it, and stays ours.
///
/// Its socket is connected to another address, so that it takes datagrams from there alone: to all
/// others the kernel answers "port unreachable", as where no socket is bound.
pub(crate) struct RefusingUdp {
    socket: UdpSocket,
}

impl RefusingUdp {
    pub(crate) fn new() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // Sends nothing, and port 9 (discard) sends nothing either.
        socket.connect((Ipv4Addr::LOCALHOST, 9)).unwrap();
        RefusingUdp { socket }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }
}
