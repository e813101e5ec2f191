//! Two configurations share what is equal in both: parts of a new one become the objects of the one
//! before. So a reload finds what has changed by comparing pointers.
//!
//! The routes of a listener that has changed are not shared. There may be many, and those that stay
//! would be scattered over the memory of all configurations that they came from, which could then
//! not be given back.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Config, Listener, Protocol, Tls, TlsAction, TlsRule};

impl Config {
    /// Makes each part of this configuration that is equal to one of `before` the same object.
    pub fn share_with(&mut self, before: &Config) {
        let clusters: HashMap<&str, _> =
            before.clusters.iter().map(|cluster| (&*cluster.name, cluster)).collect();
        for cluster in &mut self.clusters {
            share(cluster, clusters.get(&*cluster.name).copied());
        }
        let listeners: HashMap<&str, _> =
            before.listeners.iter().map(|listener| (&*listener.name, listener)).collect();
        for listener in &mut self.listeners {
            let Some(&before) = listeners.get(&*listener.name) else { continue };
            if let Some(listener) = Arc::get_mut(listener) {
                listener.share_with(before);
            }
            share(listener, Some(before));
        }
    }
}

impl Listener {
    fn share_with(&mut self, before: &Listener) {
        match (&mut self.protocol, &before.protocol) {
            (Protocol::Tls(tls), Protocol::Tls(before)) => tls.share_with(before),
            (Protocol::Http(http), Protocol::Http(before)) => {
                if let (Some(tls), Some(before)) = (&mut http.tls, &before.tls) {
                    tls.share_with(before);
                }
            }
            _ => {}
        }
    }
}

impl Tls {
    fn share_with(&mut self, before: &Tls) {
        let (mut rules, mut ends) = (HashMap::new(), HashMap::new());
        for rule in &before.rules {
            // Several rules may have the same names.
            rules.entry(&*rule.names).or_insert_with(Vec::new).push(rule);
            if let TlsAction::End(end) = &rule.action {
                ends.entry(&*end.scope).or_insert(end);
            }
        }
        for rule in &mut self.rules {
            // A rule with another name may still end TLS in the same way.
            if let Some(TlsRule { action: TlsAction::End(end), .. }) = Arc::get_mut(rule) {
                share(end, ends.get(&*end.scope).copied());
            }
            let same_names = rules.get(&*rule.names).into_iter().flatten();
            share(rule, same_names.copied().find(|before| ***before == **rule));
        }
    }
}

fn share<T: PartialEq>(own: &mut Arc<T>, before: Option<&Arc<T>>) {
    if let Some(before) = before.filter(|before| ***before == **own) {
        *own = Arc::clone(before);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    const HEAD: &str = "[cluster.a]\nendpoints = [\"127.0.0.1:1\"]\n\
                        [cluster.b]\nendpoints = [\"127.0.0.1:2\"]\n\
                        [[listener]]\nname = \"l4\"\nlisten = \"127.0.0.1:3\"\n\
                        protocol = \"tcp\"\ncluster = \"a\"\n\
                        [[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:4\"\n\
                        protocol = \"http\"\n[[listener.host]]\n";

    fn parse(rest: &str) -> Config {
        let text = format!("{HEAD}{rest}");
        config::parse("test", &text, Path::new("")).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn a_cluster_is_found_by_its_name_in_any_order_of_the_file() {
        let last = "[cluster.0]\nendpoints = [\"127.0.0.1:9\"]\n";
        let config = parse(&(route("/", "") + last));
        for name in ["0", "a", "b"] {
            assert_eq!(config.cluster(name).map(|one| &*one.name), Some(name));
        }
        assert!(config.cluster("").is_none() && config.cluster("ab").is_none());
    }

    fn route(path: &str, body: &str) -> String {
        format!("[[listener.host.route]]\npath = \"{path}\"\nrespond = {{ body = \"{body}\" }}\n")
    }

    #[test]
    fn what_is_equal_is_the_same_object_and_what_differs_is_another() {
        let before = parse(&(route("/one", "1") + &route("/two", "2")));
        let mut same = parse(&(route("/one", "1") + &route("/two", "2")));
        same.share_with(&before);
        assert!(same.listeners.iter().zip(&before.listeners).all(|(a, b)| Arc::ptr_eq(a, b)));
        assert!(same.clusters.iter().zip(&before.clusters).all(|(a, b)| Arc::ptr_eq(a, b)));

        let mut other = parse(&(route("/new", "0") + &route("/two", "2") + &route("/one", "x")));
        let expected = parse(&(route("/new", "0") + &route("/two", "2") + &route("/one", "x")));
        other.share_with(&before);
        assert_eq!(other, expected, "the meaning stays");
        assert!(Arc::ptr_eq(&other.listeners[0], &before.listeners[0]));
        assert!(!Arc::ptr_eq(&other.listeners[1], &before.listeners[1]));
    }
}
