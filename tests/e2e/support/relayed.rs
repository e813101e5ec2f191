//! One relayed connection with both ends in the test's hands.

use std::io::Write;
use std::net::TcpStream;

use super::{Ringgate, Setup, Upstream, l4, read_until, site};

/// The ways bytes can take through ringgate. Relay semantics are the same over all of them.
pub(crate) const EVERY_WAY: [Way; 4] = [
    Way { tunnel: false, driver: "io_uring" },
    Way { tunnel: true, driver: "io_uring" },
    Way { tunnel: false, driver: "epoll" },
    Way { tunnel: true, driver: "epoll" },
];

/// An L4 listener or a tunnel behind an upgrade, on one of the drivers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) tunnel: bool,
    pub(crate) driver: &'static str,
}

impl Way {
    /// What the handshake of a tunnel adds to a record's bytes, up and down.
    pub(crate) fn handshake(self) -> (u64, u64) {
        if self.tunnel { (UPGRADE.len() as u64, SWITCHING.len() as u64) } else { (0, 0) }
    }
}

/// Both ends of what ringgate relays; in a tunnel the handshake is already over.
pub(crate) struct Relayed {
    pub(crate) gate: Ringgate,
    pub(crate) client: TcpStream,
    pub(crate) upstream: TcpStream,
}

pub(crate) const UPGRADE: &str = "GET /stream HTTP/1.1\r\nHost: live.example.test\r\n\
    Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
pub(crate) const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

impl Way {
    /// Opens one connection.
    #[track_caller]
    pub(crate) fn open(self) -> Relayed {
        self.open_with("1h", "1m")
    }

    /// Opens one connection with this idle timeout and this half-closed timeout.
    #[track_caller]
    pub(crate) fn open_with(self, idle: &str, half_closed: &str) -> Relayed {
        let backend = Upstream::listen();
        let gate = self.setup(&backend, idle, half_closed).start();
        let (client, upstream) = self.connect(&gate, &backend);
        Relayed { gate, client, upstream }
    }

    /// Opens one connection through a ringgate that drains no longer than this.
    #[track_caller]
    pub(crate) fn open_draining(self, drain_timeout: &str) -> Relayed {
        let backend = Upstream::listen();
        let mut setup = self.setup(&backend, "1h", "1m");
        setup.server += &format!("\ndrain_timeout = \"{drain_timeout}\"");
        let gate = setup.start();
        let (client, upstream) = self.connect(&gate, &backend);
        Relayed { gate, client, upstream }
    }

    /// A ringgate in front of `backend`, for connections made with [`Way::connect`].
    #[track_caller]
    pub(crate) fn start(self, backend: &Upstream) -> Ringgate {
        self.setup(backend, "1h", "1m").start()
    }

    /// [`Way::start`] with more listeners and clusters.
    #[track_caller]
    pub(crate) fn start_with(self, backend: &Upstream, more: &str) -> Ringgate {
        let mut setup = self.setup(backend, "1h", "1m");
        setup.config += more;
        setup.start()
    }

    fn setup(self, backend: &Upstream, idle: &str, half_closed: &str) -> Setup {
        // Captured, so shown with the test's failure only.
        eprintln!("over {self:?}");
        let idle = format!("idle_timeout = \"{idle}\"");
        let half_closed = format!("half_closed_timeout = \"{half_closed}\"");
        let to = backend.address();
        let config = if self.tunnel {
            let route = format!("path = \"/stream\"\n{idle}");
            site(&format!("\"{to}\""), &half_closed, &route, "")
        } else {
            l4(to, &format!("{idle}\n{half_closed}"), "")
        };
        let server = format!("driver = \"{}\"", self.driver);
        Setup { config, server, ..Setup::default() }
    }

    /// One more connection through a running ringgate.
    #[track_caller]
    pub(crate) fn connect(self, gate: &Ringgate, backend: &Upstream) -> (TcpStream, TcpStream) {
        if !self.tunnel {
            let client = gate.connect("ingress");
            return (client, backend.accept());
        }
        let mut client = gate.connect("web");
        client.write_all(UPGRADE.as_bytes()).unwrap();
        let mut upstream = backend.accept();
        assert_eq!(read_until(&mut upstream, b"\r\n\r\n"), UPGRADE.as_bytes());
        upstream.write_all(SWITCHING.as_bytes()).unwrap();
        assert_eq!(read_until(&mut client, b"\r\n\r\n"), SWITCHING.as_bytes());
        (client, upstream)
    }
}
