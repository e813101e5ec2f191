//! One strict_dns cluster: collects the addresses of its names, sends them to the workers as
//! endpoints, and logs the names whose state changes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::files::Files;
use super::follower::{Follower, Key, Update};
use super::lookup::Family;
use super::names::{Names, State};
use crate::config::{Config, DnsName};
use crate::sys::{self, Address};
use crate::worker::Command;

/// The delay between a change of a name's state and its log line. Changes of other names, and of
/// the other family, within this time share the line: they mostly have the same cause.
const SETTLE: Duration = Duration::from_millis(300);

/// Where a cluster's endpoints go.
pub(super) struct Follows {
    /// The configuration of the moment.
    config: watch::Receiver<Arc<Config>>,
    workers: Vec<Sender<Command>>,
    /// False while the configuration of the cluster is not in use yet.
    is_sending: AtomicBool,
}

impl Follows {
    pub(super) fn new(
        config: watch::Receiver<Arc<Config>>,
        workers: Vec<Sender<Command>>,
    ) -> Follows {
        Follows { config, workers, is_sending: AtomicBool::new(false) }
    }

    /// From now on changes are sent to the workers.
    pub(super) fn begin_sending(&self) {
        self.is_sending.store(true, Ordering::Relaxed);
    }
}

/// What is known of a cluster.
#[derive(Clone)]
pub(super) struct Answers {
    /// The addresses of each name.
    pub(super) addresses: HashMap<Key, Vec<IpAddr>>,
    /// What follows from them.
    pub(super) endpoints: Arc<[Address]>,
    /// The names without a first answer.
    pub(super) unanswered: Vec<String>,
}

/// One cluster: the addresses of its names, and what was sent to the workers.
pub(super) struct Cluster {
    name: Arc<str>,
    names: Vec<DnsName>,
    states: Names,
    addresses: HashMap<Key, Vec<IpAddr>>,
    /// Every address of every name, sorted.
    resolved: Vec<SocketAddr>,
    /// Addresses of `resolved` that are not endpoints because they lead back to the cluster.
    excluded: Vec<SocketAddr>,
    /// The endpoints that follow from all that.
    endpoints: Vec<SocketAddr>,
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
        let mut cluster = Cluster {
            name: Arc::clone(name),
            names: names.to_vec(),
            states: Names::new(hosts.iter().cloned()),
            addresses: known,
            resolved: Vec::new(),
            excluded: Vec::new(),
            endpoints: Vec::new(),
            follows: Arc::clone(follows),
        };
        cluster.update_endpoints();
        cluster
    }

    /// What is known at present.
    pub(super) fn answers(&self) -> Answers {
        Answers {
            addresses: self.addresses.clone(),
            endpoints: self.endpoints.iter().copied().map(Address::Ip).collect(),
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
                followers.spawn(follower.run(files.clone(), sender.clone()));
            }
        }
        let mut log_at = None;
        loop {
            let settled = async {
                match log_at {
                    Some(at) => tokio::time::sleep_until(at).await,
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
                    let has_changed = self.update_endpoints();
                    answers.send_replace(self.answers());
                    if has_changed {
                        self.send();
                    }
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

    /// Derives the endpoints from the addresses. Returns true if they have changed.
    fn update_endpoints(&mut self) -> bool {
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
        if resolved == self.resolved {
            return false;
        }
        self.exclude_loops(&resolved);
        let is_used = |address: &&SocketAddr| !self.excluded.contains(address);
        let endpoints: Vec<SocketAddr> = resolved.iter().filter(is_used).copied().collect();
        self.resolved = resolved;
        let has_changed = endpoints != self.endpoints;
        self.endpoints = endpoints;
        has_changed
    }

    /// Checks the new addresses and warns of those that lead back to the cluster, which the check
    /// of the configuration cannot find. If that is certain, an address does not become an
    /// endpoint.
    fn exclude_loops(&mut self, resolved: &[SocketAddr]) {
        self.excluded.retain(|address| resolved.contains(address));
        let is_new = |address: &&SocketAddr| !self.resolved.contains(address);
        let new: Vec<SocketAddr> = resolved.iter().filter(is_new).copied().collect();
        let config = Arc::clone(&self.follows.config.borrow());
        for back in config.loops_through(&self.name, &new, sys::is_local) {
            let (cluster, endpoint, listeners) =
                (&self.name, back.address, back.listeners.join(" "));
            if back.certain {
                self.excluded.push(endpoint);
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
    }

    /// Logs the endpoints, and sends them to the workers.
    fn send(&self) {
        let list = self.endpoints.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ");
        let (cluster, count) = (&self.name, self.endpoints.len());
        if self.endpoints.is_empty() {
            tracing::warn!(%cluster, "the cluster has no endpoints left");
        } else {
            tracing::info!(%cluster, count, endpoints = list, "the cluster has endpoints");
        }
        if !self.follows.is_sending.load(Ordering::Relaxed) {
            return;
        }
        let addresses: Arc<[Address]> = self.endpoints.iter().copied().map(Address::Ip).collect();
        for worker in &self.follows.workers {
            let addresses = Arc::clone(&addresses);
            let cluster = Arc::clone(&self.name);
            // An error means that the worker has ended.
            let _ = worker.send(Command::Endpoints { cluster, addresses });
        }
    }
}
