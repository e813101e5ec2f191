//! Clusters as one worker sees them: the current endpoints, the order in which they are tried, and
//! connections to them. The control plane finds the endpoints and sends them. Workers report failed
//! ones back.

mod candidates;
mod connect;
mod endpoints;
mod failures;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

pub use candidates::{Candidates, Tried};
pub use connect::{ConnectFailure, Lease};
pub use failures::{Reason, Report};

use crate::config;
use crate::sys::Address;
use endpoints::{Endpoint, Use};
use failures::Failures;

/// One cluster of one worker.
pub struct Cluster {
    endpoints: RefCell<Rc<[Endpoint]>>,
    /// Round robin of first attempts: the position of the next endpoint.
    turn: Cell<usize>,
    /// Round robin of attempts that follow a failed one.
    retry_turn: Cell<usize>,
    connect_timeout: Duration,
    connect_attempts: usize,
    failures: Failures,
}

impl Cluster {
    /// Makes a cluster without endpoints. `first_turn` differs from worker to worker, so that the
    /// workers do not all begin with the same endpoint.
    pub fn new(config: &config::Cluster, first_turn: usize) -> Cluster {
        Cluster {
            endpoints: RefCell::new(Rc::from([])),
            turn: Cell::new(first_turn),
            retry_turn: Cell::new(first_turn),
            connect_timeout: config.connect_timeout,
            connect_attempts: config.connect_attempts,
            failures: Failures::default(),
        }
    }

    /// Replaces the endpoints. Connections to removed ones go on. What is known of the others is
    /// kept.
    pub fn set_endpoints(&self, addresses: &[Address]) {
        let mut endpoints = self.endpoints.borrow_mut();
        *endpoints = endpoints::replace(&endpoints, addresses);
    }

    /// The endpoints to try for one connection.
    fn candidates(&self) -> Candidates<'_> {
        Candidates::new(self, Use::Connection)
    }

    /// The endpoints to try for one UDP session.
    pub fn candidates_for_session(&self) -> Candidates<'_> {
        Candidates::new(self, Use::Datagrams)
    }

    /// Counts an endpoint that refused what a session sent. New sessions avoid it for a second.
    pub fn refused_datagrams(&self, endpoint: &Rc<Address>, reason: Reason) {
        self.failures.note(endpoint, reason);
        let endpoints = self.endpoints.borrow();
        if let Some(known) = endpoints.iter().find(|known| known.address == *endpoint) {
            known.set_refused_datagrams();
        }
    }

    /// Reports the failures since the last call; `cluster` is the position in the configuration.
    /// Called once a tick; never blocks.
    pub fn report_failures(&self, cluster: usize, reports: &SyncSender<Report>) {
        self.failures.report(cluster, reports);
    }
}
