//! One strict_dns cluster: collects the addresses of its names, sends them to the workers as
//! endpoints, and logs the names whose state changes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::super::crew::Crew;
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

/// One cluster: the addresses of its names, and what was sent to the workers.
pub(super) struct Cluster {
    config: Arc<Config>,
    name: Arc<str>,
    names: Vec<DnsName>,
    states: Names,
    addresses: HashMap<Key, Vec<IpAddr>>,
    /// Every address of every name, sorted.
    resolved: Vec<SocketAddr>,
    /// Addresses of `resolved` that are not endpoints because they lead back to the cluster.
    excluded: Vec<SocketAddr>,
    /// The endpoints that the workers have.
    sent: Vec<SocketAddr>,
    workers: Vec<Sender<Command>>,
    files: Files,
}

impl Cluster {
    /// `hosts` are the distinct hosts of `names`, each with the families to look up.
    pub(super) fn new(
        config: Arc<Config>,
        name: &Arc<str>,
        names: &[DnsName],
        hosts: &[(String, Vec<Family>)],
        crew: &Crew,
        files: &Files,
    ) -> Cluster {
        Cluster {
            config,
            name: Arc::clone(name),
            names: names.to_vec(),
            states: Names::new(hosts.iter().cloned()),
            addresses: HashMap::new(),
            resolved: Vec::new(),
            excluded: Vec::new(),
            sent: Vec::new(),
            workers: crew.commands(),
            files: files.clone(),
        }
    }

    /// The names without a first answer.
    pub(super) fn unanswered(&self) -> Vec<String> {
        self.states.unanswered()
    }

    /// Starts the followers of its names, and processes their results.
    pub(super) async fn run(
        mut self,
        hosts: Vec<(String, Vec<Family>)>,
        refresh: Duration,
        unanswered: watch::Sender<Vec<String>>,
    ) {
        let (sender, mut updates) = mpsc::unbounded_channel();
        // Dropped with this task, which ends the followers.
        let mut followers = JoinSet::new();
        for (host, families) in hosts {
            for family in families {
                let follower = Follower::new((host.clone(), family), refresh);
                followers.spawn(follower.run(self.files.clone(), sender.clone()));
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
                    self.update_endpoints();
                    unanswered.send_replace(self.states.unanswered());
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

    /// Sends the endpoints to the workers if they have changed.
    fn update_endpoints(&mut self) {
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
            return;
        }
        self.exclude_loops(&resolved);
        let is_used = |address: &&SocketAddr| !self.excluded.contains(address);
        let endpoints: Vec<SocketAddr> = resolved.iter().filter(is_used).copied().collect();
        self.resolved = resolved;
        if endpoints != self.sent {
            self.send(endpoints);
        }
    }

    /// Checks the new addresses and warns of those that lead back to the cluster, which the check
    /// of the configuration cannot find. If that is certain, an address does not become an
    /// endpoint.
    fn exclude_loops(&mut self, resolved: &[SocketAddr]) {
        self.excluded.retain(|address| resolved.contains(address));
        let is_new = |address: &&SocketAddr| !self.resolved.contains(address);
        let new: Vec<SocketAddr> = resolved.iter().filter(is_new).copied().collect();
        for back in self.config.loops_through(&self.name, &new, sys::is_local) {
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

    fn send(&mut self, endpoints: Vec<SocketAddr>) {
        let list = endpoints.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ");
        let (cluster, count) = (&self.name, endpoints.len());
        if endpoints.is_empty() {
            tracing::warn!(%cluster, "the cluster has no endpoints left");
        } else {
            tracing::info!(%cluster, count, endpoints = list, "the cluster has endpoints");
        }
        let addresses: Arc<[Address]> = endpoints.iter().copied().map(Address::Ip).collect();
        self.sent = endpoints;
        for worker in &self.workers {
            let addresses = Arc::clone(&addresses);
            let cluster = Arc::clone(&self.name);
            // An error means that the worker has ended.
            let _ = worker.send(Command::Endpoints { cluster, addresses });
        }
    }
}
