//! The configuration as the rest of the program sees it: valid, immutable and shared by `Arc`.
//!
//! Text becomes a [`Config`] in two steps. `read` fills in the tables that `keys` declares, with
//! the position of each value and the declared defaults. `check` resolves references and refuses
//! contradictions. All problems are reported at once, with their positions in the file. After that,
//! no code checks again whether a value is set or valid. Reading a configuration looks up no DNS
//! names and does not listen anywhere. The only other files it opens are those that it names to be
//! read: pages, certificates and keys.

mod address;
mod admin;
mod certificates;
mod check;
mod contract;
mod error_pages;
mod excerpt;
mod fields;
mod foreign;
mod input;
mod keys;
mod load;
mod loops;
mod machine;
mod network;
mod read;
mod report;
mod settle;
mod share;
mod site;
mod span;
mod syntax;
mod tls;
mod types;
mod units;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::admin::{Admin, Token, admin_address};
pub use self::certificates::{
    CLOSE_FILE, FileFault, Oddity, is_open, oddities, read_authorities, read_identity,
    read_ticket_keys, uncovered,
};
pub use self::contract::{Form, man, reference, schema};
pub use self::error_pages::{ErrorPage, ErrorPages};
pub use self::fields::{FieldName, FieldRules, FieldValue};
pub use self::keys::{Challenge, Coding, DnsFamily, Driver, Scheme};
pub use self::load::{DEFAULT, effective, load, load_text, name_of, parse, show};
pub use self::loops::{Back, Loops};
use self::machine::Machine;
pub use self::network::Network;
pub use self::report::{Errors, Warning, Warnings, printable};
pub use self::settle::Originals;
pub use self::site::{
    Action, Files, Handshakes, Host, Http, PathMatch, PathRewrite, Proxy, Redirect, Respond,
    Rewrite, Route, Tunnel, TunnelKind,
};
pub use self::tls::{Acme, CaFile, ClusterTls, TicketFile, TlsShared, Trust};
use crate::observe::access_log::Format;
use crate::proto::tls::{Authorities, Identity, Version};
use crate::sys::{Address, Needs, SocketOptions};

/// The complete configuration of one run of ringgate.
#[derive(Debug)]
pub struct Config {
    /// Workers and shutdown.
    pub server: Server,
    /// Diagnostics on stderr.
    pub log: Log,
    /// What all rules share that end TLS.
    pub tls: TlsShared,
    /// How certificates come by ACME. `None` unless a rule may use it.
    pub acme: Option<Acme>,
    /// The admin endpoint. `None` if there is none.
    pub admin: Option<Admin>,
    /// The listeners, in the order of the file. Their names are unique.
    pub listeners: Vec<Arc<Listener>>,
    /// The clusters, sorted by name. Listeners and routes refer to them by name.
    pub clusters: Vec<Arc<Cluster>>,
    /// Parts of the file that are valid but probably unintended.
    pub warnings: Warnings,
    /// The text that it was read from, if it has an admin endpoint, which shows it.
    text: Option<Arc<str>>,
}

/// Two configurations are equal if they mean the same; warnings and text are about the file.
impl PartialEq for Config {
    fn eq(&self, other: &Config) -> bool {
        let Config { server, log, tls, acme, admin, listeners, clusters, warnings: _, text: _ } =
            self;
        *server == other.server
            && *log == other.log
            && *tls == other.tls
            && *acme == other.acme
            && *admin == other.admin
            && *listeners == other.listeners
            && *clusters == other.clusters
    }
}

impl Cluster {
    /// Returns true if it checks certificates by the authorities of this machine.
    pub fn needs_system_authorities(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.trust == Trust::System)
    }
}

impl Config {
    /// Returns true if a cluster checks certificates by the authorities of this machine.
    pub fn needs_system_authorities(&self) -> bool {
        self.clusters.iter().any(|cluster| cluster.needs_system_authorities())
    }

    /// The cluster with this name, if there is one.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        let position = self.clusters.binary_search_by(|one| (*one.name).cmp(name)).ok()?;
        self.clusters.get(position)
    }

    /// The sites of files, of all routes.
    pub fn files(&self) -> impl Iterator<Item = &Files> {
        self.listeners.iter().flat_map(|listener| listener.files())
    }

    /// The objects that need descriptors when this many workers run.
    pub fn needs(&self, workers: usize) -> Needs {
        let mut needs = Needs {
            workers,
            stream_sockets: 0,
            udp_sockets: 0,
            surplus_sockets: 0,
            max_sessions: 0,
            idle: 0,
            names: 0,
            roots: 0,
            has_admin: self.admin.is_some(),
        };
        needs.roots = self.files().count();
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
            if self.gets_requests(cluster) {
                needs.idle = needs.idle.saturating_add(cluster.idle_connections());
            }
        }
        needs
    }

    /// Returns true if a route passes requests on to this cluster.
    fn gets_requests(&self, cluster: &Cluster) -> bool {
        let sites = self.listeners.iter().filter_map(|listener| match &listener.protocol {
            Protocol::Http(http) => Some(&http.hosts),
            _ => None,
        });
        let mut routes = sites.flatten().flat_map(|host| &host.routes);
        routes.any(|route| match &route.action {
            Action::Proxy(proxy) => proxy.cluster == cluster.name,
            _ => false,
        })
    }
}

/// `[server]`
#[derive(Debug, PartialEq, Eq)]
pub struct Server {
    /// How many workers run, and on which CPUs.
    pub workers: Workers,
    /// How workers wait for sockets.
    pub driver: Driver,
    /// How long connections are still accepted after SIGTERM. `None`: they are not.
    pub drain_delay: Option<Duration>,
    /// How long connections may continue after that.
    pub drain_timeout: Duration,
}

/// `server.workers`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workers {
    /// `"auto"`: one worker per CPU of the process's affinity mask.
    Auto,
    /// A number from 1 to 1024. Workers run on the first CPUs of the mask and start again at the
    /// first one if there are more workers than CPUs.
    Count(usize),
    /// One worker per CPU id of the list, each 0 to 1023. The list is never empty and has no
    /// duplicates.
    Cpus(Vec<usize>),
}

/// `[log]`
#[derive(Debug, PartialEq, Eq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`.
    pub level: String,
    /// Whether lines are JSON instead of text.
    pub json: bool,
}

/// `[access_log]`, at the top or in a listener.
#[derive(Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// The destination of the records.
    pub path: LogPath,
    /// The format of a record.
    pub format: Format,
}

/// `access_log.path` if it is not `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPath {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, opened in append mode; reopened on SIGUSR1.
    File(PathBuf),
}

/// `[[listener]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// A unique name, for records and start-up lines.
    pub name: Arc<str>,
    /// The addresses, at least one, sorted, with port ranges already expanded.
    pub addresses: Vec<Address>,
    /// Where its records go; `None` if it writes none. Listeners without one of their own share the
    /// common one.
    pub access_log: Option<Arc<AccessLog>>,
    /// Options of its sockets and connections.
    pub socket: SocketOptions,
    /// The maximum number of simultaneous connections of all workers. Further connections are
    /// closed as they arrive. `None` if there is no limit.
    pub max_connections: Option<usize>,
    /// What the listener does with the bytes.
    pub protocol: Protocol,
}

/// `listener.protocol` with the keys that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Every byte is relayed to a cluster.
    Tcp(Tcp),
    /// An HTTP/1.1 site.
    Http(Http),
    /// TLS, routed by server name: passed on unchanged, or decrypted.
    Tls(Tls),
    /// Every datagram is relayed to a cluster.
    Udp(Udp),
}

/// Timeouts of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayTimeouts {
    /// How long both sides may send nothing.
    pub idle: Duration,
    /// How long one side may send nothing after the other has ended.
    pub half_closed: Duration,
}

/// `protocol = "tcp"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// The name of the cluster that connections are relayed to.
    pub cluster: Arc<str>,
    /// When silent connections are closed.
    pub timeouts: RelayTimeouts,
}

/// `protocol = "udp"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    /// The name of the cluster that datagrams are relayed to. Its endpoints are IP addresses.
    pub cluster: Arc<str>,
    /// How long both sides may send nothing before the session ends.
    pub idle_timeout: Duration,
    /// The maximum number of simultaneous sessions, 1 to 1,000,000, divided evenly among the
    /// workers.
    pub max_sessions: usize,
}

/// `protocol = "tls"`, or `[[listener.tls]]` of an http listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The time limit for a complete ClientHello, counted from the accept.
    pub hello_timeout: Duration,
    /// The rules; never empty. The most specific name wins, and the first rule among equal names.
    pub rules: Vec<Arc<TlsRule>>,
    /// When silent connections are closed.
    pub timeouts: RelayTimeouts,
}

/// `[[listener.tls]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsRule {
    /// The name of the rule in records: its first name, or `*` if it has no names.
    pub name: String,
    /// Server names (SNI) in lower case. An empty list matches every other name and connections
    /// without a name.
    pub names: Vec<HostName>,
    /// What happens to the connections.
    pub action: TlsAction,
}

/// What a rule does with its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsAction {
    /// Every byte is relayed to a cluster, the ClientHello first.
    PassOn {
        /// The name of the cluster.
        cluster: Arc<str>,
        /// The client must offer one of these protocols (ALPN), sorted. An empty list sets no
        /// condition.
        alpn: Vec<String>,
    },
    /// `simple_obfs = true`: the rule matches only simple-obfs in its tls mode, which is terminated
    /// here.
    Obfs {
        /// The name of the cluster that gets the payload.
        cluster: Arc<str>,
    },
    /// `certificate` or `acme`: TLS ends here.
    End(Arc<TlsEnd>),
}

impl TlsAction {
    /// The name of the cluster, if there is one.
    pub fn cluster(&self) -> Option<&Arc<str>> {
        match self {
            TlsAction::PassOn { cluster, .. } | TlsAction::Obfs { cluster } => Some(cluster),
            TlsAction::End(end) => end.cluster.as_ref(),
        }
    }
}

/// How TLS ends here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsEnd {
    /// A name that no other such rule has, for session tickets.
    pub scope: String,
    /// The certificates, one for each kind of key. Empty if it comes by ACME.
    pub certificates: Vec<Certificate>,
    /// Whether a certificate for the names of the rule, which are exact, comes by ACME.
    pub acme: bool,
    /// The protocols that are offered (ALPN), the preferred one first. Empty: none.
    pub alpn: Vec<String>,
    /// The authorities of the certificates that clients must show. `None` if they need none.
    pub client_ca: Option<Authorities>,
    /// The oldest version that is accepted.
    pub min_version: Version,
    /// The name of the cluster that gets the decrypted bytes. `None` if the hosts and routes of the
    /// listener follow.
    pub cluster: Option<Arc<str>>,
}

/// `certificate` and `key` of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The file of the certificate.
    pub certificate: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
    /// What the files held when the configuration was read.
    pub identity: Identity,
}

/// One of `host.names`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostName {
    /// A name such as `live.example.com`, or an IPv6 address in brackets, as in the Host header.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`.
    Suffix(String),
    /// `example.*`, kept as `example.`.
    Prefix(String),
}

/// `[cluster.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The name in the file.
    pub name: Arc<str>,
    /// How its endpoints are found.
    pub discovery: Discovery,
    /// The time limit for one connect.
    pub connect_timeout: Duration,
    /// The maximum number of endpoints tried for one connection, 1 to 16. Each attempt uses another
    /// endpoint if there is one.
    pub connect_attempts: usize,
    /// The most idle connections that are kept for further requests, for each worker and endpoint.
    /// 0 if none is kept.
    pub keepalive_connections: usize,
    /// How long a connection may be idle before it is closed.
    pub keepalive_timeout: Duration,
    /// `None` if connections to the endpoints are plain.
    pub tls: Option<ClusterTls>,
}

/// The addresses that a name is taken to have before it is looked up.
const ADDRESSES_OF_NAME: usize = 4;

impl Cluster {
    /// The most idle connections that a worker keeps, if names do not have more addresses than
    /// [`ADDRESSES_OF_NAME`].
    fn idle_connections(&self) -> usize {
        let endpoints = match &self.discovery {
            Discovery::Static(addresses) => addresses.len(),
            Discovery::StrictDns { names, .. } => ADDRESSES_OF_NAME * names.len(),
        };
        self.keepalive_connections.saturating_mul(endpoints)
    }
}

/// `cluster.discovery` together with the endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// The addresses as written; never empty.
    Static(Vec<Address>),
    /// All addresses of all names.
    StrictDns {
        /// Names (or addresses) with ports; never empty.
        names: Vec<DnsName>,
        /// The time between look-ups if the TTL of the answer is 0 or unknown.
        refresh: Duration,
        /// Which addresses of the names become endpoints.
        family: DnsFamily,
    },
}

/// `name:port` of a strict_dns cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsName {
    /// A host name in lower case, or an IP address in its text form, IPv6 without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}
