//! Which route takes a request, and where redirects lead.

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
    let index = |name: &str| find_host(&hosts, name).unwrap();
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
    let www = Redirect { scheme: Some(Scheme::Https), host: Some("www.x".into()), ..redirect() };
    let finds = |redirect, scheme| {
        let routes = vec![Arc::new(route(Action::Redirect(redirect)))];
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
    assert!(!finds(own("x", None), Scheme::Https) && !finds(own("x", Some(443)), Scheme::Https));
    // This client may be at port 8443 already.
    assert!(!finds(own("x", Some(8443)), Scheme::Https) && finds(own("x", None), Scheme::Http));
    assert!(finds(own("y", Some(8443)), Scheme::Https));
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
        matches(prefix("/api"), to_root(), "/api/x") && matches(prefix("/api"), to_root(), "/api")
    );
}
