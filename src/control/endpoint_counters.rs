//! The counters of all clusters and their endpoints, as the control plane shares them: what looks
//! up names lists the endpoints, and the admin endpoint shows the numbers.

use std::sync::Arc;

use tokio::sync::watch;

use crate::observe::endpoints::{ClusterNumbers, Endpoints, Registry};
use crate::sys::Address;

/// Shared counters. Nothing waits for a change of them.
#[derive(Clone)]
pub(super) struct EndpointCounters(Arc<watch::Sender<Registry>>);

impl EndpointCounters {
    /// Makes them for a number of workers.
    pub(super) fn new(workers: usize) -> EndpointCounters {
        EndpointCounters(Arc::new(watch::Sender::new(Registry::new(workers))))
    }

    /// See [`Registry::list`].
    pub(super) fn list(&self, cluster: &Arc<str>, addresses: &[Address]) -> Arc<Endpoints> {
        Arc::new(self.with(|registry| registry.list(cluster, addresses)))
    }

    /// See [`Registry::keep_clusters`].
    pub(super) fn keep_clusters(&self, is_configured: impl Fn(&str) -> bool) {
        self.with(|registry| registry.keep_clusters(is_configured));
    }

    /// See [`Registry::show`].
    pub(super) fn show(&self) -> Vec<ClusterNumbers> {
        self.with(Registry::show)
    }

    fn with<T>(&self, f: impl FnOnce(&mut Registry) -> T) -> T {
        let mut result = None;
        self.0.send_modify(|registry| result = Some(f(registry)));
        result.expect("send_modify calls its argument once")
    }
}
