//! The sockets of one address: one for each worker, which share the address by SO_REUSEPORT, or one
//! for all workers of a Unix path.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::inherited::overlap;
use super::unix_path::{self, OwnPath};
use super::{ByWorker, protocol_name};
use crate::config::{Listener, Protocol};
use crate::error::Error;
use crate::sys::{self, Address, Offload, SpareDescriptor};

/// The pause after the first try. It doubles after each further try.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause. It is short, so that clients are not refused for longer than necessary.
const LONGEST_PAUSE: Duration = Duration::from_millis(40);
/// The longest pause for a Unix path, where each try connects to the socket's owner.
const LONGEST_PAUSE_FOR_PATH: Duration = Duration::from_millis(250);

/// The sockets of one address of one listener.
pub(super) struct SocketsOfAddress {
    /// Dropped before the sockets are closed.
    pub(super) path: Option<OwnPath>,
    pub(super) listener: Arc<Listener>,
    /// The address in the configuration.
    pub(super) configured: Address,
    /// The same, with the port that the kernel chose for port 0.
    pub(super) bound: Address,
    pub(super) sockets: ByWorker,
    /// Whether the sockets are inherited and another process may still serve them.
    pub(super) is_pending: bool,
    /// Whether the path is removed at the end.
    pub(super) owns_path: bool,
    /// UDP sockets that are bound by [`SocketsOfAddress::commit`].
    pub(super) unbound: Vec<Arc<UdpSocket>>,
    /// What the workers need for their sockets, in the order of the sockets of each. The worker has
    /// it when it has the sockets.
    pub(super) spares: Vec<Vec<Spare>>,
}

/// What a worker needs for a socket, made where a lack of descriptors refuses a configuration.
#[derive(Default)]
pub(super) struct Spare {
    pub(super) descriptor: SpareDescriptor,
    /// Of a UDP socket that was bound here. What another process serves is not touched.
    pub(super) offload: Option<Arc<Offload>>,
}

/// Binds the sockets of one address.
pub(super) struct Binding<'a> {
    pub(super) listener: &'a Arc<Listener>,
    pub(super) address: &'a Address,
    pub(super) workers: usize,
    /// Whether this process has a socket that would make a probe of the address fail.
    pub(super) is_held: bool,
}

/// Returns true if the listener receives datagrams.
pub(super) fn is_udp(listener: &Listener) -> bool {
    matches!(listener.protocol, Protocol::Udp(_))
}

impl Binding<'_> {
    /// Binds the address, and retries until then while it is in use.
    ///
    /// # Errors
    /// That of the last try, with advice.
    pub(super) async fn bind_until(&self, until: Instant) -> Result<SocketsOfAddress, Error> {
        let Binding { listener, address, .. } = *self;
        let mut pause = FIRST_PAUSE;
        let longest = match address {
            Address::Ip(_) => LONGEST_PAUSE,
            Address::Unix(_) => LONGEST_PAUSE_FOR_PATH,
        };
        loop {
            let is_last = Instant::now() >= until;
            let result = self.bind(is_last).await;
            let in_use =
                result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
            if !in_use || is_last {
                return result.map_err(|error| self.refused(error));
            }
            if pause == FIRST_PAUSE {
                tracing::info!(listener = %listener.name, %address, "address in use: retrying");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// The error of an address that cannot be used, with advice.
    pub(super) fn refused(&self, error: io::Error) -> Error {
        let Binding { listener, address, .. } = self;
        let what = format!("cannot listen on {address} (listener {})", listener.name);
        let advice = advice(address, &error);
        Error::start(what, error, advice)
    }

    /// Binds the address once. `is_last` means that there is no other try.
    async fn bind(&self, is_last: bool) -> io::Result<SocketsOfAddress> {
        match self.address {
            Address::Ip(ip) if is_udp(self.listener) => self.bind_udp(*ip),
            Address::Ip(ip) => self.bind_tcp(*ip),
            Address::Unix(path) => {
                let options = &self.listener.socket;
                let (socket, path) = unix_path::bind(path, options, is_last).await?;
                // All workers accept from one Unix socket.
                let sockets = vec![vec![Arc::new(socket)]; self.workers];
                let bound = self.address.clone();
                self.made(ByWorker::Streams(sockets), bound, Some(path))
            }
        }
    }

    fn bind_tcp(&self, ip: SocketAddr) -> io::Result<SocketsOfAddress> {
        // The probe is necessary: with SO_REUSEPORT a second process of the same user would get
        // half of the clients, without an error.
        if !self.is_held {
            sys::probe_tcp(ip)?;
        }
        let mut bound = ip;
        let mut sockets = Vec::with_capacity(self.workers);
        for _ in 0..self.workers {
            let socket: TcpListener =
                sys::listen(&Address::Ip(bound), &self.listener.socket, true)?;
            // For port 0 the kernel chooses a port for the first socket. The others use the same
            // port.
            bound = socket.local_addr()?;
            sockets.push(vec![Arc::new(socket)]);
        }
        self.made(ByWorker::Streams(sockets), Address::Ip(bound), None)
    }

    fn bind_udp(&self, ip: SocketAddr) -> io::Result<SocketsOfAddress> {
        // As with TCP, a socket without SO_REUSEPORT finds out whether the address is in use.
        if !self.is_held {
            drop(sys::bind_udp(ip, false)?);
        }
        let mut bound = ip;
        let mut sockets = Vec::with_capacity(self.workers);
        for _ in 0..self.workers {
            let socket = sys::bind_udp(bound, true)?;
            bound = socket.local_addr()?;
            sockets.push(vec![Arc::new(socket)]);
        }
        let offloads: Vec<_> = sockets.iter().flatten().map(|socket| Offload::of(socket)).collect();
        let mut made = self.made(ByWorker::Datagrams(sockets), Address::Ip(bound), None)?;
        for (spare, offload) in made.spares.iter_mut().flatten().zip(offloads) {
            spare.offload = Some(offload?);
        }
        Ok(made)
    }

    /// # Errors
    /// There are no descriptors for the runtimes of the workers.
    pub(super) fn made(
        &self,
        sockets: ByWorker,
        bound: Address,
        path: Option<OwnPath>,
    ) -> io::Result<SocketsOfAddress> {
        let spares = match &sockets {
            ByWorker::Streams(workers) => spares(workers),
            ByWorker::Datagrams(workers) => spares(workers),
        };
        Ok(SocketsOfAddress {
            spares: spares?,
            owns_path: path.is_some(),
            path,
            listener: Arc::clone(self.listener),
            configured: self.address.clone(),
            bound,
            sockets,
            is_pending: false,
            unbound: Vec::new(),
        })
    }
}

/// A further descriptor for each socket of each worker.
fn spares<S: AsFd>(workers: &[Vec<Arc<S>>]) -> io::Result<Vec<Vec<Spare>>> {
    let spare = |socket: &Arc<S>| {
        let descriptor = SpareDescriptor::of(&**socket)?;
        Ok(Spare { descriptor, offload: None })
    };
    workers.iter().map(|sockets| sockets.iter().map(spare).collect()).collect()
}

impl SocketsOfAddress {
    /// Returns true if these are the sockets for an address of a listener. A port that the kernel
    /// chose belongs to the listener; otherwise the name of the listener does not matter.
    pub(super) fn serves(&self, listener: &Listener, address: &Address) -> bool {
        let is_chosen = matches!(address, Address::Ip(ip) if ip.port() == 0);
        self.configured == *address
            && is_udp(&self.listener) == is_udp(listener)
            && (!is_chosen || self.listener.name == listener.name)
    }

    /// Returns true if a socket without SO_REUSEPORT cannot be bound to the address because of
    /// these sockets.
    pub(super) fn is_in_the_way(&self, listener: &Listener, address: &Address) -> bool {
        is_udp(&self.listener) == is_udp(listener) && overlap(&self.bound, address)
    }

    /// Takes the options of a listener.
    pub(super) fn reconfigure(&mut self, listener: Arc<Listener>) {
        self.listener = listener;
        let ByWorker::Streams(workers) = &self.sockets else { return };
        let is_unix = matches!(self.bound, Address::Unix(_));
        for socket in workers.iter().flatten() {
            if let Err(error) = sys::listen_anew(socket, &self.listener.socket, is_unix) {
                let (listener, address) = (&self.listener.name, &self.bound);
                tracing::warn!(%listener, %address, %error, "cannot set the options of a socket");
                break;
            }
        }
    }

    /// Logs a line with the address.
    pub(super) fn announce(&self, what: &'static str) {
        let SocketsOfAddress { listener, bound, .. } = self;
        let protocol = protocol_name(listener);
        tracing::info!(message = what, name = %listener.name, %protocol, address = %bound);
    }
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
