//! Clusters as one worker sees them: the current endpoints, the order in which they are tried, and
//! connections to them. The control plane finds the endpoints and sends them. Workers report failed
//! ones back.

mod candidates;
mod connect;
mod endpoints;
mod failures;
mod idle;
mod tls;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

pub use candidates::{Candidates, Tried};
pub use connect::{ConnectFailure, Lease};
pub use endpoints::{Endpoint, InUse};
pub use failures::{Reason, Report};
pub use idle::IdleQuota;

use crate::config;
use crate::observe::endpoints::Endpoints;
use crate::proto::tls::Authorities;
use crate::timers::{Timers, ticks};
use connect::Attempt;
use endpoints::Use;
use failures::Failures;
use tls::Tls;

/// One cluster of one worker.
pub struct Cluster {
    /// Counted on this worker alone.
    name: Rc<Arc<str>>,
    /// The index of the worker.
    worker: usize,
    endpoints: RefCell<Rc<[Rc<Endpoint>]>>,
    /// Round robin of first attempts: the position of the next endpoint.
    turn: Cell<usize>,
    /// Round robin of attempts that follow a failed one.
    retry_turn: Cell<usize>,
    connect_timeout: Duration,
    connect_attempts: usize,
    /// How many idle connections are kept to an endpoint, and for how many ticks.
    keepalive: (usize, u32),
    /// That of the worker.
    idle_quota: Rc<IdleQuota>,
    /// `None` for plain connections.
    tls: Option<Tls>,
    /// The authorities of this machine, if certificates are checked by them.
    system: Option<Authorities>,
    failures: Rc<Failures>,
    /// The tick of the last look at idle connections.
    swept: Cell<u32>,
}

/// The time between two looks at idle connections.
const SWEEP: Duration = Duration::from_secs(1);

impl Cluster {
    /// Makes a cluster of the worker with this index. `system` are the authorities of this machine,
    /// if a cluster needs them. All clusters of a worker share `idle_quota`. The endpoints are
    /// those of the cluster of this name `before`, which comes with its configuration; none if
    /// there was no such cluster.
    pub fn new(
        config: &config::Cluster,
        worker: usize,
        system: Option<&Authorities>,
        idle_quota: &Rc<IdleQuota>,
        before: Option<(&config::Cluster, &Cluster)>,
    ) -> Cluster {
        let failures = before.map_or_else(Rc::default, |(_, before)| Rc::clone(&before.failures));
        let endpoints = match before {
            None => Rc::from([]),
            Some((old, before)) if old.tls == config.tls && before.is_by(system) => {
                before.endpoints.borrow().clone()
            }
            Some((_, before)) => endpoints::inherit(&before.endpoints.borrow(), &failures),
        };
        Cluster {
            name: Rc::new(Arc::clone(&config.name)),
            worker,
            endpoints: RefCell::new(endpoints),
            // So that the workers do not all begin with the same endpoint.
            turn: Cell::new(worker),
            retry_turn: Cell::new(worker),
            connect_timeout: config.connect_timeout,
            connect_attempts: config.connect_attempts,
            keepalive: (config.keepalive_connections, ticks(config.keepalive_timeout)),
            idle_quota: Rc::clone(idle_quota),
            tls: config.tls.as_ref().and_then(|tls| Tls::new(tls, system)),
            system: system.filter(|_| config.needs_system_authorities()).cloned(),
            failures,
            swept: Cell::new(0),
        }
    }

    /// Returns false if it checks certificates by other authorities of this machine than these.
    pub fn is_by(&self, system: Option<&Authorities>) -> bool {
        let Some(own) = &self.system else { return true };
        system.is_some_and(|system| system.is_same(own))
    }

    /// The name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The same for what shows it: taking it needs no locked instruction.
    pub fn shown(&self) -> &Rc<Arc<str>> {
        &self.name
    }

    /// Replaces the endpoints. Connections to removed ones go on. The others stay the same objects,
    /// with their counts and with what earlier attempts have shown.
    pub fn set_endpoints(&self, all: &Endpoints) {
        let mut endpoints = self.endpoints.borrow_mut();
        *endpoints = endpoints::replace(&endpoints, all, self.worker, &self.failures);
    }

    /// Connections and sessions of this worker to its present endpoints.
    pub fn in_use(&self) -> u32 {
        self.endpoints.borrow().iter().map(|endpoint| endpoint.in_use()).sum()
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
    pub fn refused_datagrams(&self, endpoint: &Endpoint, reason: Reason) {
        endpoint.note_failure(reason);
        endpoint.set_refused_datagrams();
        // DNS may have dropped the address and brought it back as another object.
        let endpoints = self.endpoints.borrow();
        if let Some(listed) = endpoints.iter().find(|one| one.address == endpoint.address) {
            listed.set_refused_datagrams();
        }
    }

    /// Keeps a connection for the next request of a listener with the options that it was opened
    /// with, within the limits. The last request on it must be over, with nothing unread.
    pub fn keep(&self, lease: Lease, timers: &Timers) {
        let Lease { upstream, endpoint, options, .. } = lease;
        let (now, most) = (timers.now(), self.keepalive.0);
        endpoint.idle.keep(upstream, &options, now, most, &self.idle_quota);
    }

    /// Closes all idle connections.
    pub fn close_idle(&self) {
        self.endpoints.borrow().iter().for_each(|endpoint| endpoint.idle.close());
    }

    /// Closes all idle connections and keeps none any more, because the configuration has no such
    /// cluster any more.
    pub fn retire(&self) {
        self.endpoints.borrow().iter().for_each(|endpoint| endpoint.idle.retire());
    }

    /// Closes idle connections that are too old, or that their endpoint has closed. Called once a
    /// tick; it looks at them once a second.
    pub fn sweep(&self, timers: &Timers) {
        let due = self.swept.get().wrapping_add(ticks(SWEEP));
        if timers.now().wrapping_sub(due) > u32::MAX / 2 {
            return;
        }
        self.swept.set(timers.now());
        for endpoint in self.endpoints.borrow().iter() {
            endpoint.idle.sweep(timers.now(), self.keepalive.1);
        }
    }

    /// Reports the failures since the last call. Called once a tick; never blocks.
    pub fn report_failures(&self, reports: &SyncSender<Report>) {
        self.failures.report(&self.name, reports);
    }
}
