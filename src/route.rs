//! Chooses the route of a request and the target of a redirect: pure functions of the
//! configuration.

use std::sync::Arc;

use crate::config::{
    Action, Host, HostName, Http, PathMatch, PathRewrite, Redirect, Route, Scheme, Tls, TlsAction,
    TlsEnd, TlsRule, TunnelKind,
};
use crate::proto::client_hello::ClientHello;
use crate::proto::http::{Request, has_dot_segment, is_same_path, match_prefix};
use crate::proto::websocket::Handshake;

/// Where a route is in the configuration of its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The index of its host.
    pub host: usize,
    /// Its index among the routes of the host.
    pub route: usize,
}

/// Finds the route for a request that came by `scheme`: of the best matching host, the first route
/// whose path matches and whose action accepts the request. A route for upgrades accepts only
/// upgrades. A redirect that names the scheme does not accept requests that it would redirect to
/// themselves; the check of the configuration knows which these are (`check/redirect.rs`).
///
/// All spellings of a path are the same ([`is_same_path`]). A prefix route that forwards to a
/// cluster does not match a path with dot segments: a server that resolves them could serve a path
/// outside of the prefix.
pub fn find(http: &Http, request: &Request<'_>, scheme: Scheme) -> Option<Position> {
    let host = find_host(&http.hosts, request.host)?;
    let route = http.hosts[host].routes.iter().position(|route| {
        let path = match &route.path {
            PathMatch::Exact(path) => is_same_path(request.path, path),
            PathMatch::Prefix(prefix) => match_prefix(request.path, prefix).is_some(),
        };
        path && accepts(route, request, scheme) && !may_leave(route, request.path)
    })?;
    Some(Position { host, route })
}

/// Returns true if the action of a route accepts this kind of request. A tunnel that terminates
/// here accepts only the handshakes of its clients, so for all other requests its path looks like
/// any other path of the site.
fn accepts(route: &Route, request: &Request<'_>, scheme: Scheme) -> bool {
    let tunnel = match &route.action {
        Action::Tunnel(tunnel) => tunnel,
        Action::Redirect(redirect) => {
            return !redirect.is_to_itself(&route.path, request, scheme);
        }
        Action::Respond(_) | Action::Proxy(_) | Action::Files(_) => return true,
    };
    match (tunnel.kind, request.handshake) {
        (TunnelKind::Forward { .. }, _) => request.is_upgrade,
        (TunnelKind::Terminate(accept), Some(Handshake::Obfs { .. })) => accept.obfs,
        (TunnelKind::Terminate(accept), Some(Handshake::WebSocket { .. })) => accept.websocket,
        (TunnelKind::Terminate(_), None) => false,
    }
}

impl Route {
    /// Returns true if the route redirects to HTTPS.
    pub fn leads_to_https(&self) -> bool {
        matches!(&self.action, Action::Redirect(redirect) if redirect.scheme == Some(Scheme::Https))
    }
}

impl Redirect {
    /// Returns true if the target of a redirect that names the scheme is the URI of the request
    /// itself, so that the client would come back without end. A redirect without a scheme is one
    /// that its operator wants in any case.
    fn is_to_itself(&self, matched: &PathMatch, request: &Request<'_>, scheme: Scheme) -> bool {
        let default = if scheme == Scheme::Https { 443 } else { 80 };
        let own_port = request.port.map_or(Some(default), |port| port.parse().ok());
        let port = match (self.port, &self.host) {
            (Some(port), _) => Some(port),
            (None, Some(_)) => Some(default),
            (None, None) => own_port,
        };
        let keeps_path = match (&self.path, matched) {
            (PathRewrite::Keep, _) => true,
            (PathRewrite::Path(path), _) => path == request.path,
            (PathRewrite::Prefix(new), PathMatch::Prefix(old) | PathMatch::Exact(old)) => {
                new == old
            }
        };
        // A Host without a port may come from a client that used another port than 443: those of
        // Shadowsocks send none. It would only be sent where it is already.
        let may_be_own_port = self.port.is_some() && request.port.is_none();
        let is_own_port = port == own_port || scheme == Scheme::Https && may_be_own_port;
        let keeps_query = !self.strip_query || request.query.is_none();
        let is_own_host =
            self.host.as_ref().is_none_or(|host| host.eq_ignore_ascii_case(request.host));
        let keeps_all = keeps_path && keeps_query && is_own_port && is_own_host;
        self.scheme == Some(scheme) && keeps_all
    }
}

/// Returns true if the route forwards the path to a server that may resolve it to another one. An
/// exact path is excluded, because the operator wrote it, dots included.
fn may_leave(route: &Route, path: &str) -> bool {
    let PathMatch::Prefix(prefix) = &route.path else { return false };
    match &route.action {
        Action::Tunnel(tunnel) => {
            matches!(tunnel.kind, TunnelKind::Forward { .. }) && has_dot_segment(path)
        }
        // A prefix may end within a segment, and what is behind it is then a dot segment by itself:
        // if the prefix `/api` is rewritten to `/`, then `/api../x` to `/../x`.
        Action::Proxy(proxy) => {
            let is_cut = matches!(proxy.rewrite.path, PathRewrite::Prefix(_));
            let rest = match_prefix(path, prefix).filter(|_| is_cut).unwrap_or_default();
            has_dot_segment(path) || has_dot_segment(rest)
        }
        Action::Redirect(_) | Action::Respond(_) | Action::Files(_) => false,
    }
}

/// Finds the rule for a TLS connection: the one with the best matching name among the rules that
/// accept the ClientHello. A rule that passes bytes on with `alpn` accepts it if it offers one of
/// these protocols. A rule that terminates simple-obfs accepts only a ClientHello of simple-obfs
/// (`is_obfs`).
pub fn find_tls<'c>(
    tls: &'c Tls,
    hello: &ClientHello<'_>,
    is_obfs: bool,
) -> Option<&'c Arc<TlsRule>> {
    let rules = tls.rules.iter().filter(|rule| match &rule.action {
        TlsAction::PassOn { alpn, .. } => {
            alpn.is_empty() || alpn.iter().any(|name| hello.offers(name.as_bytes()))
        }
        TlsAction::Obfs { .. } => is_obfs,
        TlsAction::End(_) => true,
    });
    best(rules, |rule| &rule.names, hello.server_name.unwrap_or_default())
}

/// Returns true if a request for this host must not be served on a connection of the rule `own`,
/// which is `None` without TLS: the rule of the host demands a client certificate that the
/// connection was not asked for. Otherwise a client could make a handshake under a name without
/// that demand, and then ask for the host (RFC 9110 section 15.5.20).
pub fn is_misdirected(tls: &Tls, own: Option<&TlsEnd>, host: &str) -> bool {
    let rules = tls.rules.iter().filter(|rule| matches!(rule.action, TlsAction::End(_)));
    let rule = best(rules, |rule| &rule.names, host);
    let Some(TlsAction::End(end)) = rule.map(|rule| &rule.action) else { return false };
    end.client_ca.is_some() && own.is_none_or(|own| own.client_ca != end.client_ca)
}

fn find_host(hosts: &[Host], name: &str) -> Option<usize> {
    best(0..hosts.len(), |&host| &hosts[host].names, name)
}

/// Returns the item with the best matching name. Exact names rank before suffixes, suffixes before
/// prefixes, and prefixes before items without names. Among suffixes and among prefixes the longest
/// one wins; among equal ones the first.
fn best<'c, T>(
    of: impl Iterator<Item = T>,
    names: impl Fn(&T) -> &'c Vec<HostName>,
    name: &str,
) -> Option<T> {
    let mut best: Option<(usize, T)> = None;
    for one in of {
        let names = names(&one);
        let rank = if names.is_empty() {
            Some(0)
        } else {
            names.iter().filter_map(|pattern| rank(pattern, name)).max()
        };
        if let Some(rank) = rank
            && best.as_ref().is_none_or(|(best, _)| rank > *best)
        {
            best = Some((rank, one));
        }
    }
    best.map(|(_, one)| one)
}

/// Returns how well a pattern matches, at least 1; `None` if it does not match. Host names are
/// shorter than 2^16, so the ranks of the kinds of pattern do not overlap.
fn rank(pattern: &HostName, name: &str) -> Option<usize> {
    let (name, length) = (name.as_bytes(), name.len());
    match pattern {
        HostName::Exact(exact) => name.eq_ignore_ascii_case(exact.as_bytes()).then_some(1 << 20),
        HostName::Suffix(suffix) => {
            let start = length.checked_sub(suffix.len()).filter(|&start| start > 0)?;
            name[start..]
                .eq_ignore_ascii_case(suffix.as_bytes())
                .then_some((1 << 16) + suffix.len())
        }
        HostName::Prefix(prefix) => {
            let rest = length.checked_sub(prefix.len()).filter(|&rest| rest > 0)?;
            name[..length - rest]
                .eq_ignore_ascii_case(prefix.as_bytes())
                .then_some(1 + prefix.len())
        }
    }
}

/// The target of a redirect.
pub struct Location<'a> {
    /// What the route changes.
    pub redirect: &'a Redirect,
    /// The route, whose prefix may be replaced.
    pub route: &'a Route,
    /// The request.
    pub request: &'a Request<'a>,
    /// The scheme of the request: `https` if it came over TLS.
    pub scheme: Scheme,
}

impl Location<'_> {
    /// Appends the URI.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Location { redirect, route, request, scheme: own_scheme } = *self;
        let scheme = redirect.scheme.unwrap_or(own_scheme);
        out.extend_from_slice(match scheme {
            Scheme::Http => b"http://",
            Scheme::Https => b"https://",
        });
        match &redirect.host {
            Some(host) => out.extend_from_slice(host.as_bytes()),
            None => out.extend_from_slice(request.host.as_bytes()),
        }
        // The port of the request is kept only together with its host and scheme.
        let own_port = request.port.filter(|_| redirect.host.is_none() && scheme == own_scheme);
        let default_port = if scheme == Scheme::Http { 80 } else { 443 };
        // The default port of the scheme is not written.
        let is_default = |port: &str| port.parse() == Ok(default_port);
        match (redirect.port, own_port) {
            (Some(port), _) if port == default_port => {}
            (Some(port), _) => {
                out.push(b':');
                out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
            }
            (None, Some(port)) if !is_default(port) => {
                out.push(b':');
                out.extend_from_slice(port.as_bytes());
            }
            (None, _) => {}
        }
        match (&redirect.path, &route.path) {
            (PathRewrite::Keep, _) => out.extend_from_slice(request.path.as_bytes()),
            (PathRewrite::Path(path), _) => out.extend_from_slice(path.as_bytes()),
            (PathRewrite::Prefix(new), PathMatch::Prefix(old) | PathMatch::Exact(old)) => {
                out.extend_from_slice(new.as_bytes());
                let rest = match_prefix(request.path, old).unwrap_or_default();
                out.extend_from_slice(rest.as_bytes());
            }
        }
        if let Some(query) = request.query.filter(|_| !redirect.strip_query) {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
