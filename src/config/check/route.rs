//! Checks `[[listener.host]]` and its routes: each host occurs once, each route is reachable and
//! has one action.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::keys::{self, HandshakeWord, TunnelWord};
use super::super::report::{Span, quoted};
use super::super::types::{Field, List};
use super::super::{
    Action, Handshakes, Host, HostName, PathMatch, RelayTimeouts, Route, Tunnel, TunnelKind,
    address,
};
use super::Check;
use super::earlier::{Earlier, Kinds, Matcher};
use super::fields::Message;
use super::redirect::passed_over;
use super::tls::ends;
use crate::proto::http::has_dot_segment;

impl Check<'_> {
    /// `timeouts` are the listener's, for tunnels.
    pub(super) fn hosts(
        &self,
        listener: &keys::Listener,
        timeouts: RelayTimeouts,
    ) -> Option<Vec<Host>> {
        let typed = &listener.host;
        let has_https = listener.tls.iter().any(|rule| ends(rule) && !rule.cluster.is_given());
        let mut nameless = None;
        let mut taken = HashMap::new();
        let mut hosts = Vec::with_capacity(typed.len());
        for host in typed.iter() {
            if !host.names.is_given()
                && let Some(first) = nameless.replace(host.place.span)
            {
                let what = "two hosts of this listener have no names";
                let note = format!(
                    "the host in line {} matches every other name; add `names` to this one",
                    self.report.line(first)
                );
                self.report.error(host.place.span, what, note);
            }
            let names = self.host_names(&host.names, &mut taken);
            let names_or_none = names.as_deref().unwrap_or(&[]);
            let routes = self.routes(&host.route, names_or_none, has_https, timeouts);
            hosts.push(names.zip(routes).map(|(names, routes)| Host { names, routes }));
        }
        hosts.into_iter().collect()
    }

    fn host_names(
        &self,
        field: &Field<List<String>>,
        taken: &mut HashMap<HostName, Span>,
    ) -> Option<Vec<HostName>> {
        let Some(texts) = field.as_ref() else {
            return (!field.is_given()).then(Vec::new);
        };
        let mut names = Vec::with_capacity(texts.len());
        for text in texts.iter() {
            match address::host_name(&text.value) {
                Err(fault) => self.report.fault(text.span, fault),
                Ok(name) => {
                    if let Some(first) = taken.insert(name.clone(), text.span) {
                        let what =
                            format!("this listener has the host {} already", quoted(&text.value));
                        let line = self.report.line(first);
                        let note = format!("line {line} has it; remove one of them");
                        self.report.error(text.span, what, note);
                    }
                    names.push(name);
                }
            }
        }
        names.sort_unstable();
        Some(names)
    }

    /// `has_https` is true if requests come by both schemes.
    fn routes(
        &self,
        typed: &[keys::Route],
        hosts: &[HostName],
        has_https: bool,
        timeouts: RelayTimeouts,
    ) -> Option<Vec<Arc<Route>>> {
        let mut earlier = Earlier::default();
        let mut routes = Vec::with_capacity(typed.len());
        for route in typed {
            let path = self.path_match(route);
            let kinds = self.kinds(route, path.as_ref(), hosts, has_https);
            let forwards = forwards(route);
            let span = route.place.span;
            let matcher = path.map(|path| Matcher { path, kinds, forwards, span });
            let action = self.action(route, matcher.as_ref(), &earlier, hosts, timeouts);
            let response_fields = self.field_rules(&route.response_fields, Message::Response);
            routes.push(matcher.as_ref().zip(action).map(|(matcher, action)| {
                let (name, path) = (matcher.name(), matcher.path.clone());
                Arc::new(Route { name, path, action, response_fields })
            }));
            if let Some(matcher) = matcher
                && let Some(first) = earlier.add(matcher.clone())
            {
                self.shadowed(&matcher, first);
            }
        }
        routes.into_iter().collect()
    }

    fn path_match(&self, route: &keys::Route) -> Option<PathMatch> {
        match (&route.path.key, &route.prefix.key) {
            (None, None) if route.place.complete => {
                let note = "path = \"/stream\" matches this path only, prefix = \"/\" matches \
                            every path";
                self.report.error(route.place.span, "a route needs `path` or `prefix`", note);
            }
            (Some(_), Some(prefix)) => {
                let note = "remove one of them: `path` is the whole path, `prefix` its start";
                self.report.error(*prefix, "a route has `path` or `prefix`, not both", note);
            }
            _ => {}
        }
        if let Some(path) = &route.path.value {
            self.url_path("path", path);
        }
        if let Some(prefix) = &route.prefix.value {
            self.url_path("prefix", prefix);
            // Such a prefix does not match paths with dot segments, so one that has a dot segment
            // itself matches nothing.
            if forwards(route) && has_dot_segment(&format!("{}x", prefix.value)) {
                let what = format!("no request can match the prefix {}", quoted(&prefix.value));
                let note = "a path with the segment `.` or `..` is not forwarded, because the \
                            cluster could resolve it to a path outside of the prefix: remove \
                            these segments";
                self.report.error(prefix.span, what, note);
            }
        }
        match (&route.path.value, &route.prefix.value) {
            (Some(path), _) => Some(PathMatch::Exact(path.value.clone())),
            (None, Some(prefix)) => Some(PathMatch::Prefix(prefix.value.clone())),
            (None, None) => None,
        }
    }

    fn shadowed(&self, matcher: &Matcher, first: &Matcher) {
        let what = format!("the route {} can never match", quoted(&matcher.name()));
        let line = self.report.line(first.span);
        let same = first.path == matcher.path && first.kinds == matcher.kinds;
        let mend = if same { "remove one of them" } else { "move this one up" };
        let note = format!(
            "the route {} in line {line} matches the same requests, and the first match wins: \
             {mend}",
            quoted(&first.name())
        );
        self.report.error(matcher.span, what, note);
    }

    fn action(
        &self,
        route: &keys::Route,
        matcher: Option<&Matcher>,
        earlier: &Earlier,
        hosts: &[HostName],
        timeouts: RelayTimeouts,
    ) -> Option<Action> {
        // Every action is checked, so that all errors are reported, even if the route has several.
        let given = self.given_actions(route);
        let to_cluster = if route.upgrade.is_given() {
            let kinds = matcher.map(|matcher| &matcher.kinds);
            self.tunnel(route, kinds, timeouts).map(Action::Tunnel)
        } else {
            let matched = matcher.map(|matcher| &matcher.path);
            self.proxy(route, matched, timeouts).map(Action::Proxy)
        };
        let redirect = route.redirect.value.as_ref().and_then(|typed| {
            let matched = matcher.map(|matcher| &matcher.path);
            self.redirect(typed, matched, earlier, hosts)
        });
        let respond = route.respond.as_ref().and_then(|typed| self.respond(typed));
        let files = self.files(route);
        if given != 1 {
            return None;
        }
        let to_cluster = to_cluster.or(files.map(Action::Files));
        to_cluster.or(redirect.map(Action::Redirect)).or(respond.map(Action::Respond))
    }

    /// The number of actions that the route names. Any number but one is reported.
    fn given_actions(&self, route: &keys::Route) -> usize {
        let mut given: Vec<(Span, &str)> = [
            (route.cluster.key, "cluster"),
            (route.root.key, "root"),
            (route.redirect.key, "redirect"),
            (route.respond.key, "respond"),
        ]
        .into_iter()
        .filter_map(|(span, key)| span.map(|span| (span, key)))
        .collect();
        given.sort_unstable();
        if given.is_empty() && route.place.complete {
            let note = "add one of cluster = \"NAME\", root = \"/var/www/…\", redirect = { … } or \
                        respond = { … }";
            self.report.error(route.place.span, "a route needs an action", note);
        }
        for (span, key) in given.iter().skip(1) {
            let what = format!("a route has one action, and this one has `{}` already", given[0].1);
            let note = format!("remove `{}` or `{key}`", given[0].1);
            self.report.error(*span, what, note);
        }
        given.len()
    }

    fn tunnel(
        &self,
        route: &keys::Route,
        kinds: Option<&Kinds>,
        timeouts: RelayTimeouts,
    ) -> Option<Tunnel> {
        let cluster = self.cluster_name(&route.cluster);
        let idle = route.idle_timeout.as_ref().map_or(timeouts.idle, |time| time.0);
        let kind = match kinds? {
            Kinds::Handshakes(handshakes) => TunnelKind::Terminate(*handshakes),
            Kinds::Upgrades | Kinds::All | Kinds::AllBut(_) => {
                TunnelKind::Forward { early_data: route.early_data.get() }
            }
        };
        Some(Tunnel { cluster: cluster?, kind, timeouts: RelayTimeouts { idle, ..timeouts } })
    }

    /// The kinds of requests that the route matches, apart from `path`.
    fn kinds(
        &self,
        route: &keys::Route,
        path: Option<&PathMatch>,
        hosts: &[HostName],
        has_https: bool,
    ) -> Kinds {
        if route.tunnel.get() == TunnelWord::Terminate {
            Kinds::Handshakes(self.handshakes(&route.accept))
        } else if route.upgrade.is_given() {
            Kinds::Upgrades
        } else {
            let redirect = route.redirect.as_ref();
            let passed = redirect.and_then(|typed| passed_over(typed, path, hosts, has_https));
            passed.map_or(Kinds::All, Kinds::AllBut)
        }
    }

    fn handshakes(&self, accept: &Field<List<HandshakeWord>>) -> Handshakes {
        let words = accept.get();
        let mut handshakes = Handshakes { obfs: false, websocket: false };
        for word in words.iter() {
            let (kind, name) = match word.value {
                HandshakeWord::Obfs => (&mut handshakes.obfs, "obfs"),
                HandshakeWord::Websocket => (&mut handshakes.websocket, "websocket"),
            };
            if std::mem::replace(kind, true) {
                let what = format!("`{name}` is in the list already");
                self.report.error(word.span, what, "list each kind once");
            }
        }
        handshakes
    }
}

/// Returns true if the route forwards requests to a cluster as they are.
fn forwards(route: &keys::Route) -> bool {
    route.cluster.is_given() && route.tunnel.get() == TunnelWord::Forward
}

/// Returns true when a route with this matcher matches the path.
pub(super) fn matches(matcher: &PathMatch, path: &str) -> bool {
    match matcher {
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Prefix(prefix) => path.starts_with(prefix),
    }
}
