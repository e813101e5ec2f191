//! The configuration as the rest of the program sees it: valid, immutable, shared by `Arc`.
//!
//! Text becomes a [`Config`] in two steps: `file` reads the TOML as typed and keeps where each
//! value stood, `check` resolves names, fills defaults and refuses contradictions. Every problem
//! found is reported at once, with its place in the file. After that nothing asks again whether a
//! value is set or makes sense. Reading a configuration resolves no names and listens nowhere; the
//! only other files it opens are those of `respond.file`.

mod address;
mod check;
mod excerpt;
mod file;
mod foreign;
mod input;
mod load;
mod loops;
mod machine;
mod report;
mod table;
mod units;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::load::{DEFAULT, load, name_of, parse};
pub use self::loops::Back;
use self::machine::Machine;
pub use self::report::{Errors, Warning, Warnings};
use crate::observe::access_log::Format;
use crate::sys::{Address, Needs};

/// Everything one run of ringgate needs to know.
#[derive(Debug)]
pub struct Config {
    /// Workers and shutdown.
    pub server: Server,
    /// Diagnostics on stderr.
    pub log: Log,
    /// The access logs in use, each once; listeners refer to them by position.
    pub access_logs: Vec<AccessLog>,
    /// The listeners, in the order of the file.
    pub listeners: Vec<Listener>,
    /// The clusters, in the order of their names; routes refer to them by position.
    pub clusters: Vec<Cluster>,
    /// What is probably not meant.
    pub warnings: Warnings,
}

impl Config {
    /// What so many workers need descriptors for.
    pub fn needs(&self, workers: usize) -> Needs {
        let mut needs =
            Needs { workers, stream_sockets: 0, udp_sockets: 0, max_sessions: 0, names: 0 };
        for listener in &self.listeners {
            if let Protocol::Udp(udp) = &listener.protocol {
                needs.udp_sockets += listener.addresses.len();
                needs.max_sessions = needs.max_sessions.saturating_add(udp.max_sessions);
            } else {
                needs.stream_sockets += listener.addresses.len();
            }
        }
        for cluster in &self.clusters {
            if let Discovery::StrictDns { names, .. } = &cluster.discovery {
                needs.names += names.len();
            }
        }
        needs
    }
}

/// A position in [`Config::clusters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterId(pub usize);

/// `[server]`
#[derive(Debug)]
pub struct Server {
    /// How many workers run and where. Default: [`Workers::Auto`].
    pub workers: Workers,
    /// How workers wait for sockets. Default: [`Driver::Auto`].
    pub driver: Driver,
    /// How long connections may go on after SIGTERM. Default 30 s.
    pub drain_timeout: Duration,
}

/// `server.workers`
#[derive(Debug, PartialEq, Eq)]
pub enum Workers {
    /// `"auto"`: one per CPU of the process's affinity mask.
    Auto,
    /// A number, 1 to 1024: on the first CPUs of the mask, again from the start where it is longer
    /// than the mask.
    Count(usize),
    /// One per CPU id of the list, each 0 to 1023; never empty, ids are not repeated.
    Cpus(Vec<usize>),
}

/// `server.driver`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, or epoll where the kernel refuses a ring.
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

/// `[log]`
#[derive(Debug)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`. Default `info`.
    pub level: String,
    /// JSON lines instead of text.
    pub json: bool,
}

/// `[access_log]`, at the top or in a listener.
#[derive(Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where records go.
    pub path: LogPath,
    /// How a record is written.
    pub format: Format,
}

/// `access_log.path` when it is not `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPath {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to; reopened on SIGUSR1.
    File(PathBuf),
}

/// `[[listener]]`
#[derive(Debug)]
pub struct Listener {
    /// Unique name, for records and start-up lines.
    pub name: String,
    /// At least one; port ranges already expanded.
    pub addresses: Vec<Address>,
    /// Position in [`Config::access_logs`]; none: no records.
    pub access_log: Option<usize>,
    /// Length of the accept queue, 1 to 65535. Default 4096.
    pub backlog: i32,
    /// TCP_NODELAY on both sides. Default true.
    pub nodelay: bool,
    /// TCP keepalive idle time on both sides (tcp(7)), whole seconds; on the upstream's side it
    /// begins within 26 s of the connect. Default 30 s; none: off.
    pub keepalive: Option<Duration>,
    /// TCP Fast Open on the listening socket (tcp(7)). Default false.
    pub fast_open: bool,
    /// Connections at once over all workers; more are closed as they arrive. None: no limit.
    pub max_connections: Option<usize>,
    /// What happens to the bytes.
    pub protocol: Protocol,
}

/// `listener.protocol` with the keys that belong to it.
#[derive(Debug)]
pub enum Protocol {
    /// Every byte to a cluster.
    Tcp(Tcp),
    /// An HTTP/1.1 site.
    Http(Http),
    /// TLS, by the name that is asked for; nothing is decrypted.
    Tls(Tls),
    /// Every datagram to a cluster.
    Udp(Udp),
}

/// Limits of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayTimeouts {
    /// Neither side sent a byte for this long. Default 1 h.
    pub idle: Duration,
    /// One side has ended and the other sent nothing for this long. Default 1 min.
    pub half_closed: Duration,
}

/// `protocol = "tcp"`
#[derive(Debug)]
pub struct Tcp {
    /// Where connections go.
    pub cluster: ClusterId,
    /// When they end without a word.
    pub timeouts: RelayTimeouts,
}

/// `protocol = "udp"`
#[derive(Debug)]
pub struct Udp {
    /// Where datagrams go; its endpoints are IP addresses.
    pub cluster: ClusterId,
    /// A session ends when neither side has sent for this long. Default 5 min.
    pub idle_timeout: Duration,
    /// Sessions at once, 1 to 1,000,000, shared out evenly to the workers. Default 65536.
    pub max_sessions: usize,
}

/// `protocol = "http"`
#[derive(Debug)]
pub struct Http {
    /// A request head must be complete this long after its first byte, and a new connection must
    /// send one. Default 10 s.
    pub head_timeout: Duration,
    /// Silence allowed between requests. Default 75 s.
    pub keepalive_timeout: Duration,
    /// Bytes of a request head, 1 KiB to 64 KiB. Default 16 KiB.
    pub max_head: usize,
    /// Fields of a request head, 1 to 256. Default 100.
    pub max_headers: usize,
    /// The hosts; never empty.
    pub hosts: Vec<Host>,
    /// What becomes of a connection that begins with a TLS handshake. None: that is not HTTP.
    pub tls: Option<Tls>,
}

/// `protocol = "tls"`, or `[[listener.tls]]` of an http listener.
#[derive(Debug)]
pub struct Tls {
    /// A ClientHello must be complete this long after the connection was accepted. Default 5 s.
    pub hello_timeout: Duration,
    /// The best matching name wins, among equal ones the first; never empty.
    pub rules: Vec<TlsRule>,
    /// When connections end without a word.
    pub timeouts: RelayTimeouts,
}

/// `[[listener.tls]]`
#[derive(Debug)]
pub struct TlsRule {
    /// How records name the rule: by its first name, `*` without names.
    pub name: String,
    /// SNI in lower case; empty: every other name, and none.
    pub names: Vec<HostName>,
    /// One of these must be offered (ALPN); empty: whatever is.
    pub alpn: Vec<String>,
    /// Where connections go.
    pub cluster: ClusterId,
    /// It takes only simple-obfs in its tls mode, which ends here. Default false.
    pub simple_obfs: bool,
}

/// `[[listener.host]]`
#[derive(Debug)]
pub struct Host {
    /// Lower case; empty: every other host.
    pub names: Vec<HostName>,
    /// First match wins; never empty.
    pub routes: Vec<Route>,
}

/// One of `host.names`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostName {
    /// `live.example.com`; an IPv6 address in brackets, as the Host header has it.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`.
    Suffix(String),
    /// `example.*`, kept as `example.`.
    Prefix(String),
}

/// `[[listener.host.route]]`
#[derive(Debug)]
pub struct Route {
    /// How records name the route: `/stream` for a path, `/img/*` for a prefix.
    pub name: String,
    /// Which paths it takes.
    pub path: PathMatch,
    /// What it does with them.
    pub action: Action,
}

/// `path` or `prefix` of a route, compared as sent, without the query. Starts with `/`. A prefix of
/// a forwarding tunnel takes no path with dot segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// The start of the path.
    Prefix(String),
}

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// `upgrade = "websocket"` with `cluster`: only such requests match.
    Tunnel(Tunnel),
    /// `redirect = { … }`
    Redirect(Redirect),
    /// `respond = { … }`
    Respond(Respond),
}

/// `upgrade = "websocket"` with `cluster = …`
#[derive(Debug)]
pub struct Tunnel {
    /// Where the tunnel leads.
    pub cluster: ClusterId,
    /// Who answers the handshake.
    pub kind: TunnelKind,
    /// Limits once the request is sent: `idle_timeout` of the route, else of the listener;
    /// `half_closed_timeout` of the listener.
    pub timeouts: RelayTimeouts,
}

/// `route.tunnel`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// `"forward"`, the default: the cluster does.
    Forward {
        /// Bytes behind the head go on before the 101. Default false.
        early_data: bool,
    },
    /// `"terminate"`: ringgate does, these alone, and the cluster gets payload.
    Terminate(Handshakes),
}

/// `route.accept`; one of them at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshakes {
    /// simple-obfs in its http mode. Default true.
    pub obfs: bool,
    /// RFC 6455. Default true.
    pub websocket: bool,
}

/// `redirect = { … }`
#[derive(Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308. Default 301.
    pub status: u16,
    /// `http` or `https`; none: the request's own.
    pub scheme: Option<Scheme>,
    /// Host without port, in lower case, IPv6 in brackets; none: the request's own.
    pub host: Option<String>,
    /// Port; none: the request's own where neither scheme nor host changes, else the scheme's
    /// default.
    pub port: Option<u16>,
    /// What becomes of the path.
    pub path: PathRewrite,
    /// Drop the query instead of keeping it. Default false.
    pub strip_query: bool,
}

/// The scheme of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Default port 80.
    Http,
    /// Default port 443.
    Https,
}

/// `path` or `prefix` of a redirect; both start with `/` and hold no query.
#[derive(Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// Neither: the path as sent.
    Keep,
    /// `path`: instead of the whole path.
    Path(String),
    /// `prefix`: instead of what the route's own `prefix` matched.
    Prefix(String),
}

/// `respond = { … }`
#[derive(Debug)]
pub struct Respond {
    /// 200 to 599, without 204, 205 and 304 when there is a body. Default 200.
    pub status: u16,
    /// Default `text/plain; charset=utf-8`.
    pub content_type: String,
    /// From `body` or `file`, at most 1 MiB; a file is read when the configuration is.
    pub body: Arc<[u8]>,
}

/// `[cluster.NAME]`
#[derive(Debug)]
pub struct Cluster {
    /// The name in the file.
    pub name: String,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// How long one connect may take. Default 5 s.
    pub connect_timeout: Duration,
    /// Endpoints tried for one connection, 1 to 16, each another one where there is one. Default 2.
    pub connect_attempts: usize,
}

/// `cluster.discovery` with the endpoints.
#[derive(Debug)]
pub enum Discovery {
    /// Addresses as written; never empty.
    Static(Vec<Address>),
    /// Every address of every name.
    StrictDns {
        /// Names (or addresses) with ports; never empty.
        names: Vec<DnsName>,
        /// Between look-ups when the answer's TTL is 0 or unknown. Default 5 s.
        refresh: Duration,
        /// Which addresses of the names are endpoints. Default [`DnsFamily::Auto`].
        family: DnsFamily,
    },
}

/// `cluster.dns_family`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsFamily {
    /// Both families. Addresses that this machine has no route to use up no attempt.
    Auto,
    /// A records only.
    Ipv4,
    /// AAAA records only.
    Ipv6,
}

/// `name:port` of a strict_dns cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsName {
    /// A host name in lower case, or an IP address in its text form, IPv6 without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}
