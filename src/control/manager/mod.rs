//! The service manager, systemd for example: what it hands to this process, and what this process
//! tells it. Without one, all of this does nothing.
//!
//! | file | what it does |
//! | --- | --- |
//! | `environment` | reads the environment, and takes the descriptors that were handed over |
//! | `notifier` | sends notifications |
//! | `store` | names of sockets in the descriptor store, and how it changes |
//! | `wanted` | what the manager is to know |
//! | `watchdog` | beats of the watchdog |
//!
//! The crates for this do not fit: sd-notify blocks while the manager does not read and knows no
//! abstract addresses, and listenfd knows no names and takes descriptors that are meant for another
//! process.

mod environment;
mod notifier;
mod store;
mod wanted;
mod watchdog;

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::sockets::{AnySocket, Inherited, Sockets, path_is_there};
use crate::sys::{
    Address, SocketKind, bound_address, handed_socket, monotonic_us, takes_both_families,
};
use crate::worker::Pulse;
pub use environment::Environment;
pub(super) use environment::OWN as OWN_VARIABLES;
use notifier::{Notifier, Progress};
use store::{Store, Stored, name_of};
use wanted::{Kind, Wanted};

/// How long the end of the process waits for a manager that does not read.
const FLUSH: Duration = Duration::from_secs(1);
/// How long the end of the process waits for a manager that would end the service with it.
const RESIGN: Duration = Duration::from_secs(60);
/// How long sockets stay open for a manager that does not read and has them in its store.
const SETTLE: Duration = Duration::from_secs(2);

/// The service manager.
#[derive(Clone)]
pub(in crate::control) struct Manager {
    /// `None` if nothing asks for notifications.
    notified: Option<Notified>,
    watchdog: Option<Duration>,
    stores: bool,
}

/// The way to the task that notifies the manager.
#[derive(Clone)]
struct Notified {
    wanted: watch::Sender<Wanted>,
    progress: watch::Receiver<Progress>,
}

impl Manager {
    /// Begins to notify the manager, and returns the sockets that it has handed over. Must be
    /// called on the runtime.
    pub(super) fn start(environment: Environment) -> (Manager, Inherited) {
        let Environment { socket, watchdog, max_stored, handed, missing } = environment;
        // Before version 254 systemd does not say whether it stores descriptors. Those that it does
        // not store it closes.
        let mut store = Store::new(max_stored.unwrap_or(usize::MAX));
        let mut bound_by_manager = Vec::new();
        let sockets = take_sockets(handed, &mut store, &mut bound_by_manager);
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
        let notified = address.map(|address| {
            let (wanted, changes) = watch::channel(Wanted::beside(bound_by_manager));
            let (sender, progress) = watch::channel(Progress::default());
            tokio::spawn(Notifier::new(address, store, sender).run(changes));
            Notified { wanted, progress }
        });
        let stores = notified.is_some() && max_stored != Some(0);
        (Manager { notified, watchdog, stores }, sockets)
    }

    /// The process serves: the workers run, or a reload has ended.
    pub(super) fn ready(&self) {
        self.say(Kind::Ready, || "READY=1\nSTATUS=Serving".to_owned());
    }

    /// The same after a reload that has changed nothing.
    pub(super) fn ready_unchanged(&self) {
        let status = "READY=1\nSTATUS=Serving. The last reload failed: see the log";
        self.say(Kind::Ready, || status.to_owned());
    }

    /// A reload begins. [`Manager::ready`] ends it, whether it has succeeded or not.
    pub(super) fn reloading(&self) {
        // The manager takes the READY=1 that follows for the end of this reload by the time.
        let time = || format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=Reloading", monotonic_us());
        self.say(Kind::Reloading, time);
    }

    /// The process begins to end.
    pub(super) fn stopping(&self, status: &str) {
        self.say(Kind::Stopping, || format!("STOPPING=1\nSTATUS={status}"));
    }

    /// Says in a few words what the process does.
    pub(super) fn status(&self, status: &str) {
        self.say(Kind::Status, || format!("STATUS={status}"));
    }

    /// Another process is the main one of the service from now on. Nothing that is said after this
    /// is sent, and what is stored is left as it is.
    pub(in crate::control) fn main_pid(&self, pid: u32) {
        self.change(|wanted| wanted.resign(format!("MAINPID={pid}")));
    }

    /// The names of those of these sockets that the manager has bound itself.
    pub(in crate::control) fn bound_by_manager(&self, sockets: &[impl AsFd]) -> Vec<String> {
        let Some(notified) = &self.notified else { return Vec::new() };
        let bound = &notified.wanted.borrow().bound_by_manager;
        if bound.is_empty() {
            return Vec::new();
        }
        let names = sockets.iter().filter_map(|one| handed_socket(one).ok().as_ref().map(name_of));
        names.filter(|name| bound.contains(name)).collect()
    }

    /// Notes that these sockets come from a predecessor, which may have stored those that the
    /// manager has not bound itself. Must be called before [`Manager::store`].
    pub(super) fn took_over(&self, sockets: &Inherited, bound_by_manager: Vec<String>) {
        let streams = sockets.streams.iter().map(AsFd::as_fd);
        let all = streams.chain(sockets.datagrams.iter().map(AsFd::as_fd));
        let names = all.filter_map(|socket| handed_socket(&socket).ok().as_ref().map(name_of));
        self.change(|wanted| {
            wanted.inherited.extend(names);
            wanted.bound_by_manager.extend(bound_by_manager);
        });
    }

    /// Makes these sockets those that the manager stores. Where it has no room for all, it stores
    /// those of the first workers, which are one for each address.
    pub(super) fn store(&self, sockets: &Sockets, workers: usize) {
        if self.stores {
            let stored = to_store(sockets, workers);
            self.change(|wanted| wanted.set_store(stored));
        }
    }

    /// Removes these sockets from the store. Waits until the manager has done so, for two seconds
    /// at most. Clients of a stored socket wait for a process that accepts; so this must end before
    /// the workers close the sockets.
    pub(super) async fn remove(&self, sockets: Vec<AnySocket>) {
        if !self.stores || sockets.is_empty() {
            return;
        }
        let name = |socket: &AnySocket| handed_socket(socket).ok().as_ref().map(name_of);
        let names: HashSet<String> = sockets.iter().filter_map(name).collect();
        let mut removes = false;
        self.change(|wanted| {
            let mut left = wanted.store.clone();
            left.retain(|stored| !names.contains(&stored.name));
            removes = left.len() < wanted.store.len();
            wanted.set_store(left);
        });
        drop(sockets);
        if removes {
            self.settle(SETTLE).await;
        }
    }

    /// Removes what is stored, as [`Manager::remove`].
    pub(super) async fn store_nothing(&self) {
        if self.stores {
            self.change(|wanted| wanted.set_store(Vec::new()));
            self.settle(SETTLE).await;
        }
    }

    /// Begins the beats of the watchdog, if the manager has one.
    pub(super) fn watch(&self, workers: Vec<Arc<Pulse>>) {
        let (Some(limit), Some(notified)) = (self.watchdog, self.notified.clone()) else { return };
        let beat = move || {
            notified.wanted.send_if_modified(|wanted| {
                wanted.beats += 1;
                !wanted.has_resigned
            })
        };
        tokio::spawn(watchdog::run(limit, workers, beat));
    }

    /// Waits until the manager has read all, for a second at most.
    pub(in crate::control) async fn flush(&self) {
        self.settle(FLUSH).await;
    }

    /// Waits before the end of the process until the manager has read all: for a second at most, or
    /// for a minute if it does not know yet which process has taken over. It would take the end of
    /// this one for that of the service, and kill the other. May be dropped at any time.
    pub(super) async fn finish(&self) {
        self.flush().await;
        if self.knows_main_process() {
            return;
        }
        tracing::warn!(
            "the service manager does not know yet which process has taken over: waiting for it"
        );
        let Some(mut notified) = self.notified.clone() else { return };
        let (notice, asked) = notified.wanted.borrow().last_ones();
        // An error means that nothing can be sent any more.
        let is_known = notified.progress.wait_for(|progress| progress.is_at(notice, asked));
        if timeout(RESIGN, is_known).await.is_err() {
            tracing::warn!(
                "the service manager has not learned which process has taken over: it may end the \
                 service with this process"
            );
        }
    }

    /// Returns false while this process has resigned and the manager may not know it. For the
    /// manager this process is still the main one of the service then.
    pub(in crate::control) fn knows_main_process(&self) -> bool {
        let Some(notified) = &self.notified else { return true };
        let wanted = notified.wanted.borrow();
        let (notice, asked) = wanted.last_ones();
        !wanted.has_resigned || notified.progress.borrow().is_at(notice, asked)
    }

    /// Waits until the manager has handled all that was said so far. One that has not answered an
    /// earlier question is not waited for again.
    async fn settle(&self, limit: Duration) {
        let Some(Notified { wanted, mut progress }) = self.notified.clone() else { return };
        let (mut question, mut given_up) = (0, 0);
        wanted.send_modify(|wanted| {
            wanted.asked += 1;
            (question, given_up) = (wanted.asked, wanted.given_up);
        });
        if progress.borrow().answered < given_up {
            return;
        }
        let is_answered = progress.wait_for(|progress| progress.answered >= question);
        if timeout(limit, is_answered).await.is_err() {
            wanted.send_if_modified(|wanted| {
                wanted.given_up = question;
                false
            });
        }
    }

    fn say(&self, kind: Kind, text: impl FnOnce() -> String) {
        self.change(|wanted| wanted.say(kind, text()));
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        if let Some(notified) = &self.notified {
            notified.wanted.send_modify(change);
        }
    }
}

/// The sockets of all workers, by their order.
fn to_store(sockets: &Sockets, workers: usize) -> Vec<Arc<Stored>> {
    let (mut stored, mut names) = (Vec::new(), HashSet::new());
    for worker in 0..workers {
        let (streams, datagrams) = sockets.of_worker(worker);
        let streams = streams.into_iter().map(|stream| AnySocket::Stream(stream.socket));
        let datagrams = datagrams.into_iter().map(|datagram| AnySocket::Datagram(datagram.socket));
        // Workers may share a socket.
        let new = streams.chain(datagrams).filter_map(Stored::new);
        stored.extend(new.filter(|stored| names.insert(stored.name.clone())).map(Arc::new));
    }
    stored
}

/// Takes the descriptors that listeners can use. Closes the others, with a warning, and those that
/// are there twice. Adds the names of those that are not from the store to `bound_by_manager`.
fn take_sockets(
    handed: Vec<(String, OwnedFd)>,
    store: &mut Store,
    bound_by_manager: &mut Vec<String>,
) -> Inherited {
    let (mut sockets, mut seen) = (Inherited::default(), HashSet::new());
    for (name, descriptor) in handed {
        let socket = match handed_socket(&descriptor.as_fd()) {
            Ok(socket) => socket,
            Err(reason) => {
                refuse(&name, reason);
                continue;
            }
        };
        let own_name = name_of(&socket);
        let is_stored = name == own_name;
        if is_stored {
            store.is_added(own_name);
        } else {
            bound_by_manager.push(own_name);
        }
        // A socket unit and the store may have the same one.
        if !seen.insert(socket.id) {
            continue;
        }
        if takes_both_families(&descriptor) {
            tracing::warn!(
                name,
                "a socket of the service manager for [::] takes IPv4, too: set \
                 BindIPv6Only=ipv6-only in its unit"
            );
        }
        match (socket.kind, bound_address(&descriptor)) {
            (SocketKind::Udp, _) => sockets.datagrams.push(descriptor.into()),
            (SocketKind::Unix, Some(Address::Unix(path))) => {
                if !path_is_there(&path) {
                    // No client can reach it. The path is bound anew.
                    refuse(&name, "its path is gone");
                    continue;
                }
                // The manager goes on listening at the path of its own socket.
                if !is_stored {
                    sockets.foreign_paths.push(path);
                }
                sockets.streams.push(descriptor.into());
            }
            _ => sockets.streams.push(descriptor.into()),
        }
    }
    sockets
}

fn refuse(name: &str, reason: &str) {
    tracing::warn!(
        name,
        reason,
        "a descriptor of the service manager cannot be used, and is closed"
    );
}
