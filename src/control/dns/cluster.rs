//! One strict_dns cluster: collects the addresses of its names, sends them to the workers as
//! endpoints, and logs the names whose state changes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::ages::Ages;
use super::endpoints::Endpoints;
use super::files::Files;
use super::follower::{Follower, Key, Update};
use super::lookup::Family;
use super::names::{Names, State};
use crate::config::{Config, DnsName, Loops};
use crate::control::roster::Roster;
use crate::observe::endpoints::Endpoints as Listed;
use crate::sys::{self, Address};

/// The delay between a change of a name's state and its log line. Changes of other names, and of
/// the other family, within this time share the line: they mostly have the same cause.
const SETTLE: Duration = Duration::from_millis(300);

/// Where a cluster's endpoints go.
pub(super) struct Follows {
    roster: Roster,
    /// The last look-ups.
    pub(super) ages: Ages,
    /// `None` while the configuration of the cluster is not in use yet: nothing is logged or sent.
    in_use: watch::Sender<Option<InUse>>,
}

/// What a cluster in use has.
struct InUse {
    /// The whole configuration.
    config: Arc<Config>,
    endpoints: Endpoints,
}

impl Follows {
    pub(super) fn new(roster: Roster) -> Follows {
        Follows { roster, ages: Ages::new(), in_use: watch::Sender::new(None) }
    }

    /// Puts a configuration in use, of which `loops` are made. Returns the endpoints of the
    /// cluster, which has these addresses. Later changes are sent to the workers.
    pub(super) fn commit(
        &self,
        cluster: &Arc<str>,
        config: &Arc<Config>,
        loops: &Loops<'_>,
        resolved: &[SocketAddr],
    ) -> Arc<Listed> {
        let mut addresses = Vec::new();
        self.in_use.send_modify(|in_use| {
            let mut endpoints = in_use.take().map(|in_use| in_use.endpoints).unwrap_or_default();
            // A listener that has changed may close a loop, or open one.
            if endpoints.update(cluster, loops, resolved.to_vec()) {
                self.log(cluster, &endpoints);
            }
            addresses = to_addresses(&endpoints);
            *in_use = Some(InUse { config: Arc::clone(config), endpoints });
        });
        self.roster.list(cluster, addresses)
    }

    /// Takes new addresses of the cluster, and sends the endpoints to the workers if they change.
    fn update(&self, cluster: &Arc<str>, resolved: &[SocketAddr]) {
        let mut changed = None;
        self.in_use.send_if_modified(|in_use| {
            let Some(InUse { config, endpoints }) = in_use else { return false };
            if endpoints.resolved() == resolved {
                return false;
            }
            let clusters = self.roster.clusters(config);
            let loops = config.loops_of(&clusters, sys::is_local);
            if endpoints.update(cluster, &loops, resolved.to_vec()) {
                self.log(cluster, endpoints);
                changed = Some(to_addresses(endpoints));
            }
            // The task waits for the first use alone.
            false
        });
        if let Some(addresses) = changed {
            self.roster.publish(cluster, addresses);
        }
    }

    /// Logs the endpoints, unless the cluster has others that were set.
    fn log(&self, cluster: &str, endpoints: &Endpoints) {
        if !self.roster.is_set(cluster) {
            endpoints.log(cluster);
        }
    }

    /// Waits until the configuration of the cluster is in use.
    async fn in_use(&self) {
        // The sender is this one, so that the channel is open.
        let _ = self.in_use.subscribe().wait_for(Option::is_some).await;
    }
}

fn to_addresses(endpoints: &Endpoints) -> Vec<Address> {
    endpoints.used().iter().copied().map(Address::Ip).collect()
}

/// What is known of a cluster.
#[derive(Clone)]
pub(super) struct Answers {
    /// The addresses of each name.
    pub(super) addresses: HashMap<Key, Vec<IpAddr>>,
    /// Every address of every name, sorted.
    pub(super) resolved: Vec<SocketAddr>,
    /// The names without a first answer.
    pub(super) unanswered: Vec<String>,
}

/// One cluster: the addresses of its names, and where they go.
pub(super) struct Cluster {
    name: Arc<str>,
    names: Vec<DnsName>,
    states: Names,
    addresses: HashMap<Key, Vec<IpAddr>>,
    follows: Arc<Follows>,
}

impl Cluster {
    /// `hosts` are the distinct hosts of `names`, each with the families to look up. `known` are
    /// the last answers about names, which count until there are newer ones.
    pub(super) fn new(
        name: &Arc<str>,
        names: &[DnsName],
        hosts: &[(String, Vec<Family>)],
        mut known: HashMap<Key, Vec<IpAddr>>,
        follows: &Arc<Follows>,
    ) -> Cluster {
        known.retain(|(host, family), _| {
            hosts.iter().any(|(own, families)| own == host && families.contains(family))
        });
        Cluster {
            name: Arc::clone(name),
            names: names.to_vec(),
            states: Names::new(hosts.iter().cloned()),
            addresses: known,
            follows: Arc::clone(follows),
        }
    }

    /// What is known at present.
    pub(super) fn answers(&self) -> Answers {
        Answers {
            addresses: self.addresses.clone(),
            resolved: self.resolved(),
            unanswered: self.states.unanswered(),
        }
    }

    /// Starts the followers of its names, and processes their results.
    pub(super) async fn run(
        mut self,
        hosts: Vec<(String, Vec<Family>)>,
        refresh: Duration,
        files: Files,
        answers: watch::Sender<Answers>,
    ) {
        let (sender, mut updates) = mpsc::unbounded_channel();
        // Dropped with this task, which ends the followers.
        let mut followers = JoinSet::new();
        for (host, families) in hosts {
            for family in families {
                let key = (host.clone(), family);
                let known = self.addresses.get(&key).cloned().unwrap_or_default();
                let follower = Follower::new(key, refresh, known);
                followers.spawn(follower.run(
                    files.clone(),
                    sender.clone(),
                    self.follows.ages.clone(),
                ));
            }
        }
        let mut log_at = None;
        loop {
            let settled = async {
                match log_at {
                    Some(at) => {
                        tokio::time::sleep_until(at).await;
                        self.follows.in_use().await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // This task holds a sender itself, so the channel is never closed.
                Some(Update { key, addresses, outcome }) = updates.recv() => {
                    if self.states.learn(&key.0, key.1, outcome) && log_at.is_none() {
                        log_at = Some(tokio::time::Instant::now() + SETTLE);
                    }
                    self.addresses.insert(key, addresses);
                    // Send at once: answers for IPv4 and IPv6 mostly come together, but neither
                    // waits.
                    let known = self.answers();
                    self.follows.update(&self.name, &known.resolved);
                    answers.send_replace(known);
                }
                () = settled => {
                    log_at = None;
                    self.log_changes();
                }
            }
        }
    }

    /// Logs the names whose state has changed.
    fn log_changes(&mut self) {
        let cluster = &self.name;
        for change in self.states.changes() {
            let (names, error) = (change.names, change.error);
            match change.state {
                State::Resolved => tracing::info!(%cluster, names, "names are resolved"),
                State::NoSuchName => tracing::warn!(%cluster, names, "names do not exist in DNS"),
                State::NoAddress => tracing::warn!(%cluster, names, "names have no address"),
                State::Partial => {
                    tracing::warn!(%cluster, names, error, "names are resolved in one family only");
                }
                State::Failing => tracing::warn!(%cluster, names, error, "cannot look up names"),
            }
        }
    }

    /// Every address of every name, sorted.
    fn resolved(&self) -> Vec<SocketAddr> {
        let mut resolved = Vec::new();
        for name in &self.names {
            for family in [Family::V4, Family::V6] {
                let known = self.addresses.get(&(name.host.clone(), family));
                let with_port = |ip: &IpAddr| SocketAddr::new(*ip, name.port);
                resolved.extend(known.into_iter().flatten().map(with_port));
            }
        }
        // The order of addresses in an answer has no meaning, so a rotation is not a change.
        resolved.sort();
        resolved.dedup();
        resolved
    }
}
