//! Changes which endpoints a cluster has, by order of the admin endpoint.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::admin::Undone;
use super::roster::Steer;
use super::serving::Serving;
use crate::sys;
use crate::worker::Command;

/// The most endpoints that a line of the log names.
const MOST_NAMED: usize = 20;

impl Serving {
    /// Changes which endpoints a cluster has. Returns when all workers use them, so that what a
    /// client connects to from then on is one of them.
    ///
    /// # Errors
    /// There is no such cluster or endpoint, or an endpoint leads back to the cluster. Or a worker
    /// has not confirmed it in time, and may use other endpoints until it does.
    pub(super) async fn steer(&self, cluster: &str, steer: &Steer) -> Result<(), Undone> {
        let Some(cluster) = self.config.cluster(cluster) else {
            return Err(format!("there is no cluster {cluster}").into());
        };
        if let Steer::Set(endpoints) = steer {
            // Through endpoints of other clusters that were set, too.
            let clusters = self.facts.roster.clusters(&self.config);
            let loops = self.config.loops_of(&clusters, sys::is_local);
            let back = loops.through(&cluster.name, endpoints);
            if let Some(back) = back.iter().find(|back| back.certain) {
                let (address, listeners) = (back.address, back.listeners.join(" "));
                return Err(Undone::Refused(format!(
                    "{address} leads back to the cluster through these listeners: {listeners}"
                )));
            }
        }
        self.facts.roster.steer(&cluster.name, &cluster.discovery, steer)?;
        report(&cluster.name, steer);
        let confirmed = Arc::new(AtomicUsize::new(0));
        self.crew.tell(&Command::Confirm(Arc::clone(&confirmed)));
        if self.crew.all_have(&confirmed).await { Ok(()) } else { Err(Undone::Late) }
    }
}

fn report(cluster: &str, steer: &Steer) {
    match steer {
        Steer::Drain(endpoint) => {
            tracing::info!(cluster, endpoint, "an endpoint is drained: it gets nothing new");
        }
        Steer::Enable(endpoint) => tracing::info!(cluster, endpoint, "an endpoint is enabled"),
        Steer::Set(endpoints) => {
            let list: Vec<String> =
                endpoints.iter().take(MOST_NAMED).map(ToString::to_string).collect();
            let more = if endpoints.len() > MOST_NAMED { " …" } else { "" };
            let (count, endpoints) = (endpoints.len(), list.join(" ") + more);
            tracing::info!(cluster, count, endpoints, "the endpoints of the cluster are set");
        }
        Steer::Reset => {
            tracing::info!(cluster, "the cluster has the endpoints of the configuration again");
        }
    }
}
