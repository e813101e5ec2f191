//! `[[listener.host]]` and its routes: every host once, every route reachable, with one action.

use std::collections::HashMap;

use super::super::file;
use super::super::report::{Span, quoted};
use super::super::table::{At, Field};
use super::super::{Action, Host, HostName, PathMatch, RelayTimeouts, Route, Tunnel, address};
use super::Check;

impl Check<'_> {
    /// `timeouts` are those of the listener, for tunnels.
    pub(super) fn hosts(&self, typed: &[file::Host], timeouts: RelayTimeouts) -> Option<Vec<Host>> {
        let mut nameless = None;
        let mut taken = HashMap::new();
        let mut hosts = Vec::with_capacity(typed.len());
        for host in typed {
            if !host.names.is_given()
                && let Some(first) = nameless.replace(host.span)
            {
                let what = "two hosts of this listener have no names";
                let note = format!(
                    "the one in line {} takes every other host already; give this one `names`",
                    self.report.line(first)
                );
                self.report.error(host.span, what, note);
            }
            let names = self.host_names(&host.names, &mut taken);
            if host.routes.is_empty() && host.complete {
                let note = "add [[listener.host.route]] with a path or prefix and what to do";
                self.report.error(host.span, "a host needs a route", note);
            }
            let routes = self.routes(&host.routes, names.as_deref().unwrap_or(&[]), timeouts);
            hosts.push(names.zip(routes).map(|(names, routes)| Host { names, routes }));
        }
        hosts.into_iter().collect()
    }

    fn host_names(
        &self,
        field: &Field<Vec<At<String>>>,
        taken: &mut HashMap<HostName, Span>,
    ) -> Option<Vec<HostName>> {
        let Some(At { value: texts, span }) = &field.value else {
            return (!field.is_given()).then(Vec::new);
        };
        if texts.is_empty() {
            let note = "no request can match it; for every other host, leave `names` out";
            self.report.error(*span, "`names` is an empty list", note);
        }
        let mut names = Vec::with_capacity(texts.len());
        for text in texts {
            match address::host_name(&text.value) {
                Err(fault) => self.report.fault(text.span, fault),
                Ok(name) => {
                    if let Some(first) = taken.insert(name.clone(), text.span) {
                        let what = format!("this listener has {} already", quoted(&text.value));
                        let line = self.report.line(first);
                        let note = format!("it stands in line {line}; only one host can have it");
                        self.report.error(text.span, what, note);
                    }
                    names.push(name);
                }
            }
        }
        Some(names)
    }

    fn routes(
        &self,
        typed: &[file::Route],
        hosts: &[HostName],
        timeouts: RelayTimeouts,
    ) -> Option<Vec<Route>> {
        let mut earlier: Vec<Matcher> = Vec::with_capacity(typed.len());
        let mut routes = Vec::with_capacity(typed.len());
        for route in typed {
            let path = self.path_match(route);
            let matcher = path.map(|path| Matcher {
                path,
                upgrade_only: route.upgrade.is_given(),
                span: route.span,
            });
            if let Some(matcher) = &matcher
                && let Some(first) = earlier.iter().find(|first| first.takes_all_of(matcher))
            {
                self.shadowed(matcher, first);
            }
            let action = self.action(route, matcher.as_ref(), &earlier, hosts, timeouts);
            routes.push(matcher.as_ref().zip(action).map(|(matcher, action)| Route {
                name: matcher.name(),
                path: matcher.path.clone(),
                action,
            }));
            earlier.extend(matcher);
        }
        routes.into_iter().collect()
    }

    fn path_match(&self, route: &file::Route) -> Option<PathMatch> {
        match (&route.path.key, &route.prefix.key) {
            (None, None) if route.complete => {
                let note = "path = \"/stream\" takes this path only, prefix = \"/\" all below it";
                self.report.error(route.span, "a route needs `path` or `prefix`", note);
            }
            (Some(_), Some(prefix)) => {
                let note = "take one of them out: `path` is the whole path, `prefix` its start";
                self.report.error(*prefix, "a route has `path` or `prefix`, not both", note);
            }
            _ => {}
        }
        if let Some(path) = &route.path.value {
            self.url_path("path", path);
        }
        if let Some(prefix) = &route.prefix.value {
            self.url_path("prefix", prefix);
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
        let same = first.path == matcher.path && first.upgrade_only == matcher.upgrade_only;
        let mend = if same { "take one of them out" } else { "put this one first" };
        let note = format!(
            "the route {} in line {line} takes all of it, and the first match wins: {mend}",
            quoted(&first.name())
        );
        self.report.error(matcher.span, what, note);
    }

    fn action(
        &self,
        route: &file::Route,
        matcher: Option<&Matcher>,
        earlier: &[Matcher],
        hosts: &[HostName],
        timeouts: RelayTimeouts,
    ) -> Option<Action> {
        let given = self.given_actions(route);
        if !route.cluster.is_given() {
            self.not_without_cluster(route);
        }
        let tunnel = self.tunnel(route, timeouts);
        let redirect = route.redirect.value.as_ref().and_then(|typed| {
            let matched = matcher.map(|matcher| &matcher.path);
            self.redirect(typed, matched, earlier, hosts)
        });
        let respond = route.respond.as_ref().and_then(|typed| self.respond(typed));
        if given != 1 {
            return None;
        }
        let tunnel = tunnel.map(Action::Tunnel);
        tunnel.or(redirect.map(Action::Redirect)).or(respond.map(Action::Respond))
    }

    /// How many actions the route names; other than one is reported.
    fn given_actions(&self, route: &file::Route) -> usize {
        let mut given: Vec<(Span, &str)> = [
            (route.cluster.key, "cluster"),
            (route.redirect.key, "redirect"),
            (route.respond.key, "respond"),
        ]
        .into_iter()
        .filter_map(|(span, key)| span.map(|span| (span, key)))
        .collect();
        given.sort_unstable();
        if given.is_empty() && route.complete {
            let note = "add one of redirect = { … }, respond = { … }, or upgrade = \"websocket\" \
                        with cluster";
            self.report.error(route.span, "a route needs something to do", note);
        }
        for (span, key) in given.iter().skip(1) {
            let what = format!("a route does one thing, and this one has `{}` already", given[0].1);
            self.report.error(*span, what, format!("take it or `{key}` out"));
        }
        given.len()
    }

    /// Reports keys of a tunnel in a route that hands nothing to a cluster.
    fn not_without_cluster(&self, route: &file::Route) {
        let note = "name the [cluster.NAME] that answers upgrade requests, or take it out";
        self.misplaced("upgrade", &route.upgrade, "needs `cluster`", note);
        let because = "belongs to a route with `upgrade` and `cluster`";
        let note = "take it out; a redirect or an answer of ringgate's own has no tunnel";
        self.misplaced("tunnel", &route.tunnel, because, note);
        self.misplaced("early_data", &route.early_data, because, note);
        self.misplaced("idle_timeout", &route.idle_timeout, because, note);
    }

    fn tunnel(&self, route: &file::Route, timeouts: RelayTimeouts) -> Option<Tunnel> {
        let cluster = self.cluster_id(&route.cluster);
        if let Some(span) = route.cluster.key
            && !route.upgrade.is_given()
        {
            let note = "add upgrade = \"websocket\": in this version only upgrade requests are \
                        handed to a cluster";
            self.report.error(span, "`cluster` needs `upgrade`", note);
        }
        let idle = route.idle_timeout.clone().or(timeouts.idle);
        Some(Tunnel {
            cluster: cluster?,
            early_data: route.early_data.clone().or(false),
            timeouts: RelayTimeouts { idle, ..timeouts },
        })
    }
}

/// Which requests a route takes, to find out who comes too late.
pub(super) struct Matcher {
    pub(super) path: PathMatch,
    upgrade_only: bool,
    span: Span,
}

impl Matcher {
    /// The name of the route in records.
    fn name(&self) -> String {
        match &self.path {
            PathMatch::Exact(path) => path.clone(),
            PathMatch::Prefix(prefix) => format!("{prefix}*"),
        }
    }

    /// Whether nothing is left for `later`.
    fn takes_all_of(&self, later: &Matcher) -> bool {
        let all_kinds = !self.upgrade_only || later.upgrade_only;
        all_kinds
            && match (&self.path, &later.path) {
                (PathMatch::Prefix(prefix), PathMatch::Exact(path) | PathMatch::Prefix(path)) => {
                    path.starts_with(prefix)
                }
                (PathMatch::Exact(path), PathMatch::Exact(later)) => path == later,
                (PathMatch::Exact(_), PathMatch::Prefix(_)) => false,
            }
    }

    /// Whether a plain request for this path ends here.
    pub(super) fn takes_path(&self, path: &str) -> bool {
        !self.upgrade_only && matches(&self.path, path)
    }

    /// Whether plain requests for all paths that start like this end here.
    pub(super) fn takes_prefix(&self, start: &str) -> bool {
        let PathMatch::Prefix(prefix) = &self.path else { return false };
        !self.upgrade_only && start.starts_with(prefix)
    }
}

/// Whether a route with this matcher takes the path.
pub(super) fn matches(matcher: &PathMatch, path: &str) -> bool {
    match matcher {
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Prefix(prefix) => path.starts_with(prefix),
    }
}
