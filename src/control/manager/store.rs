//! The descriptor store: which sockets the service manager keeps while this process does not run.
//!
//! The name of a stored socket follows from the socket alone. So a process that gets it back, as a
//! restarted one or as a successor, calls it the same, whichever worker it gives it to.

use std::collections::HashSet;
use std::sync::Arc;

use crate::control::sockets::AnySocket;
use crate::sys::{HandedSocket, SocketKind, handed_socket};

/// A socket with its name in the store.
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) socket: AnySocket,
}

/// What the service manager stores for this service, as far as it is known.
#[derive(Debug)]
pub(super) struct Store {
    /// The most that it stores.
    max: usize,
    /// Names of all sockets that it may have.
    may_have: HashSet<String>,
    /// Names of those that it has.
    has: HashSet<String>,
    /// Names of sockets that the manager has bound itself (a socket unit), and keeps without being
    /// asked.
    bound_by_manager: HashSet<String>,
}

/// How the store is to change. Removals come first, because it may be full.
#[derive(Default)]
pub(super) struct Change {
    pub(super) remove: Vec<String>,
    /// The next one is the last.
    pub(super) add: Vec<Arc<Stored>>,
    /// Sockets that it has no room for.
    pub(super) beyond: usize,
}

/// The name of a socket: at most 255 bytes of ASCII without a colon (sd_notify(3)).
pub(super) fn name_of(socket: &HandedSocket) -> String {
    let HandedSocket { kind, port, id } = socket;
    let kind = match kind {
        SocketKind::Tcp => "tcp",
        SocketKind::Unix => "unix",
        SocketKind::Udp => "udp",
    };
    port.map_or_else(|| format!("{kind}-{id:x}"), |port| format!("{kind}-{port}-{id:x}"))
}

impl Stored {
    /// `None` if the kernel gives the socket no name.
    pub(super) fn new(socket: AnySocket) -> Option<Stored> {
        let name = name_of(&handed_socket(&socket).ok()?);
        Some(Stored { name, socket })
    }
}

impl Store {
    /// `max` is how many sockets there may be.
    pub(super) fn new(max: usize) -> Store {
        let (may_have, has, bound_by_manager) = <(HashSet<_>, HashSet<_>, HashSet<_>)>::default();
        Store { max, may_have, has, bound_by_manager }
    }

    /// Notes what is known of sockets from elsewhere: those that the manager has bound itself, and
    /// those of a predecessor, which may have stored them or not.
    pub(super) fn learn(&mut self, bound_by_manager: &[String], inherited: &[String]) {
        self.bound_by_manager.extend(bound_by_manager.iter().cloned());
        self.may_have.extend(inherited.iter().cloned());
    }

    /// How the manager gets to these sockets and no others. The first ones count most.
    pub(super) fn change_to(&self, wanted: &[Arc<Stored>]) -> Change {
        let mut change = Change::default();
        let mut names = HashSet::new();
        for stored in wanted {
            let name = stored.name.as_str();
            if self.bound_by_manager.contains(name) || names.contains(name) {
                continue;
            }
            if names.len() == self.max {
                change.beyond += 1;
                continue;
            }
            names.insert(name);
            if !self.has.contains(name) {
                change.add.push(Arc::clone(stored));
            }
        }
        change.add.reverse();
        let surplus = self.may_have.iter().filter(|name| !names.contains(name.as_str()));
        change.remove = surplus.cloned().collect();
        change
    }

    /// Notes that the manager has a socket.
    pub(super) fn is_added(&mut self, name: String) {
        self.has.insert(name.clone());
        self.may_have.insert(name);
    }

    /// Notes that the manager knows of a removal.
    pub(super) fn is_removed(&mut self, name: &str) {
        self.has.remove(name);
        self.may_have.remove(name);
    }

    /// The manager could not be reached: another one may have taken its place, without what this
    /// one has stored. It takes what it has already as nothing new.
    pub(super) fn is_uncertain(&mut self) {
        self.has.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn listener() -> Arc<Stored> {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        Arc::new(Stored::new(AnySocket::Stream(Arc::new(socket))).unwrap())
    }

    fn udp() -> Arc<Stored> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        Arc::new(Stored::new(AnySocket::Datagram(Arc::new(socket))).unwrap())
    }

    /// Changes the store. Returns the names of what was removed and added.
    fn change(store: &mut Store, wanted: &[&Arc<Stored>]) -> (Vec<String>, Vec<String>) {
        let wanted: Vec<_> = wanted.iter().map(|one| Arc::clone(one)).collect();
        let Change { remove, add, .. } = store.change_to(&wanted);
        remove.iter().for_each(|name| store.is_removed(name));
        let add: Vec<_> = add.iter().rev().map(|one| one.name.clone()).collect();
        add.iter().for_each(|name| store.is_added(name.clone()));
        (remove, add)
    }

    fn names(stored: &[&Arc<Stored>]) -> Vec<String> {
        stored.iter().map(|one| one.name.clone()).collect()
    }

    #[test]
    fn only_what_changes_is_sent() {
        let (one, two, three) = (listener(), listener(), udp());
        let mut store = Store::new(10);
        let changed = change(&mut store, &[&one, &two, &one]);
        assert_eq!(changed, (vec![], names(&[&one, &two])));
        let changed = change(&mut store, &[&two, &three]);
        assert_eq!(changed, (names(&[&one]), names(&[&three])));
        let (removed, added) = change(&mut store, &[]);
        assert_eq!((removed.len(), added.len()), (2, 0));
    }

    #[test]
    fn what_was_stored_before_stays_or_is_removed() {
        let (stays, goes) = (listener(), listener());
        let mut store = Store::new(10);
        store.is_added(stays.name.clone());
        store.is_added(goes.name.clone());
        assert_eq!(change(&mut store, &[&stays]), (names(&[&goes]), vec![]));
    }

    #[test]
    fn what_a_predecessor_may_have_stored_is_sent_again() {
        let (stays, goes) = (listener(), listener());
        let mut store = Store::new(1);
        store.learn(&[], &names(&[&goes, &stays]));
        assert_eq!(change(&mut store, &[&stays]), (names(&[&goes]), names(&[&stays])));
        assert_eq!(change(&mut store, &[&stays]), (vec![], vec![]));
    }

    #[test]
    fn the_manager_keeps_its_own_sockets() {
        let (own, other) = (listener(), listener());
        let mut store = Store::new(10);
        store.learn(&names(&[&own]), &[]);
        assert_eq!(change(&mut store, &[&own, &other]), (vec![], names(&[&other])));
        assert_eq!(change(&mut store, &[]), (names(&[&other]), vec![]));
    }

    #[test]
    fn the_first_sockets_are_stored_where_there_is_no_room_for_all() {
        let (one, two, three) = (listener(), listener(), listener());
        let mut store = Store::new(2);
        let all = [Arc::clone(&one), Arc::clone(&two), Arc::clone(&three)];
        assert_eq!(store.change_to(&all).beyond, 1);
        assert_eq!(change(&mut store, &[&one, &two, &three]), (vec![], names(&[&one, &two])));
        let changed = change(&mut store, &[&three, &two, &one]);
        assert_eq!(changed, (names(&[&one]), names(&[&three])));
    }

    #[test]
    fn a_manager_that_was_lost_gets_all_again() {
        let (one, two) = (listener(), listener());
        let mut store = Store::new(10);
        change(&mut store, &[&one, &two]);
        store.is_uncertain();
        // It may still have the one that is removed.
        assert_eq!(change(&mut store, &[&two]), (names(&[&one]), names(&[&two])));
        assert_eq!(change(&mut store, &[&two]), (vec![], vec![]));
    }

    #[test]
    fn names_are_such_as_the_manager_takes() {
        for Stored { name, .. } in [listener(), udp()].iter().map(AsRef::as_ref) {
            assert!(name.len() <= 255 && name.is_ascii() && !name.contains(':'), "{name}");
        }
        let unix = HandedSocket { kind: SocketKind::Unix, port: None, id: 0xab };
        assert_eq!(name_of(&unix), "unix-ab");
    }
}
