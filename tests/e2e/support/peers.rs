//! Upstreams of the tests' own.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::sockets::with_deadlines;
use super::{SHORT, wait_for};

/// Sends back what it receives. Lives until the test process ends.
pub(crate) struct Echo {
    address: SocketAddr,
}

impl Echo {
    pub(crate) fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// On a socket that is already bound.
    pub(crate) fn on(listener: TcpListener) -> Self {
        let address = serve_on(listener, |mut stream| {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => return,
                    Ok(count) if stream.write_all(&buffer[..count]).is_err() => return,
                    Ok(_) => {}
                }
            }
        });
        Echo { address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Sends each datagram back behind its name. Lives until the test process ends.
pub(crate) struct UdpEcho {
    address: SocketAddr,
}

impl UdpEcho {
    pub(crate) fn start(name: &'static str) -> Self {
        Self::on(UdpSocket::bind("127.0.0.1:0").unwrap(), name)
    }

    /// On a socket that is already bound.
    pub(crate) fn on(socket: UdpSocket, name: &'static str) -> Self {
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            buffer[..name.len()].copy_from_slice(name.as_bytes());
            // An error is about an answer that nobody wanted.
            loop {
                if let Ok((length, from)) = socket.recv_from(&mut buffer[name.len()..]) {
                    let _ = socket.send_to(&buffer[..name.len() + length], from);
                }
            }
        });
        UdpEcho { address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Sends its name and closes; counts who came. Lives until the test process ends.
pub(crate) struct Named {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
}

impl Named {
    pub(crate) fn start(name: &'static str) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), name)
    }

    /// On a socket that is already bound.
    pub(crate) fn on(listener: TcpListener, name: &'static str) -> Self {
        let served = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&served);
        let address = serve_on(listener, move |mut stream| {
            count.fetch_add(1, Ordering::Relaxed);
            // A client that leaves early is for the test to notice.
            let _ = stream.write_all(name.as_bytes());
        });
        Named { address, served }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has taken.
    pub(crate) fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }
}

fn serve_on(
    listener: TcpListener,
    each: impl Fn(TcpStream) + Send + Clone + 'static,
) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let each = each.clone();
            std::thread::spawn(move || each(stream));
        }
    });
    address
}

/// An upstream whose every byte the test itself sends and reads.
pub(crate) struct Upstream {
    listener: TcpListener,
    accepted: Cell<usize>,
}

impl Upstream {
    pub(crate) fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Upstream { listener, accepted: Cell::new(0) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection.
    #[track_caller]
    pub(crate) fn accept(&self) -> TcpStream {
        let stream = wait_for("a connection to the upstream", SHORT, || self.try_accept());
        self.accepted.set(self.accepted.get() + 1);
        stream
    }

    /// A connection that is already there.
    pub(crate) fn try_accept(&self) -> Option<TcpStream> {
        let (stream, _) = self.listener.accept().ok()?;
        stream.set_nonblocking(false).unwrap();
        Some(with_deadlines(stream))
    }
}
