//! The configuration of the moment on one worker: its listeners and clusters as objects.
//!
//! The control plane makes a [`Layout`] of a configuration, which all workers share. Each worker
//! applies it to its own [`Generation`]: listeners and clusters that have not changed stay the same
//! objects, with their counts and what they have learned of their endpoints. A connection holds the
//! objects that it uses, so what a reload removes ends with the last connection that uses it.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use super::admission::Admission;
use super::listener::Listener;
use super::service::{Parts, Service};
use super::tls::Origin;
use crate::cluster::{Cluster, IdleQuota, Report};
use crate::config::{self, AccessLog, Config, HostName, Protocol};
use crate::files::{Store, Threads};
use crate::observe::access_log::{Recorder, Sink};
use crate::observe::counters::{Counters, Registry};
use crate::observe::endpoints::Endpoints;
use crate::observe::hosts::HostCells;
use crate::proto::tls::{Authorities, Identity, TicketKeys};
use crate::timers::Timers;

/// One configuration, and what its listeners share over all workers.
pub struct Layout {
    /// The clusters. Their names are unique.
    pub clusters: Vec<Arc<config::Cluster>>,
    /// The listeners. Their names are unique.
    pub listeners: Vec<Shared>,
    /// The keys of session tickets at the start.
    pub ticket_keys: Arc<TicketKeys>,
    /// The endpoints of clusters, as far as they are known.
    pub endpoints: Vec<(Arc<str>, Arc<Endpoints>)>,
    /// The certificates that are newer than the configuration, or that it does not have.
    pub certificates: Vec<(Origin, Identity)>,
    /// The threads that read files. `None` if no route serves files.
    pub files: Option<Threads>,
    /// The authorities of this machine. `None` if no cluster needs them.
    pub system: Option<Authorities>,
    /// The largest id of a listener so far.
    last_id: u64,
}

/// One listener, with what all workers share of it.
pub struct Shared {
    /// Distinguishes it from every other listener of the process, also from those before it with
    /// the same name. It stays over a reload as long as name, protocol and an address stay.
    pub id: u64,
    /// Its configuration.
    pub config: Arc<config::Listener>,
    /// Its limit of connections.
    pub admission: Arc<Admission>,
    /// Where its records go; `None` if it writes none.
    pub sink: Option<Arc<Sink>>,
    /// What each worker counts, in the order of the workers.
    pub counters: Arc<[Arc<Counters>]>,
    /// The same of its hosts, in the order of the configuration. Empty unless it serves HTTP.
    pub hosts: Vec<HostCells>,
}

/// What a [`Layout`] takes from outside of the configuration.
#[derive(Default)]
pub struct Resources {
    /// The authorities of this machine, if [`Config::needs_system_authorities`].
    pub system: Option<Authorities>,
    /// The threads for [`Config::files`].
    pub files: Option<Threads>,
    /// The keys of session tickets, if there are some already and no file has them.
    pub ticket_keys: Option<Arc<TicketKeys>>,
    /// As [`Layout::endpoints`].
    pub endpoints: Vec<(Arc<str>, Arc<Endpoints>)>,
    /// As [`Layout::certificates`].
    pub certificates: Vec<(Origin, Identity)>,
    /// The layout that this one follows. `None` at the start.
    pub before: Option<Arc<Layout>>,
}

impl Layout {
    /// Makes the layout of a configuration. `admissions` has the limits of listeners that there
    /// are already, `counters` the counters of all, and `open` opens an access log.
    ///
    /// # Errors
    /// The first error of `open`.
    pub fn new<E>(
        config: &Config,
        resources: Resources,
        admissions: &HashMap<Arc<str>, Arc<Admission>>,
        counters: &mut Registry,
        mut open: impl FnMut(&AccessLog) -> Result<Arc<Sink>, E>,
    ) -> Result<Layout, E> {
        let Resources { system, files, ticket_keys, endpoints, certificates, before } = resources;
        let known: HashMap<&str, &Shared> = before
            .iter()
            .flat_map(|before| &before.listeners)
            .map(|shared| (&*shared.config.name, shared))
            .collect();
        let mut last_id = before.as_ref().map_or(0, |before| before.last_id);
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for listener in &config.listeners {
            let admission = admissions.get(&listener.name).cloned();
            let known = known.get(&*listener.name).filter(|known| known.goes_on_as(listener));
            listeners.push(Shared {
                id: known.map_or_else(
                    || {
                        last_id += 1;
                        last_id
                    },
                    |known| known.id,
                ),
                config: Arc::clone(listener),
                admission: admission
                    .unwrap_or_else(|| Arc::new(Admission::new(listener.max_connections))),
                sink: listener.access_log.as_deref().map(&mut open).transpose()?,
                counters: counters.of(&listener.name),
                hosts: counters.hosts.of(&listener.name, names_of_hosts(listener)),
            });
        }
        let ticket_keys = match &config.tls.ticket_keys {
            Some(file) => Arc::clone(&file.keys),
            None => ticket_keys.unwrap_or_else(|| Arc::new(TicketKeys::random())),
        };
        let clusters = config.clusters.clone();
        Ok(Layout {
            clusters,
            listeners,
            ticket_keys,
            endpoints,
            certificates,
            files,
            system,
            last_id,
        })
    }
}

/// What the hosts of a listener are called in metrics: by their first names.
fn names_of_hosts(listener: &config::Listener) -> impl Iterator<Item = String> {
    let hosts = match &listener.protocol {
        Protocol::Http(http) => &http.hosts[..],
        Protocol::Tcp(_) | Protocol::Tls(_) | Protocol::Udp(_) => &[],
    };
    hosts.iter().map(|host| match host.names.first() {
        None => "*".to_owned(),
        Some(HostName::Exact(name)) => name.clone(),
        Some(HostName::Suffix(suffix)) => format!("*{suffix}"),
        Some(HostName::Prefix(prefix)) => format!("{prefix}*"),
    })
}

impl Shared {
    /// Returns true if a listener of the next configuration, which has the same name, is the same
    /// one. With another protocol or at other addresses it is not: clients of this one may have
    /// connected and sent nothing yet.
    fn goes_on_as(&self, next: &config::Listener) -> bool {
        let shares_an_address = || {
            self.config
                .addresses
                .iter()
                .any(|address| next.addresses.binary_search(address).is_ok())
        };
        mem::discriminant(&self.config.protocol) == mem::discriminant(&next.protocol)
            && shares_an_address()
    }
}

/// The listeners and clusters of one worker, by their names.
#[derive(Default)]
pub struct Generation {
    listeners: HashMap<Arc<str>, Rc<Listener>>,
    /// Their names, by [`Shared::id`].
    names: HashMap<u64, Arc<str>>,
    /// Listeners that the configuration does not have any more, by their ids, while connections
    /// use them.
    removed: HashMap<u64, Rc<Listener>>,
    clusters: HashMap<Arc<str>, Member>,
    ticket_keys: Option<Arc<TicketKeys>>,
    /// The group of the last new listener.
    groups: u32,
}

/// A cluster, and the configuration that it was made of.
struct Member {
    config: Arc<config::Cluster>,
    cluster: Rc<Cluster>,
}

/// What the objects of one worker share, whatever the configuration.
pub struct Own<'a> {
    /// The index of the worker.
    pub index: usize,
    /// Its access logs.
    pub recorder: &'a Recorder,
    /// What sites of files share.
    pub store: &'a Rc<Store>,
    /// What clusters share.
    pub idle_quota: &'a Rc<IdleQuota>,
    /// Its time limits.
    pub timers: &'a Timers,
}

impl Generation {
    /// Makes the worker serve by a layout. Clusters that are new have no endpoints yet.
    pub fn apply(&mut self, layout: &Layout, own: &Own<'_>) {
        // 1. Clusters.
        let mut before = mem::take(&mut self.clusters);
        let (system, quota) = (layout.system.as_ref(), own.idle_quota);
        for config in &layout.clusters {
            let member = match before.remove(&config.name) {
                Some(same) if Arc::ptr_eq(&same.config, config) && same.cluster.is_by(system) => {
                    same
                }
                earlier => {
                    let earlier = earlier.as_ref().map(|one| (&*one.config, &*one.cluster));
                    let cluster = Cluster::new(config, own.index, system, quota, earlier);
                    Member { config: Arc::clone(config), cluster: Rc::new(cluster) }
                }
            };
            self.clusters.insert(Arc::clone(&config.name), member);
        }
        // Exchanges that use a removed cluster keep no connection for another one.
        before.values().for_each(|member| member.cluster.retire());
        drop(before);
        for (cluster, endpoints) in &layout.endpoints {
            self.set_endpoints(cluster, endpoints);
        }

        // 2. Listeners.
        let ticket_keys = Arc::clone(&layout.ticket_keys);
        let clusters = self.clusters.iter();
        let clusters =
            clusters.map(|(name, member)| (Arc::clone(name), Rc::clone(&member.cluster))).collect();
        let parts = Parts {
            clusters: &clusters,
            ticket_keys: &ticket_keys,
            store: own.store,
            worker: own.index,
        };
        let mut before = mem::take(&mut self.listeners);
        for shared in &layout.listeners {
            let name = &shared.config.name;
            let known = before.get(name).is_some_and(|known| known.id() == shared.id);
            let known = known.then(|| before.remove(name)).flatten();
            let listener = known.unwrap_or_else(|| {
                self.groups = self.groups.wrapping_add(1).max(1);
                Rc::new(Listener::new(shared, own.index, self.groups))
            });
            let service = match listener.service() {
                Some(service) if service.is_of(&shared.config, &clusters) => service,
                before => Rc::new(Service::new(shared, &parts, before.as_deref())),
            };
            listener.set(shared, own.recorder, service);
            self.listeners.insert(Arc::clone(name), listener);
        }

        // 3. What is left of the configuration before.
        for listener in before.into_values() {
            listener.remove(own.timers.now());
            self.removed.insert(listener.id(), listener);
        }
        let names = layout.listeners.iter();
        self.names = names.map(|shared| (shared.id, Arc::clone(&shared.config.name))).collect();

        // 4. What is newer than the configuration.
        let has_other_keys = self.ticket_keys.as_ref().is_some_and(|keys| **keys != *ticket_keys);
        self.ticket_keys = Some(Arc::clone(&ticket_keys));
        if has_other_keys {
            self.set_ticket_keys(ticket_keys);
        }
        for (origin, identity) in &layout.certificates {
            self.set_identity(origin, identity);
        }
    }

    /// The listener with this name.
    pub fn listener(&self, name: &str) -> Option<&Rc<Listener>> {
        self.listeners.get(name)
    }

    /// The listener with this id ([`Shared::id`]); also one that was removed, as long as it is
    /// used: another worker may have accepted a connection before that.
    pub fn listener_by_id(&self, id: u64) -> Option<&Rc<Listener>> {
        let present = self.names.get(&id).and_then(|name| self.listeners.get(name));
        present.or_else(|| self.removed.get(&id))
    }

    /// How many listeners that were removed connections still use.
    pub fn removed(&self) -> usize {
        self.removed.len()
    }

    /// Replaces the endpoints of a cluster. Does nothing if this generation has no such cluster.
    pub fn set_endpoints(&self, cluster: &str, endpoints: &Endpoints) {
        if let Some(member) = self.clusters.get(cluster) {
            member.cluster.set_endpoints(endpoints);
        }
    }

    /// Replaces an identity, in every rule that has it.
    pub fn set_identity(&self, origin: &Origin, identity: &Identity) {
        let Some(keys) = &self.ticket_keys else { return };
        for service in self.services() {
            service.servers.set_identity(origin, identity, keys);
        }
    }

    /// Replaces the keys of session tickets.
    pub fn set_ticket_keys(&mut self, keys: Arc<TicketKeys>) {
        self.services().for_each(|service| service.servers.set_ticket_keys(&keys));
        self.ticket_keys = Some(keys);
    }

    fn services(&self) -> impl Iterator<Item = Rc<Service>> {
        self.listeners.values().filter_map(|listener| listener.service())
    }

    /// Reports failed attempts to the control plane. Called once a tick; never blocks.
    pub fn report_failures(&self, reports: &SyncSender<Report>) {
        self.each_cluster(|cluster| cluster.report_failures(reports));
    }

    /// Closes all idle connections to endpoints.
    pub fn close_idle(&self) {
        self.each_cluster(Cluster::close_idle);
    }

    /// Closes idle connections to endpoints that are too old or dead, and forgets removed listeners
    /// whose last connection has ended. Called once a tick.
    pub fn sweep(&mut self, timers: &Timers) {
        self.each_cluster(|cluster| cluster.sweep(timers));
        let mut ended = HashSet::new();
        self.removed.retain(|_, listener| {
            if listener.end_service(timers.now()) {
                ended.insert(listener.group());
            }
            Rc::strong_count(listener) > 1 || listener.has_service()
        });
        timers.end_idle(&ended);
    }

    fn each_cluster(&self, f: impl Fn(&Cluster)) {
        self.clusters.values().for_each(|member| f(&member.cluster));
    }
}
