//! Copies a configuration out of the memory that it was read into.
//!
//! Reading takes several times the memory of what it makes, and the objects that stay lie scattered
//! among those that are freed. The allocator can give back whole pages only, so that each reload
//! would leave more of them behind, which are nearly empty. The copies lie side by side.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use super::{Action, Cluster, Config, Http, Listener, Protocol, Route};

/// A body of this many bytes and more stays where it is: it fills pages of its own.
const LARGE: usize = 16 << 10;

/// What was copied. Should be dropped on a thread that ends soon: the allocator keeps some of the
/// blocks for the thread that frees them, and with them the pages that they lie in.
#[derive(Debug)]
pub struct Originals {
    _clusters: Vec<Arc<Cluster>>,
    _listeners: Vec<Arc<Listener>>,
}

impl Config {
    /// Copies the listeners and clusters that no other configuration shares, and returns what was
    /// copied. It takes some milliseconds for ten thousand routes. Should be called on a thread
    /// other than the one that has read the configuration: threads allocate in different places.
    pub fn settle(&mut self) -> Originals {
        let mut copies = Copies::default();
        let (mut clusters, mut listeners) = (Vec::new(), Vec::new());
        for cluster in &mut self.clusters {
            if Arc::get_mut(cluster).is_some() {
                let copy = Arc::new(copies.cluster(cluster));
                clusters.push(mem::replace(cluster, copy));
            }
        }
        for listener in &mut self.listeners {
            if Arc::get_mut(listener).is_some() {
                let copy = Arc::new(copies.listener(listener));
                listeners.push(mem::replace(listener, copy));
            }
        }
        Originals { _clusters: clusters, _listeners: listeners }
    }
}

/// What several parts share, in the copy as well.
#[derive(Default)]
struct Copies {
    names: HashSet<Arc<str>>,
    /// By the address of the body that was copied.
    bodies: HashMap<*const u8, Arc<[u8]>>,
}

impl Copies {
    fn cluster(&mut self, cluster: &Cluster) -> Cluster {
        let mut cluster = cluster.clone();
        self.name(&mut cluster.name);
        cluster
    }

    fn listener(&mut self, listener: &Listener) -> Listener {
        let mut listener = listener.clone();
        self.name(&mut listener.name);
        match &mut listener.protocol {
            Protocol::Tcp(tcp) => self.name(&mut tcp.cluster),
            Protocol::Udp(udp) => self.name(&mut udp.cluster),
            Protocol::Http(http) => self.http(http),
            // The objects of its rules are those by which a reload finds equal ones.
            Protocol::Tls(_) => {}
        }
        listener
    }

    fn http(&mut self, http: &mut Http) {
        for (_, page) in &mut http.error_pages.0 {
            self.body(&mut page.body);
        }
        for route in http.hosts.iter_mut().flat_map(|host| &mut host.routes) {
            *route = Arc::new(self.route(route));
        }
    }

    fn route(&mut self, route: &Route) -> Route {
        let mut route = route.clone();
        match &mut route.action {
            Action::Tunnel(tunnel) => self.name(&mut tunnel.cluster),
            Action::Proxy(proxy) => {
                self.name(&mut proxy.cluster);
                self.name(&mut proxy.upgrades.cluster);
            }
            Action::Respond(respond) => self.body(&mut respond.body),
            Action::Redirect(_) | Action::Files(_) => {}
        }
        route
    }

    fn name(&mut self, name: &mut Arc<str>) {
        if let Some(known) = self.names.get(&**name) {
            *name = Arc::clone(known);
        } else {
            *name = Arc::from(&**name);
            self.names.insert(Arc::clone(name));
        }
    }

    fn body(&mut self, body: &mut Arc<[u8]>) {
        if body.len() < LARGE {
            let copy = self.bodies.entry(body.as_ptr()).or_insert_with(|| Arc::from(&**body));
            *body = Arc::clone(copy);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    const TEXT: &str = r#"
        [cluster.a]
        endpoints = ["127.0.0.1:1"]
        [[listener]]
        name = "l4"
        listen = "127.0.0.1:3"
        protocol = "tcp"
        cluster = "a"
        [[listener]]
        name = "web"
        listen = "127.0.0.1:4"
        protocol = "http"
        [[listener.host]]
        [[listener.host.route]]
        path = "/a"
        cluster = "a"
        [[listener.host.route]]
        path = "/b"
        respond = { body = "b" }
    "#;

    fn parse() -> Config {
        config::parse("test", TEXT, Path::new("")).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn routes(config: &Config) -> Vec<&Arc<Route>> {
        let sites = config.listeners.iter().filter_map(|listener| match &listener.protocol {
            Protocol::Http(http) => Some(http),
            _ => None,
        });
        sites.flat_map(|site| &site.hosts).flat_map(|host| &host.routes).collect()
    }

    #[test]
    fn copies_mean_the_same_and_lie_elsewhere() {
        let (mut config, read) = (parse(), parse());
        // Whose objects these are is seen while they exist.
        let names: Vec<Arc<str>> =
            config.listeners.iter().map(|listener| Arc::clone(&listener.name)).collect();
        let before: Vec<Arc<Route>> = routes(&config).into_iter().cloned().collect();
        let _originals = config.settle();
        assert_eq!(config, read);
        for (listener, name) in config.listeners.iter().zip(&names) {
            assert!(!Arc::ptr_eq(&listener.name, name));
        }
        for (now, before) in routes(&config).into_iter().zip(&before) {
            assert!(!Arc::ptr_eq(now, before));
            match (&now.action, &before.action) {
                (Action::Proxy(now), Action::Proxy(before)) => {
                    assert!(!Arc::ptr_eq(&now.cluster, &before.cluster));
                    assert!(Arc::ptr_eq(&now.cluster, &config.clusters[0].name));
                }
                (Action::Respond(now), Action::Respond(before)) => {
                    assert!(!Arc::ptr_eq(&now.body, &before.body));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_another_configuration_shares_stays_where_it_is() {
        let before = parse();
        let mut config = parse();
        config.share_with(&before);
        let _originals = config.settle();
        let is_same = |(one, other)| Arc::ptr_eq(one, other);
        assert!(config.listeners.iter().zip(&before.listeners).all(is_same));
        assert!(Arc::ptr_eq(&config.clusters[0], &before.clusters[0]));
    }
}
