//! Which addresses of a strict_dns cluster are its endpoints: all but those that certainly lead
//! back to the cluster.
//!
//! What leads back depends on the listeners and clusters of the configuration in use, so a reload
//! changes it, too. The check of the configuration itself cannot find these loops.

use std::net::SocketAddr;

use crate::config::Loops;

/// The addresses of a cluster in use.
#[derive(Default)]
pub(super) struct Endpoints {
    /// Every address of every name, sorted.
    resolved: Vec<SocketAddr>,
    /// Addresses of `resolved` that lead back to the cluster, and whether that is certain.
    back: Vec<(SocketAddr, bool)>,
    /// The endpoints: addresses of `resolved`.
    used: Vec<SocketAddr>,
}

impl Endpoints {
    /// Every address of every name, sorted.
    pub(super) fn resolved(&self) -> &[SocketAddr] {
        &self.resolved
    }

    /// The endpoints, sorted.
    pub(super) fn used(&self) -> &[SocketAddr] {
        &self.used
    }

    /// Derives the endpoints from the addresses of the names and the loops of the configuration in
    /// use. Warns of addresses that lead back to the cluster and did not before. Returns true if
    /// the endpoints have changed.
    pub(super) fn update(
        &mut self,
        cluster: &str,
        loops: &Loops<'_>,
        resolved: Vec<SocketAddr>,
    ) -> bool {
        let mut lead_back = Vec::new();
        for back in loops.through(cluster, &resolved) {
            let one = (back.address, back.certain);
            lead_back.push(one);
            if self.back.contains(&one) {
                continue;
            }
            let (endpoint, listeners) = (back.address, back.listeners.join(" "));
            if back.certain {
                tracing::warn!(
                    %cluster, %endpoint, listeners,
                    "the endpoint leads back to its own cluster through these listeners, so each \
                     connection would open another one without end. The endpoint is not used. \
                     Change the address of the name, or the address of the listener"
                );
            } else {
                tracing::warn!(
                    %cluster, %endpoint, listeners,
                    "the endpoint probably leads back to its own cluster through these listeners, \
                     so each connection would open another one. Change the address of the name, \
                     or the address of the listener"
                );
            }
        }
        let is_used = |address: &&SocketAddr| !lead_back.contains(&(**address, true));
        let used: Vec<SocketAddr> = resolved.iter().filter(is_used).copied().collect();
        self.resolved = resolved;
        self.back = lead_back;
        let has_changed = used != self.used;
        self.used = used;
        has_changed
    }

    /// Logs the endpoints.
    pub(super) fn log(&self, cluster: &str) {
        if self.used.is_empty() {
            tracing::warn!(%cluster, "the cluster has no endpoints left");
            return;
        }
        let list = self.used.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ");
        let count = self.used.len();
        tracing::info!(%cluster, count, endpoints = list, "the cluster has endpoints");
    }
}
