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
//! | `inherited` | sockets that another process has bound |
//! | `unix_path` | paths of Unix sockets |

mod address;
mod change;
mod inherited;
mod unix_path;

use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;

use crate::config::{Config, Listener, Protocol};
use crate::error::Error;
use crate::sys::Address;
use crate::worker::{Datagrams, Socket};
use address::SocketsOfAddress;
pub(super) use change::Change;
pub(super) use inherited::Inherited;

/// All sockets, by address and worker.
pub(super) struct Sockets {
    workers: usize,
    addresses: Vec<SocketsOfAddress>,
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
        let none = Sockets { workers, addresses: Vec::new() };
        let change = none.prepare_with(config, inherited).await?;
        Ok(Sockets { workers, addresses: change.into_new() })
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
                    }));
                }
                ByWorker::Datagrams(workers) => {
                    datagrams.extend(workers[worker].iter().map(|socket| Datagrams {
                        listener: Arc::clone(listener),
                        socket: Arc::clone(socket),
                    }));
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

/// The word of a listener's protocol.
fn protocol_name(listener: &Listener) -> &'static str {
    match listener.protocol {
        Protocol::Tcp(_) => "tcp",
        Protocol::Http(_) => "http",
        Protocol::Tls(_) => "tls",
        Protocol::Udp(_) => "udp",
    }
}
