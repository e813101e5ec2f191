//! The service manager, systemd for example: what it hands to this process, and what this process
//! tells it. Without one, all of this does nothing.
//!
//! | file | what it does |
//! | --- | --- |
//! | `environment` | reads the environment, and takes the descriptors that were handed over |
//! | `notifier` | sends notifications |
//! | `store` | names of sockets in the descriptor store, and how it changes |
//! | `watchdog` | beats of the watchdog |
//!
//! The crates for this do not fit: sd-notify blocks while the manager does not read and knows no
//! abstract addresses, and listenfd knows no names and takes descriptors that are meant for another
//! process.

mod environment;
mod notifier;
mod store;
mod watchdog;

use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::sockets::{Inherited, Sockets};
use crate::sys::{Address, SocketKind, bound_address, handed_socket, monotonic_us};
use crate::worker::Pulse;
pub use environment::Environment;
pub(super) use environment::OWN as OWN_VARIABLES;
use notifier::{Notifier, Order};
use store::Store;

/// How long the end of the process waits for a manager that does not read.
const FLUSH: Duration = Duration::from_secs(1);

/// The service manager. Its methods do not wait.
#[derive(Clone)]
pub(in crate::control) struct Manager {
    /// `None` if nothing asks for notifications.
    orders: Option<UnboundedSender<Order>>,
    watchdog: Option<Duration>,
    stores: bool,
}

impl Manager {
    /// Begins to notify the manager, and returns the sockets that it has handed over. Must be
    /// called on the runtime.
    pub(super) fn start(environment: Environment) -> (Manager, Inherited) {
        let Environment { socket, watchdog, max_stored, handed, missing } = environment;
        // Before version 254 systemd does not say whether it stores descriptors. Those that it does
        // not store it closes.
        let mut store = Store::new(max_stored.unwrap_or(usize::MAX));
        let sockets = take_sockets(handed, &mut store);
        for name in missing {
            tracing::warn!(name, "the service manager names a descriptor that is not open");
        }
        let address = socket.and_then(|socket| match notifier::address_of(&socket) {
            Ok(address) => Some(address),
            Err(error) => {
                let socket = socket.to_string_lossy();
                tracing::warn!(%socket, %error, "cannot notify the service manager");
                None
            }
        });
        let orders = address.map(|address| {
            let (orders, received) = unbounded_channel();
            tokio::spawn(Notifier::new(address, store).run(received));
            orders
        });
        let stores = orders.is_some() && max_stored != Some(0);
        (Manager { orders, watchdog, stores }, sockets)
    }

    /// The process serves: the workers run, or a reload has ended.
    pub(super) fn ready(&self) {
        self.send(|| "READY=1\nSTATUS=Serving".to_owned());
    }

    /// A reload begins. [`Manager::ready`] ends it, whether it has succeeded or not.
    pub(super) fn reloading(&self) {
        // The manager takes the READY=1 that follows for the end of this reload by the time.
        let time = || format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=Reloading", monotonic_us());
        self.send(time);
    }

    /// The process begins to end.
    pub(super) fn stopping(&self, status: &str) {
        self.send(|| format!("STOPPING=1\nSTATUS={status}"));
    }

    /// Says in a few words what the process does.
    pub(super) fn status(&self, status: &str) {
        self.send(|| format!("STATUS={status}"));
    }

    /// Another process is the main one of the service from now on. Nothing that is said after this
    /// is sent, and what is stored is left as it is.
    pub(in crate::control) fn main_pid(&self, pid: u32) {
        self.order(|| Order::Resign(format!("MAINPID={pid}")));
    }

    /// Notes that these sockets come from a predecessor, which may have stored them. Must be called
    /// before [`Manager::store`].
    pub(super) fn took_over(&self, sockets: &Inherited) {
        let streams = sockets.streams.iter().map(AsFd::as_fd);
        let all = streams.chain(sockets.datagrams.iter().map(AsFd::as_fd));
        let all = all.filter_map(|socket| handed_socket(&socket).ok()).collect();
        self.order(|| Order::MayHave(all));
    }

    /// Makes these sockets those that the manager stores. Where it has no room for all, it stores
    /// those of the first workers, which are one for each address.
    pub(super) fn store(&self, sockets: &Sockets, workers: usize) {
        if !self.stores {
            return;
        }
        let mut copies = Vec::new();
        for worker in 0..workers {
            let (streams, datagrams) = sockets.of_worker(worker);
            // A descriptor that cannot be duplicated is not stored.
            let copy = |socket: BorrowedFd<'_>| copies.extend(socket.try_clone_to_owned().ok());
            let streams = streams.iter().map(|stream| stream.socket.as_fd());
            streams.chain(datagrams.iter().map(|datagram| datagram.socket.as_fd())).for_each(copy);
        }
        self.order(|| Order::Store(copies));
    }

    /// Removes what is stored.
    pub(super) fn store_nothing(&self) {
        if self.stores {
            self.order(|| Order::Store(Vec::new()));
        }
    }

    /// Begins the beats of the watchdog, if the manager has one.
    pub(super) fn watch(&self, workers: Vec<Arc<Pulse>>) {
        let (Some(limit), Some(orders)) = (self.watchdog, self.orders.clone()) else { return };
        let beat = move || orders.send(Order::Send("WATCHDOG=1".to_owned())).is_ok();
        tokio::spawn(watchdog::run(limit, workers, beat));
    }

    /// Waits until all is sent, for a second at most.
    pub(in crate::control) async fn flush(&self) {
        if self.orders.is_some() {
            let (done, is_done) = oneshot::channel();
            self.order(|| Order::Flush(done));
            let _ = tokio::time::timeout(FLUSH, is_done).await;
        }
    }

    fn send(&self, text: impl FnOnce() -> String) {
        self.order(|| Order::Send(text()));
    }

    fn order(&self, order: impl FnOnce() -> Order) {
        if let Some(orders) = &self.orders {
            // The task ends with the runtime.
            let _ = orders.send(order());
        }
    }
}

/// Takes the descriptors that listeners can use. Closes the others, with a warning, and those that
/// are there twice.
fn take_sockets(handed: Vec<(String, OwnedFd)>, store: &mut Store) -> Inherited {
    let (mut sockets, mut seen) = (Inherited::default(), Vec::new());
    for (name, descriptor) in handed {
        let socket = match handed_socket(&descriptor.as_fd()) {
            Ok(socket) => socket,
            Err(reason) => {
                tracing::warn!(
                    name,
                    reason,
                    "a descriptor of the service manager cannot be used, and is closed"
                );
                continue;
            }
        };
        let is_stored = store.was_handed(&name, &socket);
        // A socket unit and the store may have the same one.
        if seen.contains(&socket.id) {
            continue;
        }
        seen.push(socket.id);
        match socket.kind {
            SocketKind::Udp => sockets.datagrams.push(descriptor.into()),
            SocketKind::Tcp => sockets.streams.push(descriptor.into()),
            SocketKind::Unix => {
                let socket = TcpListener::from(descriptor);
                // The manager goes on listening at the path of its own socket.
                if !is_stored && let Some(Address::Unix(path)) = bound_address(&socket) {
                    sockets.foreign_paths.push(path);
                }
                sockets.streams.push(socket);
            }
        }
    }
    sockets
}
