//! Sends notifications to the service manager, one after the other, from a task of its own. A
//! manager that does not read them stops this task and nothing else.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use super::store::Store;
use crate::sys::{Errno, HandedSocket, send_with_descriptor};

/// The pause when too many descriptors of this user are on their way (ETOOMANYREFS, unix(7)).
const PAUSE: Duration = Duration::from_millis(10);

/// What the task is asked for.
pub(super) enum Order {
    /// Send a notification.
    Send(String),
    /// Note that these sockets may be stored.
    MayHave(Vec<HandedSocket>),
    /// Make these sockets those that are stored.
    Store(Vec<OwnedFd>),
    /// Send a last notification: another process is the main one of the service.
    Resign(String),
    /// Say when all is sent.
    Flush(oneshot::Sender<()>),
}

/// The task's state.
pub(super) struct Notifier {
    address: SocketAddr,
    store: Store,
    has_failed: bool,
}

/// The address of the manager's socket.
///
/// # Errors
/// It is no Unix socket.
pub(super) fn address_of(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "it is no Unix socket")),
    }
}

impl Notifier {
    pub(super) fn new(address: SocketAddr, store: Store) -> Notifier {
        Notifier { address, store, has_failed: false }
    }

    /// Handles requests until the last sender is dropped.
    pub(super) async fn run(mut self, mut orders: UnboundedReceiver<Order>) {
        let mut is_main = true;
        while let Some(order) = orders.recv().await {
            match order {
                Order::Flush(done) => drop(done.send(())),
                _ if !is_main => {}
                Order::Send(text) => self.send(&text, None).await,
                Order::MayHave(all) => all.iter().for_each(|socket| self.store.may_have(socket)),
                Order::Store(sockets) => self.update_store(sockets).await,
                Order::Resign(text) => {
                    self.send(&text, None).await;
                    is_main = false;
                }
            }
        }
    }

    async fn update_store(&mut self, sockets: Vec<OwnedFd>) {
        let change = self.store.replace(sockets);
        for name in &change.remove {
            self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None).await;
        }
        for (name, socket) in change.add {
            // Without FDPOLL=0 a socket that reports an error would be removed.
            let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}");
            self.send(&text, Some(socket)).await;
        }
        if change.beyond > 0 {
            tracing::warn!(
                sockets = change.beyond,
                "the service manager stores no more sockets: the others are closed if the process \
                 is killed. Raise FileDescriptorStoreMax= of its unit"
            );
        }
    }

    /// Sends a notification. Waits while the manager has too many that it has not read.
    async fn send(&mut self, text: &str, descriptor: Option<OwnedFd>) {
        let Err(error) = self.try_send(text, descriptor).await else { return };
        if !self.has_failed {
            tracing::warn!(%error, "cannot notify the service manager");
        }
        self.has_failed = true;
    }

    async fn try_send(&self, text: &str, descriptor: Option<OwnedFd>) -> io::Result<()> {
        // A new socket for each: the manager may have a new one under the same address.
        let socket = StdDatagram::unbound()?;
        socket.connect_addr(&self.address)?;
        socket.set_nonblocking(true)?;
        let socket = UnixDatagram::from_std(socket)?;
        let descriptor = descriptor.as_ref().map(AsFd::as_fd);
        let send = || send_with_descriptor(&socket, text.as_bytes(), descriptor);
        loop {
            match socket.async_io(Interest::WRITABLE, || Ok(send()?)).await {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::TOOMANYREFS) => {
                    tokio::time::sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paths_or_abstract_names() {
        let path = address_of(OsStr::new("/run/systemd/notify")).unwrap();
        assert_eq!(path.as_pathname().unwrap().to_str(), Some("/run/systemd/notify"));
        let name = address_of(OsStr::new("@notify")).unwrap();
        assert_eq!(name.as_abstract_name(), Some(&b"notify"[..]));
        assert!(address_of(OsStr::new("vsock:2:1")).is_err());
        assert!(address_of(OsStr::new("notify")).is_err());
    }
}
