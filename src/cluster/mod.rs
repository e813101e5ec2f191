//! Clusters as one worker sees them: the endpoints there are at present, whose turn it is, and
//! connections to them. Where endpoints come from is the control plane's affair; it sends them.

mod connect;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

pub use connect::{ConnectFailure, Lease};

use crate::config;
use crate::sys::Address;

/// One cluster of one worker.
pub struct Cluster {
    endpoints: RefCell<Rc<[Rc<Address>]>>,
    /// Round robin: the position whose turn it is.
    turn: Cell<usize>,
    connect_timeout: Duration,
    connect_attempts: usize,
}

impl Cluster {
    /// A cluster without endpoints. `first_turn` differs from worker to worker, so that all
    /// together do not begin with the same endpoint.
    pub fn new(config: &config::Cluster, first_turn: usize) -> Cluster {
        Cluster {
            endpoints: RefCell::new(Rc::from([])),
            turn: Cell::new(first_turn),
            connect_timeout: config.connect_timeout,
            connect_attempts: config.connect_attempts,
        }
    }

    /// Replaces the endpoints; connections to those that are gone go on.
    pub fn set_endpoints(&self, addresses: &[Address]) {
        *self.endpoints.borrow_mut() = addresses.iter().cloned().map(Rc::new).collect();
    }

    /// The endpoint whose turn it is, for those who do not connect. None: there is none.
    pub fn pick(&self) -> Option<Rc<Address>> {
        self.candidates().next()
    }

    /// The endpoints to try for one connection, in order: round robin, each another one while there
    /// are others.
    fn candidates(&self) -> impl Iterator<Item = Rc<Address>> + use<> {
        let endpoints = Rc::clone(&self.endpoints.borrow());
        let first = self.turn.get();
        self.turn.set(first.wrapping_add(1));
        let attempts = if endpoints.is_empty() { 0 } else { self.connect_attempts };
        (0..attempts).map(move |n| Rc::clone(&endpoints[first.wrapping_add(n) % endpoints.len()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Discovery;

    fn cluster(connect_attempts: usize, ports: &[u16]) -> Cluster {
        let cluster = Cluster::new(
            &config::Cluster {
                name: "c".into(),
                discovery: Discovery::Static(Vec::new()),
                connect_timeout: Duration::from_secs(1),
                connect_attempts,
            },
            0,
        );
        let address = |&port| Address::Ip(([127, 0, 0, 1], port).into());
        cluster.set_endpoints(&ports.iter().map(address).collect::<Vec<_>>());
        cluster
    }

    fn ports(cluster: &Cluster) -> Vec<u16> {
        let port = |address: Rc<Address>| match &*address {
            Address::Ip(ip) => ip.port(),
            Address::Unix(_) => 0,
        };
        cluster.candidates().map(port).collect()
    }

    #[test]
    fn endpoints_take_turns_and_attempts_go_to_others() {
        let cluster = cluster(2, &[1, 2, 3]);
        assert_eq!(ports(&cluster), [1, 2]);
        assert_eq!(ports(&cluster), [2, 3]);
        assert_eq!(ports(&cluster), [3, 1]);
        assert_eq!(ports(&cluster), [1, 2]);
    }

    #[test]
    fn one_endpoint_is_tried_again_and_none_gives_nothing() {
        assert_eq!(ports(&cluster(3, &[7])), [7, 7, 7]);
        assert_eq!(ports(&cluster(3, &[])), [0; 0]);
    }
}
