//! What an http listener serves: hosts, routes and what a route does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Coding, ErrorPages, FieldRules, HostName, Network, RelayTimeouts, Scheme, Tls};

/// `protocol = "http"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The time limit for a request head, counted from its first byte. A new connection must send a
    /// head within this time, too.
    pub head_timeout: Duration,
    /// How long a connection may be silent between requests, and how long a client's socket may
    /// take no part of its responses.
    pub keepalive_timeout: Duration,
    /// The maximum size of a request head in bytes, 1 KiB to 64 KiB.
    pub max_head: usize,
    /// The maximum number of fields in a request head, 1 to 256.
    pub max_headers: usize,
    /// The bodies of responses with an error status that are made here.
    pub error_pages: ErrorPages,
    /// The peers whose X-Forwarded fields are believed.
    pub trusted_proxies: Vec<Network>,
    /// Fields that are changed in responses without a route: `response_fields`, and Server from
    /// `server_header`.
    pub response_fields: FieldRules,
    /// The hosts; never empty.
    pub hosts: Vec<Host>,
    /// The rules for connections that begin with a TLS handshake. `None` if such bytes are treated
    /// as invalid HTTP.
    pub tls: Option<Tls>,
}

/// `[[listener.host]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Host names in lower case, sorted. An empty list matches every other host.
    pub names: Vec<HostName>,
    /// The routes; never empty. The first match wins.
    pub routes: Vec<Arc<Route>>,
}

/// `[[listener.host.route]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The name of the route in records: `/stream` for a path, `/img/*` for a prefix.
    pub name: String,
    /// The paths that the route matches.
    pub path: PathMatch,
    /// What the route does with matching requests.
    pub action: Action,
    /// Fields that are changed in the responses: those of the route, then those of the listener. Of
    /// a tunnel only those of the listener, and not in its 101.
    pub response_fields: FieldRules,
}

/// `path` or `prefix` of a route, compared with the path as sent, without the query. It starts with
/// `/`. A prefix that forwards to a cluster does not match paths with dot segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// The start of the path.
    Prefix(String),
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `upgrade = "websocket"` with `cluster`: the route matches only such requests.
    Tunnel(Tunnel),
    /// `redirect = { … }`
    Redirect(Redirect),
    /// `respond = { … }`
    Respond(Respond),
    /// `cluster` without `upgrade`: the route matches all requests, upgrades as well.
    Proxy(Proxy),
    /// `root`
    Files(Files),
}

/// `upgrade = "websocket"` with `cluster = …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The name of the cluster that the tunnel leads to.
    pub cluster: Arc<str>,
    /// Whether the cluster or ringgate answers the handshake.
    pub kind: TunnelKind,
    /// Timeouts that apply after the request was sent. `idle_timeout` is the route's, or else the
    /// listener's; `half_closed_timeout` is the listener's.
    pub timeouts: RelayTimeouts,
}

/// `route.tunnel`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// `"forward"`: the cluster answers the handshake.
    Forward {
        /// Whether bytes after the request head are forwarded before the 101 response.
        early_data: bool,
    },
    /// `"terminate"`: ringgate answers these handshakes and no others. The cluster receives the
    /// payload.
    Terminate(Handshakes),
}

/// `route.accept`; at least one of them is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshakes {
    /// simple-obfs in its http mode.
    pub obfs: bool,
    /// RFC 6455.
    pub websocket: bool,
}

/// `redirect = { … }`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `http` or `https`. `None` keeps the scheme of the request.
    pub scheme: Option<Scheme>,
    /// Host without port, in lower case, IPv6 in brackets. `None` keeps the host of the request.
    pub host: Option<String>,
    /// Port. `None` keeps the port of the request if neither scheme nor host changes, and means the
    /// scheme's default otherwise.
    pub port: Option<u16>,
    /// How the path is rewritten.
    pub path: PathRewrite,
    /// Whether the query is dropped.
    pub strip_query: bool,
}

/// `path` or `prefix` of a redirect or a `rewrite`. Both start with `/` and contain no query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// Neither key: the path stays as sent.
    Keep,
    /// `path`: replaces the whole path.
    Path(String),
    /// `prefix`: replaces the part that the route's own `prefix` matched.
    Prefix(String),
}

/// `respond = { … }`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599, except 204, 205 and 304 if there is a body.
    pub status: u16,
    /// The value of the Content-Type field.
    pub content_type: String,
    /// From `body` or `file`, at most 1 MiB. A file is read when the configuration is read.
    pub body: Arc<[u8]>,
}

/// `cluster = …` without `upgrade`: requests are passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The name of the cluster that requests go to.
    pub cluster: Arc<str>,
    /// How the target of a request changes.
    pub rewrite: Rewrite,
    /// Fields that are changed in requests.
    pub request_fields: FieldRules,
    /// How long the head of the response may take after the request was sent.
    pub response_timeout: Duration,
    /// How long neither side may send a byte.
    pub idle_timeout: Duration,
    /// The most bytes of a request body. `None` if there is no limit.
    pub max_body: Option<u64>,
    /// How upgrades to WebSocket are forwarded. `idle_timeout` is that of other requests;
    /// `half_closed_timeout` is the listener's.
    pub upgrades: Tunnel,
}

/// `rewrite = { … }`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// How the path changes. The query stays.
    pub path: PathRewrite,
    /// The Host field that the cluster gets, in lower case, with a port if one was written. `None`
    /// keeps the one of the request.
    pub host: Option<String>,
}

/// `root = …`: responses are files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The directory. The whole path of a request is looked up below it, the part that the prefix
    /// of the route matches included.
    pub root: PathBuf,
    /// The names of files that stand for their directory, the preferred one first; never empty.
    pub index: Vec<String>,
    /// The file of 404 responses: a path below `root` without a slash at its start. `None` if the
    /// page is that of any other 404.
    pub not_found: Option<String>,
    /// The file that is served with status 200 in place of one that does not exist: a path below
    /// `root` without a slash at its start.
    pub fallback: Option<String>,
    /// The value of Cache-Control.
    pub cache_control: Option<String>,
    /// The codings of files that stand beside the plain ones, the preferred one first. Without
    /// repetitions.
    pub precompressed: Vec<Coding>,
    /// Whether files and directories are served whose names start with a dot.
    pub dot_files: bool,
    /// Whether symbolic links are followed. Even then nothing outside of `root` is served.
    pub symlinks: bool,
}

impl Route {
    /// The name of the cluster that it leads to, if there is one.
    pub fn cluster(&self) -> Option<&Arc<str>> {
        self.tunnel().map(|tunnel| &tunnel.cluster)
    }

    /// How upgrades reach the cluster that it leads to, if there is one.
    pub fn tunnel(&self) -> Option<&Tunnel> {
        match &self.action {
            Action::Tunnel(tunnel) => Some(tunnel),
            Action::Proxy(proxy) => Some(&proxy.upgrades),
            Action::Redirect(_) | Action::Respond(_) | Action::Files(_) => None,
        }
    }
}

impl Rewrite {
    /// Returns true if the request stays as it is.
    pub fn is_empty(&self) -> bool {
        self.path == PathRewrite::Keep && self.host.is_none()
    }
}
