//! All listening and UDP sockets of the process. They are bound before anything else starts, so
//! that an unavailable port is an error and not half a service.
//!
//! A socket is identified by its address and its worker, and never by the name of its listener. So
//! a listener that is renamed keeps its sockets and the connections that wait in them. A socket may
//! be shared with another process: it is never shut down (shutdown(2)), only closed.
//!
//! | file | what it does |
//! | --- | --- |
//! | `address` | binds the sockets of one address |
//! | `change` | binds what another configuration needs, and takes it into use |
//! | `held` | finds those that there are already |
//! | `inherited` | sockets that another process has bound |
//! | `unix_path` | paths of Unix sockets |

mod address;
mod change;
mod held;
mod inherited;
mod unix_path;

use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{Config, Listener, Protocol};
use crate::error::Error;
use crate::sys::{Address, SpareDescriptor};
use crate::worker::{Datagrams, Socket};
pub(super) use address::advice;
use address::{SocketsOfAddress, Spare};
pub(super) use change::Change;
use inherited::Groups;
pub(super) use inherited::{Chosen, Inherited};
pub(super) use unix_path::is_there as path_is_there;
pub(super) use unix_path::{OwnPath, bind as bind_path};

/// All sockets, by address and worker.
pub(super) struct Sockets {
    workers: usize,
    addresses: Vec<SocketsOfAddress>,
    /// Paths of inherited sockets that no listener has, to be removed.
    abandoned: Vec<PathBuf>,
}

/// A socket that another process gets.
pub(super) struct HandedOver {
    socket: AnySocket,
    /// If the kernel chose its port: for which listener.
    pub(super) chosen: Option<Chosen>,
}

/// A socket of either kind.
pub(super) enum AnySocket {
    /// A listening socket.
    Stream(Arc<TcpListener>),
    /// A UDP socket.
    Datagram(Arc<UdpSocket>),
}

/// The sockets of one address. A worker may have several, or have one together with others.
enum ByWorker {
    Streams(Vec<Vec<Arc<TcpListener>>>),
    Datagrams(Vec<Vec<Arc<UdpSocket>>>),
}

impl Sockets {
    /// Binds every address of every listener for `workers` workers, or uses an inherited socket of
    /// that address. Addresses in use are retried for two seconds.
    ///
    /// # Errors
    /// The error of the first address that is refused, with advice.
    pub(super) async fn open(
        config: &Config,
        workers: usize,
        inherited: Inherited,
    ) -> Result<Sockets, Error> {
        let mut inherited = Groups::new(inherited);
        let mut sockets = Sockets { workers, addresses: Vec::new(), abandoned: Vec::new() };
        let change = sockets.prepare_with(config, &mut inherited, true).await?;
        sockets.addresses = change.into_new();
        sockets.abandoned = inherited.close_rest();
        Ok(sockets)
    }

    /// Takes inherited sockets into use for good: sets their options, binds and listens beside them
    /// where there are fewer than workers or where an address overlaps with theirs, and takes over
    /// the paths of Unix sockets. Must be called when the process that served them cannot go on any
    /// more: what clients have sent to further sockets by then is lost with this process. So
    /// sessions of UDP that have begun before may begin again, at another worker.
    pub(super) fn commit(&mut self) {
        self.addresses.iter_mut().for_each(SocketsOfAddress::commit);
        for path in self.abandoned.drain(..) {
            drop(OwnPath::adopt(&path));
        }
    }

    /// How many sockets there are beyond one for each worker and address.
    pub(super) fn surplus(&self) -> usize {
        let surplus = |address: &SocketsOfAddress| {
            let sockets = match &address.sockets {
                ByWorker::Streams(workers) => workers.iter().map(Vec::len).sum::<usize>(),
                ByWorker::Datagrams(workers) => workers.iter().map(Vec::len).sum(),
            };
            sockets.saturating_sub(self.workers)
        };
        self.addresses.iter().map(surplus).sum()
    }

    /// All sockets, for another process, those of one address in the order of the workers.
    pub(super) fn to_hand_over(&self) -> Vec<HandedOver> {
        let mut handed: Vec<HandedOver> = Vec::new();
        for address in &self.addresses {
            let (first, chosen) = (handed.len(), address.chosen());
            let made = |socket| HandedOver { socket, chosen: chosen.clone() };
            match &address.sockets {
                ByWorker::Streams(workers) => {
                    for socket in workers.iter().flatten() {
                        let is_same = |other: &HandedOver| other.is_stream(socket);
                        // Workers may share a socket.
                        if !handed[first..].iter().any(is_same) {
                            handed.push(made(AnySocket::Stream(Arc::clone(socket))));
                        }
                    }
                }
                ByWorker::Datagrams(workers) => {
                    let sockets = workers.iter().flatten();
                    handed.extend(sockets.map(|one| made(AnySocket::Datagram(Arc::clone(one)))));
                }
            }
        }
        handed
    }

    /// The paths of Unix sockets that the service manager has bound.
    pub(super) fn foreign_paths(&self) -> Vec<PathBuf> {
        let foreign = self.addresses.iter().filter(|address| !address.owns_path);
        let path = |address: &SocketsOfAddress| match &address.bound {
            Address::Unix(path) => Some(path.clone()),
            Address::Ip(_) => None,
        };
        foreign.filter_map(path).collect()
    }

    /// Leaves the paths of Unix sockets to the process that has the sockets, too, and closes all
    /// sockets that no worker has.
    pub(super) fn leave(&mut self) {
        for address in self.addresses.drain(..) {
            address.path.into_iter().for_each(OwnPath::leave);
        }
    }

    /// The sockets of one worker: those that it accepts from, and its UDP sockets.
    pub(super) fn of_worker(&self, worker: usize) -> (Vec<Socket>, Vec<Datagrams>) {
        let (mut streams, mut datagrams) = (Vec::new(), Vec::new());
        for address in &self.addresses {
            let listener = &address.listener.name;
            match &address.sockets {
                ByWorker::Streams(workers) => {
                    let unix = matches!(address.configured, Address::Unix(_));
                    streams.extend(workers[worker].iter().map(|socket| Socket {
                        listener: Arc::clone(listener),
                        socket: Arc::clone(socket),
                        unix,
                        spare: SpareDescriptor::default(),
                    }));
                }
                ByWorker::Datagrams(workers) => {
                    datagrams.extend(workers[worker].iter().map(|socket| Datagrams {
                        listener: Arc::clone(listener),
                        socket: Arc::clone(socket),
                        spare: SpareDescriptor::default(),
                        offload: None,
                    }));
                }
            }
        }
        (streams, datagrams)
    }

    /// The same, to be served: sockets that the worker has not had yet come with a descriptor for
    /// its runtime.
    pub(super) fn hand_to_worker(&mut self, worker: usize) -> (Vec<Socket>, Vec<Datagrams>) {
        let (mut streams, mut datagrams) = self.of_worker(worker);
        let (mut next_stream, mut next_datagrams) = (streams.iter_mut(), datagrams.iter_mut());
        for address in &mut self.addresses {
            // Empty after the first time.
            let mut spares = std::mem::take(&mut address.spares[worker]).into_iter();
            let mut spare = || spares.next().unwrap_or_default();
            match &address.sockets {
                ByWorker::Streams(workers) => {
                    let sockets = next_stream.by_ref().take(workers[worker].len());
                    sockets.for_each(|socket| socket.spare = spare().descriptor);
                }
                ByWorker::Datagrams(workers) => {
                    let sockets = next_datagrams.by_ref().take(workers[worker].len());
                    for socket in sockets {
                        let Spare { descriptor, offload } = spare();
                        (socket.spare, socket.offload) = (descriptor, offload);
                    }
                }
            }
        }
        (streams, datagrams)
    }

    /// Logs one line for each address.
    pub(super) fn announce(&self) {
        self.addresses.iter().for_each(|address| address.announce("listening"));
    }

    /// Removes the paths of Unix sockets and closes all sockets that no worker has. Must be called
    /// while the workers still accept: another process may take over a path that does not answer.
    pub(super) fn close(&mut self) {
        self.addresses.clear();
    }
}

impl HandedOver {
    fn is_stream(&self, socket: &Arc<TcpListener>) -> bool {
        matches!(&self.socket, AnySocket::Stream(own) if Arc::ptr_eq(own, socket))
    }
}

impl AsFd for HandedOver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsFd for AnySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            AnySocket::Stream(socket) => socket.as_fd(),
            AnySocket::Datagram(socket) => socket.as_fd(),
        }
    }
}

/// The word of a listener's protocol.
fn protocol_name(listener: &Listener) -> &'static str {
    match listener.protocol {
        Protocol::Tcp(_) => "tcp",
        Protocol::Http(_) => "http",
        Protocol::Tls(_) => "tls",
        Protocol::Udp(_) => "udp",
    }
}

#[cfg(test)]
mod tests;
