//! The sockets of one address: one for each worker, which share the address by SO_REUSEPORT, or one
//! for all workers of a Unix path.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

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
    pub(super) stage: Stage,
    /// Whether the path is removed at the end.
    pub(super) owns_path: bool,
    /// UDP sockets that [`SocketsOfAddress::begin`] or [`SocketsOfAddress::commit`] binds.
    pub(super) unbound: Vec<Arc<UdpSocket>>,
    /// What the workers need for their sockets, in the order of the sockets of each. The worker has
    /// it when it has the sockets.
    pub(super) spares: Vec<Vec<Spare>>,
}

/// Whether clients come to the sockets of an address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// They do, or the sockets are UDP sockets of an address that no other socket had.
    Serving,
    /// Another process has bound the sockets and may still serve them.
    Inherited,
    /// They do not before [`SocketsOfAddress::begin`]: TCP sockets do not listen, and UDP sockets
    /// are not bound.
    Prepared {
        /// As [`Binding::is_held`].
        is_held: bool,
    },
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
    /// Whether such sockets receive all datagrams for the address, and others can be bound beside
    /// them. From the bind on the kernel would prefer the new ones, which no worker serves yet.
    pub(super) is_covered: bool,
    /// Whether clients may come to the sockets at once, because a refusal ends the process.
    pub(super) at_once: bool,
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
        // Clients of a socket that listens wait for a worker, and are reset when the configuration
        // is refused. The kernel prefers a socket of one address to those of all addresses.
        let listens = self.at_once && !self.is_held;
        let open = if listens { sys::listen } else { sys::bind_without_listening };
        let mut sockets = Vec::with_capacity(self.workers);
        for _ in 0..self.workers {
            let socket: TcpListener = open(&Address::Ip(bound), &self.listener.socket, true)?;
            // For port 0 the kernel chooses a port for the first socket. The others use the same
            // port.
            bound = socket.local_addr()?;
            sockets.push(vec![Arc::new(socket)]);
        }
        let mut made = self.made(ByWorker::Streams(sockets), Address::Ip(bound), None)?;
        if !listens {
            made.stage = Stage::Prepared { is_held: self.is_held };
        }
        Ok(made)
    }

    fn bind_udp(&self, ip: SocketAddr) -> io::Result<SocketsOfAddress> {
        // As with TCP, a socket without SO_REUSEPORT finds out whether the address is in use.
        // Beside own sockets this bind fails, too, and so takes no datagram; it finds other errors.
        match sys::bind_udp(ip, false) {
            Err(error) if self.is_held && error.kind() == io::ErrorKind::AddrInUse => {}
            probe => drop(probe?),
        }
        let mut bound = ip;
        let mut sockets = Vec::with_capacity(self.workers);
        for _ in 0..self.workers {
            let socket = if self.is_covered {
                sys::unbound_udp(ip)?
            } else {
                let socket = sys::bind_udp(bound, true)?;
                bound = socket.local_addr()?;
                socket
            };
            sockets.push(vec![Arc::new(socket)]);
        }
        let unbound = if self.is_covered { sockets.concat() } else { Vec::new() };
        let offloads: Vec<_> = sockets.iter().flatten().map(|socket| Offload::of(socket)).collect();
        let mut made = self.made(ByWorker::Datagrams(sockets), Address::Ip(bound), None)?;
        for (spare, offload) in made.spares.iter_mut().flatten().zip(offloads) {
            spare.offload = Some(offload?);
        }
        if self.is_covered {
            made.stage = Stage::Prepared { is_held: self.is_held };
            made.unbound = unbound;
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
            stage: Stage::Serving,
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
    /// Lets clients come to sockets that were prepared.
    ///
    /// # Errors
    /// As bind(2) and listen(2): another process has taken the address since it was bound here.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        let Stage::Prepared { is_held } = self.stage else { return Ok(()) };
        self.stage = Stage::Serving;
        let Address::Ip(ip) = self.bound else { return Ok(()) };
        match &self.sockets {
            ByWorker::Streams(_) => {
                // Sockets that do not listen make no probe fail: neither this one, nor that of a
                // second process, which listens by now. Only that counts: nothing else may fail
                // here, also if there is no descriptor for a probe.
                let probe = if is_held { Ok(()) } else { sys::probe_tcp(ip) };
                match probe {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
                    _ => self.listen(),
                }
            }
            ByWorker::Datagrams(_) => {
                self.unbound.drain(..).try_for_each(|socket| sys::bind_later(&socket, ip))
            }
        }
    }

    /// Takes a listener with the same address. Options that are the same need no system call.
    pub(super) fn reconfigure(&mut self, listener: Arc<Listener>) {
        let before = std::mem::replace(&mut self.listener, listener);
        if before.socket != self.listener.socket {
            self.configure();
        }
    }

    /// Sets the options of sockets that listen.
    pub(super) fn configure(&self) {
        if let Err(error) = self.listen() {
            let (listener, address) = (&self.listener.name, &self.bound);
            tracing::warn!(%listener, %address, %error, "cannot set the options of a socket");
        }
    }

    fn listen(&self) -> io::Result<()> {
        let ByWorker::Streams(workers) = &self.sockets else { return Ok(()) };
        let is_unix = matches!(self.bound, Address::Unix(_));
        let mut sockets = workers.iter().flatten();
        sockets.try_for_each(|socket| sys::listen_anew(socket, &self.listener.socket, is_unix))
    }

    /// Logs that [`SocketsOfAddress::begin`] has failed.
    pub(super) fn report_unserved(&self, error: &io::Error) {
        let (listener, address) = (&self.listener.name, &self.bound);
        tracing::error!(
            %listener, %address, %error,
            "an address is not served: another process has taken it meanwhile"
        );
    }

    /// Logs a line with the address.
    pub(super) fn announce(&self, what: &'static str) {
        let SocketsOfAddress { listener, bound, .. } = self;
        let protocol = protocol_name(listener);
        tracing::info!(message = what, name = %listener.name, %protocol, address = %bound);
    }
}

/// What helps where an address is refused.
pub(in crate::control) fn advice(address: &Address, error: &io::Error) -> &'static str {
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
