//! Listening sockets for all workers. They are bound before anything else starts, so that an
//! unavailable port is an error and not half a service.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::unix_path::{self, OwnPath};
use crate::config::{Config, Listener, Protocol};
use crate::error::Error;
use crate::sys::{self, Address};
use crate::worker::Socket;

/// How long an address in use is retried. After a process was killed, the kernel closes its rings
/// in the background, and the rings hold its sockets for some more milliseconds. A process that
/// drains closes its listening sockets within a tick of its workers.
const IN_USE_FOR: Duration = Duration::from_secs(2);
/// The pause after the first try. It doubles after each further try.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause. It is short, so that clients are not refused for longer than necessary.
const LONGEST_PAUSE: Duration = Duration::from_millis(40);
/// The longest pause for a Unix path, where each try connects to the socket's owner.
const LONGEST_PAUSE_FOR_PATH: Duration = Duration::from_millis(250);

/// All sockets, by worker.
pub(super) struct Bound {
    workers: Vec<Vec<Socket>>,
    datagrams: Vec<Vec<(Arc<str>, UdpSocket)>>,
    /// Listeners and their bound addresses, with the port that the kernel chose for port 0.
    addresses: Vec<(Arc<Listener>, Address)>,
    paths: Vec<OwnPath>,
}

/// Binds every address of every listener for `workers` workers. Addresses in use are retried for
/// two seconds.
///
/// # Errors
/// The error of the first address that is refused, with advice.
pub(super) async fn bind(config: &Config, workers: usize) -> Result<Bound, Error> {
    let mut bound = Bound {
        workers: (0..workers).map(|_| Vec::new()).collect(),
        datagrams: (0..workers).map(|_| Vec::new()).collect(),
        addresses: Vec::new(),
        paths: Vec::new(),
    };
    let until = Instant::now() + IN_USE_FOR;
    for listener in &config.listeners {
        for address in &listener.addresses {
            bound.add_until(listener, address, until).await.map_err(|error| {
                let what = format!("cannot listen on {address} (listener {})", listener.name);
                let advice = advice(address, &error);
                Error::start(what, error, advice)
            })?;
        }
    }
    Ok(bound)
}

impl Bound {
    /// Adds an address, and retries while it is in use.
    async fn add_until(
        &mut self,
        listener: &Arc<Listener>,
        address: &Address,
        until: Instant,
    ) -> io::Result<()> {
        let mut pause = FIRST_PAUSE;
        let longest = match address {
            Address::Ip(_) => LONGEST_PAUSE,
            Address::Unix(_) => LONGEST_PAUSE_FOR_PATH,
        };
        loop {
            let is_last = Instant::now() >= until;
            let result = self.add(listener, address, is_last).await;
            let in_use =
                result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
            if !in_use || is_last {
                return result;
            }
            if pause == FIRST_PAUSE {
                tracing::info!(listener = %listener.name, %address, "address in use: retrying");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Adds an address, or nothing if that fails. `is_last` means that there is no other try.
    async fn add(
        &mut self,
        listener: &Arc<Listener>,
        address: &Address,
        is_last: bool,
    ) -> io::Result<()> {
        if let (Protocol::Udp(_), Address::Ip(ip)) = (&listener.protocol, address) {
            return self.add_udp(listener, *ip);
        }
        let sockets = match address {
            Address::Ip(ip) => bind_ip(*ip, listener, self.workers.len())?,
            Address::Unix(path) => {
                let (first, path) = unix_path::bind(path, &listener.socket, is_last).await?;
                self.paths.push(path);
                // All workers accept from one Unix socket.
                let mut sockets = Vec::new();
                for _ in 1..self.workers.len() {
                    sockets.push(first.try_clone()?);
                }
                sockets.push(first);
                sockets
            }
        };
        let shown = match (address, sockets.first()) {
            (Address::Ip(_), Some(socket)) => Address::Ip(socket.local_addr()?),
            _ => address.clone(),
        };
        self.addresses.push((Arc::clone(listener), shown));
        let unix = matches!(address, Address::Unix(_));
        for (worker, socket) in self.workers.iter_mut().zip(sockets) {
            worker.push(Socket { listener: Arc::clone(&listener.name), socket, unix });
        }
        Ok(())
    }

    fn add_udp(&mut self, listener: &Arc<Listener>, ip: SocketAddr) -> io::Result<()> {
        // As with TCP, a socket without SO_REUSEPORT finds out whether the address is in use.
        drop(sys::bind_udp(ip, false)?);
        let mut shown = ip;
        let mut sockets = Vec::with_capacity(self.datagrams.len());
        for _ in &self.datagrams {
            let socket = sys::bind_udp(shown, true)?;
            shown = socket.local_addr()?;
            sockets.push(socket);
        }
        for (worker, socket) in self.datagrams.iter_mut().zip(sockets) {
            worker.push((Arc::clone(&listener.name), socket));
        }
        self.addresses.push((Arc::clone(listener), Address::Ip(shown)));
        Ok(())
    }

    /// Takes one worker's UDP sockets out.
    pub(super) fn take_datagrams(&mut self, worker: usize) -> Vec<(Arc<str>, UdpSocket)> {
        std::mem::take(&mut self.datagrams[worker])
    }

    /// Takes one worker's listening sockets out.
    pub(super) fn take_sockets(&mut self, worker: usize) -> Vec<Socket> {
        std::mem::take(&mut self.workers[worker])
    }

    /// Logs one line for each address.
    pub(super) fn announce(&self) {
        for (listener, address) in &self.addresses {
            let protocol = match listener.protocol {
                Protocol::Tcp(_) => "tcp",
                Protocol::Http(_) => "http",
                Protocol::Tls(_) => "tls",
                Protocol::Udp(_) => "udp",
            };
            tracing::info!(name = %listener.name, %protocol, %address, "listening");
        }
    }

    /// Removes the paths of Unix sockets. Must be called while the sockets still listen: another
    /// process may take over a path that does not answer.
    pub(super) fn remove_paths(&mut self) {
        self.paths.drain(..).for_each(OwnPath::remove);
    }
}

impl Drop for Bound {
    /// Removes the paths after a failed start.
    fn drop(&mut self) {
        self.remove_paths();
    }
}

fn bind_ip(ip: SocketAddr, config: &Listener, workers: usize) -> io::Result<Vec<TcpListener>> {
    // The probe is necessary: with SO_REUSEPORT a second process of the same user would get half of
    // the clients, without an error.
    sys::probe_tcp(ip)?;
    let mut sockets: Vec<TcpListener> = Vec::with_capacity(workers);
    for _ in 0..workers {
        // For port 0 the kernel chooses a port for the first socket. The others use the same port.
        let ip = sockets.first().map_or(Ok(ip), TcpListener::local_addr)?;
        sockets.push(sys::listen(&Address::Ip(ip), &config.socket, true)?);
    }
    Ok(sockets)
}

fn advice(address: &Address, error: &io::Error) -> &'static str {
    match (address, error.kind()) {
        (Address::Ip(_), io::ErrorKind::AddrInUse) => {
            "another process (`ss -lntup` shows which) or another listener of this configuration \
             uses the address: stop it, or choose another port"
        }
        (Address::Ip(_), io::ErrorKind::PermissionDenied) => {
            "ports below 1024 need root, or CAP_NET_BIND_SERVICE (AmbientCapabilities= in a \
             systemd unit), or a lower sysctl net.ipv4.ip_unprivileged_port_start"
        }
        (Address::Ip(_), io::ErrorKind::AddrNotAvailable) => {
            "no interface of this machine has the address (`ip addr` shows them)"
        }
        (Address::Unix(_), io::ErrorKind::AddrInUse) => {
            "another process listens there, or the file is not a socket: stop the process, or \
             choose another path"
        }
        (Address::Unix(_), _) => {
            "the directory must exist and this user must be allowed to write there"
        }
        _ => "",
    }
}
