//! The descriptor store: which sockets the service manager keeps while this process does not run.
//!
//! The name of a stored socket follows from the socket alone. So a process that gets it back, as a
//! restarted one or as a successor, calls it the same, whichever worker it gives it to.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};

use crate::sys::{HandedSocket, SocketKind, handed_socket};

/// What the service manager stores for this service, as far as it is known.
#[derive(Debug)]
pub(super) struct Store {
    /// The most that it stores.
    max: usize,
    stored: HashSet<String>,
    /// Sockets that the manager has bound itself (a socket unit), and keeps without being asked.
    bound_by_manager: HashSet<String>,
}

/// How the store is to change. Removals come first, because it may be full.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) remove: Vec<String>,
    pub(super) add: Vec<(String, OwnedFd)>,
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

impl Store {
    /// `max` is how many sockets there may be.
    pub(super) fn new(max: usize) -> Store {
        Store { max, stored: HashSet::new(), bound_by_manager: HashSet::new() }
    }

    /// Notes that the manager has handed a socket over, under the name that it has there. Returns
    /// false if the manager has bound it itself.
    pub(super) fn was_handed(&mut self, name: &str, socket: &HandedSocket) -> bool {
        let own = name_of(socket);
        let is_stored = name == own;
        let names = if is_stored { &mut self.stored } else { &mut self.bound_by_manager };
        names.insert(own);
        is_stored
    }

    /// Notes that a socket of a predecessor may be stored.
    pub(super) fn may_have(&mut self, socket: &HandedSocket) {
        self.stored.insert(name_of(socket));
    }

    /// Makes these sockets those that are stored. The first ones count most.
    pub(super) fn replace(&mut self, wanted: Vec<OwnedFd>) -> Change {
        let mut change = Change::default();
        let mut names = HashSet::new();
        for socket in wanted {
            let Ok(facts) = handed_socket(&socket.as_fd()) else { continue };
            let name = name_of(&facts);
            if self.bound_by_manager.contains(&name) || names.contains(&name) {
                continue;
            }
            if names.len() == self.max {
                change.beyond += 1;
                continue;
            }
            if !self.stored.contains(&name) {
                change.add.push((name.clone(), socket));
            }
            names.insert(name);
        }
        change.remove = self.stored.difference(&names).cloned().collect();
        self.stored = names;
        change
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn listener() -> OwnedFd {
        TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    fn copies(sockets: &[&OwnedFd]) -> Vec<OwnedFd> {
        sockets.iter().map(|socket| socket.try_clone().unwrap()).collect()
    }

    fn own_name(socket: &OwnedFd) -> String {
        name_of(&handed_socket(socket).unwrap())
    }

    fn added(change: &Change) -> Vec<String> {
        change.add.iter().map(|(name, _)| name.clone()).collect()
    }

    #[test]
    fn only_what_changes_is_sent() {
        let (one, two, three) = (listener(), listener(), OwnedFd::from(udp()));
        let names = [own_name(&one), own_name(&two), own_name(&three)];
        let mut store = Store::new(10);
        let change = store.replace(copies(&[&one, &two, &one]));
        assert_eq!((added(&change), change.remove.len()), (names[..2].to_vec(), 0));
        let change = store.replace(copies(&[&two, &three]));
        assert_eq!((added(&change), change.remove), (names[2..].to_vec(), vec![names[0].clone()]));
        let change = store.replace(Vec::new());
        assert_eq!((change.add.len(), change.remove.len()), (0, 2));
    }

    fn udp() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn what_was_stored_before_stays_or_is_removed() {
        let (stays, goes) = (listener(), listener());
        let mut store = Store::new(10);
        store.was_handed(&own_name(&stays), &handed_socket(&stays).unwrap());
        store.may_have(&handed_socket(&goes).unwrap());
        let change = store.replace(copies(&[&stays]));
        assert_eq!((change.add.len(), change.remove), (0, vec![own_name(&goes)]));
    }

    #[test]
    fn the_manager_keeps_its_own_sockets() {
        let (own, other) = (listener(), listener());
        let mut store = Store::new(10);
        store.was_handed("ringgate.socket", &handed_socket(&own).unwrap());
        let change = store.replace(copies(&[&own, &other]));
        assert_eq!(added(&change), [own_name(&other)]);
        assert_eq!(store.replace(Vec::new()).remove, [own_name(&other)]);
    }

    #[test]
    fn the_first_sockets_are_stored_where_there_is_no_room_for_all() {
        let (one, two, three) = (listener(), listener(), listener());
        let mut store = Store::new(2);
        let change = store.replace(copies(&[&one, &two, &three]));
        assert_eq!((added(&change).len(), change.beyond), (2, 1));
        let change = store.replace(copies(&[&three, &two, &one]));
        assert_eq!((added(&change), change.remove), (vec![own_name(&three)], vec![own_name(&one)]));
    }

    #[test]
    fn names_are_such_as_the_manager_takes() {
        for socket in [listener(), udp().into()] {
            let name = own_name(&socket);
            assert!(name.len() <= 255 && name.is_ascii() && !name.contains(':'), "{name}");
        }
        let unix = HandedSocket { kind: SocketKind::Unix, port: None, id: 0xab };
        assert_eq!(name_of(&unix), "unix-ab");
    }
}
