//! The endpoints of all clusters. What looks up names lists them, an operator takes some out of use
//! or sets others in their place, and the workers get what is left. With them go their counters,
//! which the admin endpoint shows.
//!
//! What an operator has changed outlasts a reload and a take-over. Only endpoints that were set are
//! given up when the configuration names others for the cluster: then it is newer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::{Cluster, Config, Discovery, DnsName, Loops};
use crate::observe::counters;
use crate::observe::earlier::{self, Earlier};
use crate::observe::endpoints::{ClusterNumbers, Endpoints, Registry};
use crate::sys::{self, Address};
use crate::worker::Command;

/// The most endpoints of a cluster that may be drained at once, and that may be set.
pub(super) const MOST_STEERED: usize = 1000;
/// The most endpoints of each kind in a part of what was changed: with the longest Unix paths it
/// has 30 KB.
const PART: usize = 200;

/// The endpoints of all clusters. Nothing waits for a change of them.
#[derive(Clone)]
pub(super) struct Roster {
    workers: Arc<[Sender<Command>]>,
    state: Arc<watch::Sender<State>>,
}

struct State {
    counters: Registry,
    clusters: BTreeMap<Arc<str>, Member>,
}

/// The endpoints of one cluster.
#[derive(Default)]
struct Member {
    /// Those of the configuration or of DNS.
    found: Vec<Address>,
    steered: Steered,
}

/// What an operator has changed of a cluster, or a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Steered {
    /// Endpoints that get nothing new, also while the cluster does not have them.
    drained: BTreeSet<String>,
    /// Endpoints in place of those that are found.
    set: Option<Set>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Set {
    endpoints: Vec<SocketAddr>,
    /// Stands for what the configuration named when they were set.
    instead_of: Vec<u8>,
}

/// A change that an operator wants.
#[derive(Debug)]
pub(super) enum Steer {
    /// This endpoint gets nothing new. What uses it goes on.
    Drain(String),
    /// This endpoint is used again.
    Enable(String),
    /// The cluster has these endpoints, whatever the configuration and DNS have.
    Set(Vec<SocketAddr>),
    /// The cluster has those of the configuration or of DNS again.
    Reset,
}

impl Roster {
    /// Makes it for the workers behind these channels. `steered` is what a predecessor was told, in
    /// the parts of [`Roster::steered`].
    pub(super) fn new(workers: Vec<Sender<Command>>, steered: Vec<(String, Steered)>) -> Roster {
        let mut clusters = BTreeMap::<Arc<str>, Member>::new();
        for (name, part) in steered {
            clusters.entry(name.into()).or_default().steered.add(part);
        }
        let state = State { counters: Registry::new(workers.len()), clusters };
        Roster { workers: workers.into(), state: Arc::new(watch::Sender::new(state)) }
    }

    /// Notes that a cluster has these endpoints by its configuration or DNS. Returns those that the
    /// workers are to use.
    pub(super) fn list(&self, cluster: &Arc<str>, found: Vec<Address>) -> Arc<Endpoints> {
        self.with(|state| {
            state.clusters.entry(Arc::clone(cluster)).or_default().found = found;
            state.list(cluster)
        })
    }

    /// As [`Roster::list`], and sends them to the workers.
    pub(super) fn publish(&self, cluster: &Arc<str>, found: Vec<Address>) {
        let endpoints = self.list(cluster, found);
        self.send(cluster, &endpoints);
    }

    fn send(&self, cluster: &Arc<str>, endpoints: &Arc<Endpoints>) {
        for worker in self.workers.iter() {
            let (cluster, endpoints) = (Arc::clone(cluster), Arc::clone(endpoints));
            // An error means that the worker has ended.
            let _ = worker.send(Command::Endpoints { cluster, endpoints });
        }
    }

    /// Notes that there are no other clusters any more than those of this configuration, and gives
    /// up endpoints that were set and that lead back to their cluster by it. Must come before the
    /// endpoints are listed.
    pub(super) fn keep(&self, config: &Config) {
        let names: HashSet<&str> = config.clusters.iter().map(|cluster| &*cluster.name).collect();
        self.with(|state| {
            state.counters.keep_clusters(|name| names.contains(name));
            state.clusters.retain(|name, _| names.contains(&**name));
            for cluster in &config.clusters {
                let Some(member) = state.clusters.get_mut(&cluster.name) else { continue };
                let is_newer = |set: &mut Set| set.instead_of != written(&cluster.discovery);
                if member.steered.set.take_if(is_newer).is_some() {
                    tracing::info!(
                        cluster = %cluster.name,
                        "the configuration names other endpoints: those that the admin endpoint \
                         has set are not used any more"
                    );
                }
            }
        });
        let clusters = self.clusters(config);
        let loops = config.loops_of(&clusters, sys::is_local);
        self.with(|state| state.break_loops(&loops));
    }

    /// The clusters of a configuration, with the endpoints that were set in place of its own.
    pub(super) fn clusters(&self, config: &Config) -> Vec<Arc<Cluster>> {
        let state = self.state.borrow();
        let cluster = |cluster: &Arc<Cluster>| {
            let steered = state.clusters.get(&cluster.name).map(|member| &member.steered);
            let Some(set) = steered.and_then(|steered| steered.set.as_ref()) else {
                return Arc::clone(cluster);
            };
            let discovery = Discovery::Static(set.addresses());
            Arc::new(Cluster { discovery, ..Cluster::clone(cluster) })
        };
        config.clusters.iter().map(cluster).collect()
    }

    /// Endpoints that are drained although the cluster does not have them at present.
    pub(super) fn drained_elsewhere(&self, cluster: &str) -> Vec<String> {
        let state = self.state.borrow();
        let Some(member) = state.clusters.get(cluster) else { return Vec::new() };
        if member.steered.drained.is_empty() {
            return Vec::new();
        }
        let listed: HashSet<String> = member.listed().iter().map(Address::to_string).collect();
        member.steered.drained.iter().filter(|one| !listed.contains(*one)).cloned().collect()
    }

    /// Changes which endpoints a cluster of the configuration has, and tells the workers.
    ///
    /// # Errors
    /// The cluster has no such endpoint, or too many are drained.
    pub(super) fn steer(
        &self,
        cluster: &Arc<str>,
        discovery: &Discovery,
        steer: &Steer,
    ) -> Result<(), String> {
        let endpoints = self.with(|state| {
            let member = state.clusters.entry(Arc::clone(cluster)).or_default();
            member.steer(steer, discovery)?;
            Ok::<_, String>(state.list(cluster))
        })?;
        if endpoints.listed.is_empty() {
            tracing::warn!(%cluster, "the cluster has no endpoints left");
        }
        self.send(cluster, &endpoints);
        Ok(())
    }

    /// Returns true if the endpoints of a cluster were set.
    pub(super) fn is_set(&self, cluster: &str) -> bool {
        let state = self.state.borrow();
        state.clusters.get(cluster).is_some_and(|member| member.steered.set.is_some())
    }

    /// Returns true if a cluster has an endpoint or has it drained.
    pub(super) fn has(&self, cluster: &str, endpoint: &str) -> bool {
        let state = self.state.borrow();
        state.clusters.get(cluster).is_some_and(|member| member.has(endpoint))
    }

    /// What operators have changed, with the names of clusters, in parts of a bounded size.
    pub(super) fn steered(&self) -> Vec<(String, Steered)> {
        let state = self.state.borrow();
        let parts = state
            .clusters
            .iter()
            .flat_map(|(name, member)| member.steered.parts().map(|part| (name.to_string(), part)));
        parts.collect()
    }

    /// Everything that this process and those before it have counted.
    pub(super) fn counted(&self, listeners: &counters::Registry) -> Vec<Earlier> {
        earlier::all(listeners, &self.state.borrow().counters)
    }

    /// Takes what an earlier process has counted.
    pub(super) fn take(&self, counted: &[Earlier], listeners: &counters::Registry) {
        self.with(|state| {
            counted.iter().for_each(|one| earlier::take(one, listeners, &mut state.counters));
        });
    }

    /// See [`Registry::show`].
    pub(super) fn show(&self) -> Vec<ClusterNumbers> {
        self.with(|state| state.counters.show())
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let mut result = None;
        self.state.send_modify(|state| result = Some(f(state)));
        result.expect("send_modify calls its argument once")
    }
}

impl State {
    /// Lists what a cluster has now.
    fn list(&mut self, cluster: &Arc<str>) -> Arc<Endpoints> {
        let State { counters, clusters } = self;
        let member = clusters.entry(Arc::clone(cluster)).or_default();
        let steered = &member.steered;
        let is_drained = |address: &Address| {
            // As a rule there are none, and an address needs no text then.
            !steered.drained.is_empty() && steered.drained.contains(&address.to_string())
        };
        Arc::new(counters.list(cluster, &member.listed(), is_drained))
    }

    /// Gives up endpoints that were set and certainly lead back to their cluster.
    fn break_loops(&mut self, loops: &Loops<'_>) {
        for (name, member) in &mut self.clusters {
            let Some(set) = &mut member.steered.set else { continue };
            for back in loops.through(name, &set.endpoints) {
                if !back.certain {
                    continue;
                }
                let (endpoint, listeners) = (back.address, back.listeners.join(" "));
                tracing::warn!(
                    cluster = %name, %endpoint, listeners,
                    "the endpoint, which the admin endpoint has set, leads back to its own cluster \
                     through these listeners: it is not used any more"
                );
                set.endpoints.retain(|one| *one != endpoint);
            }
        }
    }
}

impl Steered {
    /// Splits it into parts of a bounded size.
    fn parts(&self) -> impl Iterator<Item = Steered> {
        let drained: Vec<&String> = self.drained.iter().collect();
        let drained = drained
            .chunks(PART)
            .map(|part| Steered { drained: part.iter().copied().cloned().collect(), set: None });
        let drained: Vec<Steered> = drained.collect();
        let set = self.set.iter().flat_map(|set| {
            let part = |endpoints: &[SocketAddr]| Steered {
                drained: BTreeSet::new(),
                set: Some(Set { endpoints: endpoints.to_vec(), ..set.clone() }),
            };
            // A cluster may have been set to nothing.
            let is_empty = set.endpoints.is_empty();
            set.endpoints.chunks(PART).map(part).chain(is_empty.then(|| part(&[])))
        });
        drained.into_iter().chain(set.collect::<Vec<_>>())
    }

    /// Adds another part.
    fn add(&mut self, part: Steered) {
        self.drained.extend(part.drained);
        match (&mut self.set, part.set) {
            (Some(set), Some(part)) => set.endpoints.extend(part.endpoints),
            (set, part) => *set = part.or(set.take()),
        }
    }
}

impl Set {
    fn addresses(&self) -> Vec<Address> {
        self.endpoints.iter().copied().map(Address::Ip).collect()
    }
}

impl Member {
    /// Its endpoints, drained or not.
    fn listed(&self) -> Cow<'_, [Address]> {
        match &self.steered.set {
            Some(set) => Cow::Owned(set.addresses()),
            None => Cow::Borrowed(&self.found),
        }
    }

    /// Whether it has an endpoint, or has it drained.
    fn has(&self, endpoint: &str) -> bool {
        let is_it = |address: &Address| address.to_string() == endpoint;
        let set = self.steered.set.iter().flat_map(|set| &set.endpoints);
        self.found.iter().any(is_it)
            || set.copied().map(Address::Ip).any(|address| is_it(&address))
            || self.steered.drained.contains(endpoint)
    }

    fn steer(&mut self, steer: &Steer, discovery: &Discovery) -> Result<(), String> {
        let needs = |endpoint: &str| match self.has(endpoint) {
            true => Ok(()),
            false => Err(format!("the cluster has no endpoint {endpoint}")),
        };
        match steer {
            Steer::Drain(endpoint) => {
                needs(endpoint)?;
                let drained = &mut self.steered.drained;
                if drained.len() >= MOST_STEERED && !drained.contains(endpoint) {
                    return Err(format!(
                        "{MOST_STEERED} endpoints of the cluster are drained: enable some"
                    ));
                }
                drained.insert(endpoint.clone());
            }
            Steer::Enable(endpoint) => {
                needs(endpoint)?;
                self.steered.drained.remove(endpoint);
            }
            Steer::Set(endpoints) => {
                let mut endpoints = endpoints.clone();
                endpoints.sort();
                endpoints.dedup();
                self.steered.set = Some(Set { endpoints, instead_of: written(discovery) });
            }
            Steer::Reset => self.steered.set = None,
        }
        Ok(())
    }
}

/// Stands for the endpoints that a configuration names, in a few bytes.
fn written(discovery: &Discovery) -> Vec<u8> {
    let names: Vec<String> = match discovery {
        Discovery::Static(addresses) => addresses.iter().map(Address::to_string).collect(),
        Discovery::StrictDns { names, .. } => {
            names.iter().map(|DnsName { host, port }| format!("{host}:{port}")).collect()
        }
    };
    digest(&SHA256, names.join("\n").as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests;
