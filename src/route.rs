//! Chooses the route of a request and the target of a redirect: pure functions of the
//! configuration.

use crate::config::{
    Action, Host, HostName, Http, PathMatch, PathRewrite, Redirect, Route, Scheme, Tls, TlsAction,
    TlsEnd, TlsRule, TunnelKind,
};
use crate::proto::client_hello::ClientHello;
use crate::proto::http::{Request, has_dot_segment};
use crate::proto::websocket::Handshake;

/// Finds the route for a request that came by `scheme`: of the best matching host, the first route
/// whose path matches and whose action accepts the request. A route for upgrades accepts only
/// upgrades. A redirect that names the scheme does not accept requests that it would redirect to
/// themselves; the check of the configuration knows which these are (`check/redirect.rs`).
///
/// Paths are compared as sent. A prefix route that forwards to a cluster does not match a path with
/// dot segments: a server that resolves them could serve a path outside of the prefix.
pub fn find<'c>(http: &'c Http, request: &Request<'_>, scheme: Scheme) -> Option<&'c Route> {
    let host = find_host(&http.hosts, request.host)?;
    host.routes.iter().find(|route| {
        let path = match &route.path {
            PathMatch::Exact(path) => request.path == path,
            PathMatch::Prefix(prefix) => request.path.starts_with(prefix.as_str()),
        };
        path && accepts(route, request, scheme) && !may_leave(route, request.path)
    })
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
        let keeps_query = !self.strip_query || request.query.is_none();
        let is_own_host =
            self.host.as_ref().is_none_or(|host| host.eq_ignore_ascii_case(request.host));
        let keeps_all = keeps_path && keeps_query && port == own_port && is_own_host;
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
            let rest = path.strip_prefix(prefix.as_str()).filter(|_| is_cut).unwrap_or_default();
            has_dot_segment(path) || has_dot_segment(rest)
        }
        Action::Redirect(_) | Action::Respond(_) | Action::Files(_) => false,
    }
}

/// Finds the rule for a TLS connection: the one with the best matching name among the rules that
/// accept the ClientHello. A rule that passes bytes on with `alpn` accepts it if it offers one of
/// these protocols. A rule that terminates simple-obfs accepts only a ClientHello of simple-obfs
/// (`is_obfs`).
pub fn find_tls<'c>(tls: &'c Tls, hello: &ClientHello<'_>, is_obfs: bool) -> Option<&'c TlsRule> {
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
    let Some(TlsRule { action: TlsAction::End(end), .. }) = best(rules, |rule| &rule.names, host)
    else {
        return false;
    };
    end.client_ca.is_some() && own.is_none_or(|own| own.client_ca != end.client_ca)
}

fn find_host<'c>(hosts: &'c [Host], name: &str) -> Option<&'c Host> {
    best(hosts.iter(), |host| &host.names, name)
}

/// Returns the item with the best matching name. Exact names rank before suffixes, suffixes before
/// prefixes, and prefixes before items without names. Among suffixes and among prefixes the longest
/// one wins; among equal ones the first.
fn best<'c, T>(
    of: impl Iterator<Item = &'c T>,
    names: impl Fn(&'c T) -> &'c Vec<HostName>,
    name: &str,
) -> Option<&'c T> {
    let mut best: Option<(usize, &T)> = None;
    for one in of {
        let names = names(one);
        let rank = if names.is_empty() {
            Some(0)
        } else {
            names.iter().filter_map(|pattern| rank(pattern, name)).max()
        };
        if let Some(rank) = rank
            && best.is_none_or(|(best, _)| rank > best)
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
                let rest = request.path.strip_prefix(old.as_str()).unwrap_or_default();
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
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, ErrorPages, FieldRules, Protocol, Proxy, Rewrite, Tunnel};
    use crate::proto::http::parse_request;

    fn host(names: &[HostName]) -> Host {
        Host { names: names.to_vec(), routes: Vec::new() }
    }

    #[test]
    fn the_most_exact_host_wins() {
        let exact = |name: &str| HostName::Exact(name.into());
        let suffix = |name: &str| HostName::Suffix(name.into());
        let prefix = |name: &str| HostName::Prefix(name.into());
        let hosts = [
            host(&[]),
            host(&[prefix("example."), prefix("www.")]),
            host(&[suffix(".example.com")]),
            host(&[suffix(".b.example.com")]),
            host(&[exact("www.example.com"), exact("example.com")]),
        ];
        let index = |name: &str| {
            let found = find_host(&hosts, name).unwrap();
            hosts.iter().position(|host| std::ptr::eq(host, found)).unwrap()
        };
        assert_eq!(index("WWW.example.com"), 4);
        assert_eq!(index("example.com"), 4);
        assert_eq!(index("a.example.com"), 2);
        assert_eq!(index("a.b.Example.com"), 3);
        assert_eq!(index("example.org"), 1);
        assert_eq!(index("other.test"), 0);
        assert_eq!(index(".example.com"), 0, "the star stands for something");
    }

    fn location(redirect: Redirect, path: PathMatch, line: &str, host: &str) -> String {
        location_of(Scheme::Http, redirect, path, line, host)
    }

    fn location_of(
        scheme: Scheme,
        redirect: Redirect,
        path: PathMatch,
        line: &str,
        host: &str,
    ) -> String {
        let head = format!("GET {line} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let request = parse_request(head.as_bytes(), 100).unwrap();
        let route = Route {
            name: String::new(),
            path,
            action: Action::Redirect(redirect),
            response_fields: FieldRules::default(),
        };
        let Action::Redirect(redirect) = &route.action else { unreachable!() };
        let mut out = Vec::new();
        Location { redirect, route: &route, request: &request, scheme }.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn redirect() -> Redirect {
        Redirect {
            status: 301,
            scheme: None,
            host: None,
            port: None,
            path: PathRewrite::Keep,
            strip_query: false,
        }
    }

    #[test]
    fn a_redirect_changes_what_it_names_and_keeps_the_rest() {
        let all = || PathMatch::Prefix("/".into());
        let https = || Redirect { scheme: Some(Scheme::Https), ..redirect() };
        assert_eq!(location(https(), all(), "/a?b=c", "x:80"), "https://x/a?b=c");
        assert_eq!(location(https(), all(), "/a", "x:8080"), "https://x/a");
        let port = Redirect { port: Some(8443), ..https() };
        assert_eq!(location(port, all(), "/", "[::1]"), "https://[::1]:8443/");
        let host = Redirect { host: Some("www.x".into()), ..redirect() };
        assert_eq!(location(host, all(), "/a", "x:8080"), "http://www.x/a");
        let path = Redirect { path: PathRewrite::Path("/new".into()), ..redirect() };
        assert_eq!(location(path, all(), "/a?b", "x:8080"), "http://x:8080/new?b");
        let prefix = Redirect { path: PathRewrite::Prefix("/new/".into()), ..redirect() };
        let old = PathMatch::Prefix("/old/".into());
        assert_eq!(location(prefix, old, "/old/a", "x"), "http://x/new/a");
        let strip = Redirect { strip_query: true, ..https() };
        assert_eq!(location(strip, all(), "/a?b", "x"), "https://x/a");
    }

    #[test]
    fn a_redirect_keeps_the_scheme_of_a_request_over_tls() {
        let target = |redirect, line, host| {
            location_of(Scheme::Https, redirect, PathMatch::Prefix("/".into()), line, host)
        };
        let host = || Redirect { host: Some("www.x".into()), ..redirect() };
        assert_eq!(target(host(), "/a?b", "x:8443"), "https://www.x/a?b");
        let path = || Redirect { path: PathRewrite::Path("/new".into()), ..redirect() };
        assert_eq!(target(path(), "/", "x:8443"), "https://x:8443/new");
        assert_eq!(target(path(), "/", "x:443"), "https://x/new");
        assert_eq!(target(path(), "/", "x:80"), "https://x:80/new");
        let http = Redirect { scheme: Some(Scheme::Http), ..redirect() };
        assert_eq!(target(http, "/a", "x:8443"), "http://x/a");
    }

    #[test]
    fn a_redirect_to_the_scheme_that_the_request_has_is_passed_over() {
        let route = |action| Route {
            name: "/".into(),
            path: PathMatch::Prefix("/".into()),
            action,
            response_fields: FieldRules::default(),
        };
        let https = || Redirect { scheme: Some(Scheme::Https), ..redirect() };
        let www =
            Redirect { scheme: Some(Scheme::Https), host: Some("www.x".into()), ..redirect() };
        let finds = |redirect, scheme| {
            let routes = vec![route(Action::Redirect(redirect))];
            let http = Http {
                head_timeout: std::time::Duration::ZERO,
                keepalive_timeout: std::time::Duration::ZERO,
                max_head: 1024,
                max_headers: 10,
                error_pages: ErrorPages::default(),
                trusted_proxies: Vec::new(),
                response_fields: FieldRules::default(),
                hosts: vec![Host { names: Vec::new(), routes }],
                tls: None,
            };
            let request = parse_request(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 100).unwrap();
            find(&http, &request, scheme).is_some()
        };
        assert!(finds(https(), Scheme::Http) && !finds(https(), Scheme::Https));
        assert!(finds(www, Scheme::Https));
        let own = |host: &str, port| Redirect {
            scheme: Some(Scheme::Https),
            host: Some(host.into()),
            port,
            ..redirect()
        };
        assert!(
            !finds(own("x", None), Scheme::Https) && !finds(own("x", Some(443)), Scheme::Https)
        );
        assert!(finds(own("x", Some(8443)), Scheme::Https) && finds(own("x", None), Scheme::Http));
        assert!(finds(redirect(), Scheme::Https), "the operator has named no scheme");
    }

    /// A redirect and what follows it, on a listener that serves http and https.
    fn behind(redirect: &str, names: &[&str], next: &str) -> String {
        let names = if names.is_empty() { String::new() } else { format!("names = {names:?}") };
        format!(
            r#"
            [acme]
            storage = "/nowhere"
            terms_agreed = true
            [[listener]]
            name = "edge"
            listen = "127.0.0.1:443"
            protocol = "http"
            [[listener.tls]]
            names = ["a.test"]
            acme = true
            [[listener.host]]
            {names}
            [[listener.host.route]]
            prefix = "/"
            redirect = {{ {redirect} }}
            {next}
            "#
        )
    }

    /// Whether some request for a host with these names passes over the redirect.
    fn is_passed_over(redirect: &str, names: &[&str]) -> bool {
        let file = behind(redirect, names, "");
        let config = config::parse("test", &file, Path::new("")).expect("valid");
        let Protocol::Http(http) = &config.listeners[0].protocol else { unreachable!() };
        let hosts = if names.is_empty() { &["a.test", "b.test"] } else { names };
        let is_passed = |scheme, target: &str, host: &str, port: &str| {
            let head = format!("GET {target} HTTP/1.1\r\nHost: {host}{port}\r\n\r\n");
            find(http, &parse_request(head.as_bytes(), 100).unwrap(), scheme).is_none()
        };
        let mut targets = ["/", "/x", "/?q", "/x?q"].into_iter();
        targets.any(|target| {
            hosts.iter().any(|host| {
                ["", ":80", ":443", ":8443"].iter().any(|port| {
                    is_passed(Scheme::Http, target, host, port)
                        || is_passed(Scheme::Https, target, host, port)
                })
            })
        })
    }

    #[test]
    fn a_route_is_shadowed_when_no_request_passes_over_the_redirect_before_it() {
        let next = "[[listener.host.route]]\nprefix = \"/\"\nrespond = { body = \"x\" }";
        let others = [
            "",
            ", port = 8443",
            ", host = \"a.test\"",
            ", host = \"a.test\", port = 8443",
            ", path = \"/x\"",
            ", prefix = \"/x\"",
            ", prefix = \"/\"",
            ", strip_query = true",
        ];
        let mut shadowed = 0;
        for (others, names) in
            others.iter().flat_map(|one| [(one, &[][..]), (one, &["a.test"]), (one, &["b.test"])])
        {
            for scheme in ["http", "https"] {
                let redirect = format!("scheme = \"{scheme}\"{others}");
                let said = config::parse("test", &behind(&redirect, names, next), Path::new(""));
                let is_shadowed =
                    said.is_err_and(|errors| errors.to_string().contains("can never match"));
                let case = format!("{redirect} for {names:?}");
                assert_eq!(is_shadowed, !is_passed_over(&redirect, names), "{case}");
                shadowed += u32::from(is_shadowed);
            }
        }
        assert!(shadowed > 0 && shadowed < 24);
    }

    #[test]
    fn a_prefix_that_is_passed_on_matches_nothing_that_could_leave_it() {
        let matches = |path: PathMatch, rewrite: PathRewrite, target: &str| {
            let proxy = Proxy {
                cluster: "c".into(),
                rewrite: Rewrite { path: rewrite, host: None },
                request_fields: FieldRules::default(),
                response_timeout: std::time::Duration::ZERO,
                idle_timeout: std::time::Duration::ZERO,
                max_body: None,
                upgrades: Tunnel {
                    cluster: "c".into(),
                    kind: TunnelKind::Forward { early_data: false },
                    timeouts: config::RelayTimeouts {
                        idle: std::time::Duration::ZERO,
                        half_closed: std::time::Duration::ZERO,
                    },
                },
            };
            let route = Route {
                name: String::new(),
                path,
                action: Action::Proxy(proxy),
                response_fields: FieldRules::default(),
            };
            !may_leave(&route, target)
        };
        let prefix = |text: &str| PathMatch::Prefix(text.into());
        let to_root = || PathRewrite::Prefix("/".into());
        assert!(matches(prefix("/api/"), PathRewrite::Keep, "/api/a..b/.c"));
        assert!(!matches(prefix("/api/"), PathRewrite::Keep, "/api/%2e%2E/x"));
        assert!(matches(PathMatch::Exact("/a/../b".into()), PathRewrite::Keep, "/a/../b"));
        assert!(matches(prefix("/api"), PathRewrite::Keep, "/api../x"));
        assert!(!matches(prefix("/api"), to_root(), "/api../x"));
        assert!(!matches(prefix("/api"), to_root(), "/api%2e/x"));
        assert!(
            matches(prefix("/api"), to_root(), "/api/x")
                && matches(prefix("/api"), to_root(), "/api")
        );
    }
}
