//! What a listener does with connections and requests by one configuration: its protocol, routes,
//! TLS servers and clusters, as the objects of one worker.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::generation::Shared;
use super::tls::Servers;
use crate::cluster::Cluster;
use crate::config::{self, Action, Http, Protocol, Route, Scheme, Tls, Udp};
use crate::files::{Rules, Site, Store};
use crate::observe::hosts::HostCounters;
use crate::proto::http::Request;
use crate::proto::tls::TicketKeys;
use crate::route;

/// The service of one listener on one worker.
pub struct Service {
    /// The configuration of the listener.
    pub config: Arc<config::Listener>,
    /// The clusters that it leads to, by their names.
    clusters: HashMap<Arc<str>, Rc<Cluster>>,
    /// The rules that end TLS.
    pub(super) servers: Servers,
    /// The routes of an http listener, as `config` has them: by host. Each is made when a request
    /// takes it for the first time.
    routes: Vec<Vec<OnceCell<Rc<LiveRoute>>>>,
    /// What this worker counts of each host.
    hosts: Vec<Arc<HostCounters>>,
    /// What sites of files share.
    store: Rc<Store>,
}

/// A route, and what it leads to on this worker. An exchange that waits keeps its route alone.
pub(super) struct LiveRoute {
    pub(super) route: Arc<Route>,
    /// The cluster of tunnels, and of requests that are passed on.
    cluster: Option<Rc<Cluster>>,
    /// The site of a route that serves files.
    site: Option<Rc<Site>>,
}

/// What a service is made of.
pub(super) struct Parts<'a> {
    /// All clusters of the configuration.
    pub(super) clusters: &'a HashMap<Arc<str>, Rc<Cluster>>,
    pub(super) ticket_keys: &'a Arc<TicketKeys>,
    /// What sites of files share.
    pub(super) store: &'a Rc<Store>,
    /// The index of the worker.
    pub(super) worker: usize,
}

impl Service {
    /// Makes the service of a listener. Parts of the one `before` that have not changed are used
    /// again, with what they have learned.
    pub(super) fn new(shared: &Shared, parts: &Parts<'_>, before: Option<&Service>) -> Service {
        let config = &shared.config;
        let used = config.clusters();
        let cluster = |name| parts.clusters.get_key_value::<Arc<str>>(name);
        // The sites of files keep what they have opened.
        let routes = before.into_iter().flat_map(|before| before.routes.iter().flatten());
        let sites: Vec<&Rc<LiveRoute>> =
            routes.filter_map(OnceCell::get).filter(|live| live.site.is_some()).collect();
        let live = |route: &Arc<Route>| {
            let mut sites = sites.iter().filter(|_| matches!(route.action, Action::Files(_)));
            let same = sites.find(|live| *live.route == **route);
            same.map_or_else(OnceCell::new, |&live| OnceCell::from(Rc::clone(live)))
        };
        let hosts = match &config.protocol {
            Protocol::Http(http) => &http.hosts[..],
            Protocol::Tcp(_) | Protocol::Tls(_) | Protocol::Udp(_) => &[],
        };
        Service {
            config: Arc::clone(config),
            clusters: used
                .filter_map(cluster)
                .map(|(name, cluster)| (Arc::clone(name), Rc::clone(cluster)))
                .collect(),
            servers: Servers::new(config, parts.ticket_keys, before.map(|before| &before.servers)),
            routes: hosts.iter().map(|host| host.routes.iter().map(live).collect()).collect(),
            hosts: shared.hosts.iter().map(|cells| Arc::clone(&cells[parts.worker])).collect(),
            store: Rc::clone(parts.store),
        }
    }

    /// Returns true if a service of this configuration with these clusters would be the same.
    pub(super) fn is_of(
        &self,
        config: &Arc<config::Listener>,
        clusters: &HashMap<Arc<str>, Rc<Cluster>>,
    ) -> bool {
        let is_same = |(name, own): (&Arc<str>, &Rc<Cluster>)| {
            clusters.get(name).is_some_and(|cluster| Rc::ptr_eq(cluster, own))
        };
        Arc::ptr_eq(&self.config, config)
            && self.servers.are_of(config)
            && self.clusters.iter().all(is_same)
    }

    /// The cluster with this name.
    ///
    /// # Panics
    /// The listener does not lead to such a cluster. The check of the configuration makes sure that
    /// every name in it has its cluster.
    pub fn cluster(&self, name: &str) -> &Rc<Cluster> {
        self.clusters.get(name).expect("the configuration has a cluster for each name")
    }

    /// The site of an http listener. `None` for other protocols.
    pub(super) fn http(&self) -> Option<&Http> {
        match &self.config.protocol {
            Protocol::Http(http) => Some(http),
            Protocol::Tcp(_) | Protocol::Tls(_) | Protocol::Udp(_) => None,
        }
    }

    /// The rules for connections that begin with a TLS handshake.
    pub(super) fn tls(&self) -> Option<&Tls> {
        match &self.config.protocol {
            Protocol::Tls(tls) => Some(tls),
            Protocol::Http(http) => http.tls.as_ref(),
            Protocol::Tcp(_) | Protocol::Udp(_) => None,
        }
    }

    /// The settings of a udp listener. `None` for other protocols.
    pub(super) fn udp(&self) -> Option<&Udp> {
        match &self.config.protocol {
            Protocol::Udp(udp) => Some(udp),
            Protocol::Tcp(_) | Protocol::Tls(_) | Protocol::Http(_) => None,
        }
    }

    /// The route of a request that came by `scheme`. Counts the request.
    pub(super) fn route(&self, request: &Request<'_>, scheme: Scheme) -> Option<&Rc<LiveRoute>> {
        let (host, live) = self.find(request, scheme)?;
        self.hosts[host].add();
        Some(live)
    }

    /// The same for a request that is counted already.
    pub(super) fn route_again(
        &self,
        request: &Request<'_>,
        scheme: Scheme,
    ) -> Option<&Rc<LiveRoute>> {
        self.find(request, scheme).map(|(_, live)| live)
    }

    fn find(&self, request: &Request<'_>, scheme: Scheme) -> Option<(usize, &Rc<LiveRoute>)> {
        let http = self.http()?;
        let at = route::find(http, request, scheme)?;
        let make = || {
            let route = &http.hosts[at.host].routes[at.route];
            let cluster = route.cluster().map(|name| self.cluster(name));
            Rc::new(LiveRoute::new(route, cluster, &self.store))
        };
        Some((at.host, self.routes[at.host][at.route].get_or_init(make)))
    }
}

impl LiveRoute {
    fn new(route: &Arc<Route>, cluster: Option<&Rc<Cluster>>, store: &Rc<Store>) -> LiveRoute {
        let site = match &route.action {
            Action::Files(files) => Some(Rc::new(Site::new(store, &Rules::from(files)))),
            _ => None,
        };
        LiveRoute { route: Arc::clone(route), cluster: cluster.cloned(), site }
    }

    /// The cluster that it leads to.
    ///
    /// # Panics
    /// It leads to none. The check of the configuration makes sure that the cluster of a route
    /// exists.
    pub(super) fn cluster(&self) -> &Rc<Cluster> {
        self.cluster.as_ref().expect("the route has a cluster, and the configuration has it")
    }

    /// Its site.
    ///
    /// # Panics
    /// It serves no files.
    pub(super) fn site(&self) -> &Rc<Site> {
        self.site.as_ref().expect("a route that serves files has its site")
    }
}
