//! One configuration on one worker: its listeners and clusters as objects.
//!
//! The control plane makes a [`Layout`], which all workers share. Each worker builds its own
//! [`Generation`] from it. A connection holds the listener, the cluster and the endpoint that it
//! uses, so a generation can be replaced as a whole: what connections of the old one still use
//! ends with the last of them. Acceptors look their listener up by name for each connection. A UDP
//! listener ([`Udp`](super::Udp)) keeps its objects, so it must be started again.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use super::admission::Admission;
use super::moment::Moment;
use super::sites::Sites;
use super::tls::{Origin, Servers};
use crate::cluster::{Cluster, IdleQuota, Report};
use crate::config::{self, AccessLog, Config};
use crate::files::{Store, Threads};
use crate::observe::access_log::{Lane, Record, Recorder, Sink};
use crate::observe::counters::Counters;
use crate::observe::outcome::Outcome;
use crate::proto::tls::{Authorities, Identity, TicketKeys};
use crate::sys::{Address, Keepalive};
use crate::timers::Timers;

/// One configuration, and what its listeners share over all workers.
pub struct Layout {
    /// The clusters. Their names are unique.
    pub clusters: Vec<Arc<config::Cluster>>,
    /// The listeners. Their names are unique.
    pub listeners: Vec<Shared>,
    /// The keys of session tickets at the start.
    pub ticket_keys: Arc<TicketKeys>,
    /// The threads that read files. `None` if no route serves files.
    pub files: Option<Threads>,
    /// The authorities of this machine. `None` if no cluster needs them.
    pub system: Option<Authorities>,
}

/// One listener, with what all workers share of it.
pub struct Shared {
    /// Its configuration.
    pub config: Arc<config::Listener>,
    /// Its limit of connections.
    pub admission: Arc<Admission>,
    /// Where its records go; `None` if it writes none.
    pub sink: Option<Arc<Sink>>,
}

impl Layout {
    /// Makes the layout of a configuration. `system` are the authorities of this machine, if
    /// [`Config::needs_system_authorities`], and `files` the threads for [`Config::files`]. `open`
    /// opens an access log.
    ///
    /// # Errors
    /// The first error of `open`.
    pub fn new<E>(
        config: &Config,
        system: Option<Authorities>,
        files: Option<Threads>,
        mut open: impl FnMut(&AccessLog) -> Result<Arc<Sink>, E>,
    ) -> Result<Layout, E> {
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for listener in &config.listeners {
            listeners.push(Shared {
                config: Arc::clone(listener),
                admission: Arc::new(Admission::new(listener.max_connections)),
                sink: listener.access_log.as_deref().map(&mut open).transpose()?,
            });
        }
        let ticket_keys = match &config.tls.ticket_keys {
            Some(file) => Arc::clone(&file.keys),
            None => Arc::new(TicketKeys::random()),
        };
        Ok(Layout { clusters: config.clusters.clone(), listeners, ticket_keys, files, system })
    }
}

/// The listeners and clusters of one worker, by their names.
pub struct Generation {
    listeners: HashMap<Arc<str>, Rc<Listener>>,
    clusters: HashMap<Arc<str>, Rc<Cluster>>,
    ticket_keys: Arc<TicketKeys>,
}

impl Generation {
    /// Builds a layout on the worker with this index. Its clusters have no endpoints yet.
    /// `store` is what sites of files share, and `idle_quota` what clusters share.
    pub fn new(
        layout: &Layout,
        index: usize,
        recorder: &Recorder,
        store: Option<&Rc<Store>>,
        idle_quota: &Rc<IdleQuota>,
    ) -> Generation {
        let cluster = |config: &Arc<config::Cluster>| {
            let cluster = Cluster::new(config, index, layout.system.as_ref(), idle_quota);
            (Arc::clone(&config.name), Rc::new(cluster))
        };
        let clusters: HashMap<_, _> = layout.clusters.iter().map(cluster).collect();
        let listener = |shared: &Shared| {
            let listener = Listener::new(shared, &clusters, recorder, &layout.ticket_keys, store);
            (Arc::clone(&shared.config.name), Rc::new(listener))
        };
        let listeners = layout.listeners.iter().map(listener).collect();
        Generation { listeners, clusters, ticket_keys: Arc::clone(&layout.ticket_keys) }
    }

    /// The listener with this name.
    pub fn listener(&self, name: &str) -> Option<&Rc<Listener>> {
        self.listeners.get(name)
    }

    /// Replaces the endpoints of a cluster. Does nothing if this generation has no such cluster.
    pub fn set_endpoints(&self, cluster: &str, addresses: &[Address]) {
        if let Some(cluster) = self.clusters.get(cluster) {
            cluster.set_endpoints(addresses);
        }
    }

    /// Replaces an identity, in every rule that has it.
    pub fn set_identity(&self, origin: &Origin, identity: &Identity) {
        for listener in self.listeners.values() {
            listener.servers.set_identity(origin, identity, &self.ticket_keys);
        }
    }

    /// Replaces the keys of session tickets.
    pub fn set_ticket_keys(&mut self, keys: Arc<TicketKeys>) {
        self.ticket_keys = keys;
        let servers = self.listeners.values().map(|listener| &listener.servers);
        servers.for_each(|servers| servers.set_ticket_keys(&self.ticket_keys));
    }

    /// Reports failed attempts to the control plane. Called once a tick; never blocks.
    pub fn report_failures(&self, reports: &SyncSender<Report>) {
        self.clusters.values().for_each(|cluster| cluster.report_failures(reports));
    }

    /// Closes all idle connections to endpoints.
    pub fn close_idle(&self) {
        self.clusters.values().for_each(|cluster| cluster.close_idle());
    }

    /// Closes idle connections to endpoints that are too old or dead.
    pub fn sweep(&self, timers: &Timers) {
        self.clusters.values().for_each(|cluster| cluster.sweep(timers));
    }
}

/// One listener of one worker. Its connections share it.
pub struct Listener {
    /// Its configuration.
    pub config: Arc<config::Listener>,
    /// Its limit of connections, which all workers share.
    pub admission: Arc<Admission>,
    /// The clusters that it leads to, by their names.
    clusters: HashMap<Arc<str>, Rc<Cluster>>,
    lane: Option<Rc<Lane>>,
    /// Whether records say what requests tell about their clients.
    pub(super) names_visitors: bool,
    /// The rules that end TLS.
    pub(super) servers: Servers,
    /// The sites of routes that serve files.
    pub(super) sites: Sites,
    /// What this worker counts.
    pub counters: Counters,
}

impl Listener {
    fn new(
        shared: &Shared,
        clusters: &HashMap<Arc<str>, Rc<Cluster>>,
        recorder: &Recorder,
        ticket_keys: &Arc<TicketKeys>,
        store: Option<&Rc<Store>>,
    ) -> Listener {
        let used = shared.config.clusters();
        let cluster = |name| clusters.get_key_value::<Arc<str>>(name);
        Listener {
            config: Arc::clone(&shared.config),
            admission: Arc::clone(&shared.admission),
            clusters: used
                .filter_map(cluster)
                .map(|(name, cluster)| (Arc::clone(name), Rc::clone(cluster)))
                .collect(),
            lane: shared.sink.as_ref().map(|sink| recorder.lane(sink)),
            names_visitors: shared.sink.is_some()
                && shared.config.access_log.as_ref().is_some_and(|log| log.format.names_visitors()),
            servers: Servers::new(&shared.config.protocol, ticket_keys),
            sites: Sites::new(&shared.config, store),
            counters: Counters::default(),
        }
    }

    /// The cluster with this name.
    ///
    /// # Panics
    /// The listener does not lead to such a cluster. The check of the configuration makes sure that
    /// every name in it has its cluster.
    pub fn cluster(&self, name: &str) -> &Rc<Cluster> {
        self.clusters.get(name).expect("the configuration has a cluster for each name")
    }

    /// TCP keepalive for the streams to upstreams.
    pub fn tcp_keepalive(&self) -> Option<Keepalive> {
        self.config.socket.keepalive
    }

    /// Counts an outcome and writes its access record. `describe` sets what was asked for:
    /// protocol, request, route and cluster.
    pub(super) fn record<'a>(
        &'a self,
        client: &'a Address,
        start: Moment,
        outcome: &'a Outcome,
        describe: impl FnOnce(&mut Record<'a>),
    ) {
        self.counters.add(outcome);
        let (Some(lane), Some(log)) = (&self.lane, &self.config.access_log) else { return };
        let mut record = Record {
            start: start.wall,
            listener: &self.config.name,
            protocol: "tcp",
            client,
            method: None,
            host: None,
            path: None,
            status: outcome.status,
            route: None,
            cluster: None,
            endpoint: outcome.endpoint.as_deref(),
            attempts: outcome.attempts,
            failed_endpoints: &outcome.failed_endpoints,
            reason: outcome.reason,
            duration: start.instant.elapsed(),
            connect: outcome.connect,
            bytes_up: outcome.bytes_up,
            bytes_down: outcome.bytes_down,
            relay: outcome.relay,
            end: outcome.end,
            upstream_status: outcome.upstream_status,
            first_byte: outcome.first_byte,
            is_reused: outcome.is_reused,
            retries: outcome.retries,
            copied: outcome.copied,
            body_bytes: outcome.bytes_down.saturating_sub(outcome.head_down),
            referer: None,
            user_agent: None,
            tls: None,
        };
        describe(&mut record);
        lane.record(&log.format, &record);
    }
}
