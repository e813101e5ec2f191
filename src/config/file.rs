//! The configuration as typed: the keys, their types and the position of each value.
//!
//! The checks here look at single keys; they also report a missing key that is required. Rules for
//! several keys, references and defaults are in `check`. A key that is not read here is unknown.
//! The lists of later keys only change the error message for these keys.

use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::foreign;
use super::report::{Report, Span, advice, quoted};
use super::table::{At, Field, Table, out_of_range, whole_number};
use super::{DnsFamily, Driver, Scheme, Workers};

/// The whole file.
pub(super) struct File {
    pub(super) server: Server,
    pub(super) log: Log,
    pub(super) access_log: Option<AccessLog>,
    pub(super) listeners: Vec<Listener>,
    pub(super) clusters: Vec<(At<String>, Cluster)>,
    /// Whether all clusters are known: none is under a key that was reported.
    pub(super) clusters_complete: bool,
}

/// `[server]`
#[derive(Default)]
pub(super) struct Server {
    pub(super) workers: Field<Workers>,
    pub(super) driver: Field<Driver>,
    pub(super) drain_timeout: Field<Duration>,
}

/// `[log]`
#[derive(Default)]
pub(super) struct Log {
    pub(super) level: Field<&'static str>,
    pub(super) json: Field<bool>,
}

/// `[access_log]`
pub(super) struct AccessLog {
    pub(super) path: Field<String>,
    pub(super) format: Field<String>,
}

/// `listener.protocol`
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ProtocolWord {
    Tcp,
    Http,
    Tls,
    Udp,
}

/// `[[listener]]`
pub(super) struct Listener {
    pub(super) span: Span,
    pub(super) name: Field<String>,
    pub(super) listen: Field<Vec<At<String>>>,
    pub(super) protocol: Field<ProtocolWord>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) backlog: Field<u64>,
    pub(super) nodelay: Field<bool>,
    pub(super) keepalive: Field<Option<Duration>>,
    pub(super) fast_open: Field<bool>,
    pub(super) max_connections: Field<u64>,
    pub(super) idle_timeout: Field<Duration>,
    pub(super) half_closed_timeout: Field<Duration>,
    /// For `protocol = "udp"` only.
    pub(super) max_sessions: Field<u64>,
    /// For `protocol = "tcp"` and `"udp"`.
    pub(super) cluster: Field<String>,
    /// For `protocol = "http"` only.
    pub(super) http: Http,
    /// For `protocol = "tls"` and `"http"`.
    pub(super) hello_timeout: Field<Duration>,
    pub(super) tls: Vec<TlsRule>,
    /// Whether all its keys are known. If so, a missing key was not misspelt.
    pub(super) complete: bool,
}

/// The keys of a listener that are valid for HTTP only.
pub(super) struct Http {
    pub(super) head_timeout: Field<Duration>,
    pub(super) keepalive_timeout: Field<Duration>,
    pub(super) max_head: Field<u64>,
    pub(super) max_headers: Field<u64>,
    pub(super) hosts: Vec<Host>,
}

/// `[[listener.tls]]`
pub(super) struct TlsRule {
    pub(super) span: Span,
    pub(super) names: Field<Vec<At<String>>>,
    pub(super) alpn: Field<Vec<At<String>>>,
    pub(super) cluster: Field<String>,
    pub(super) simple_obfs: Field<bool>,
}

/// `[[listener.host]]`
pub(super) struct Host {
    pub(super) span: Span,
    pub(super) names: Field<Vec<At<String>>>,
    pub(super) routes: Vec<Route>,
    /// Whether all its keys are known. If so, a missing key was not misspelt.
    pub(super) complete: bool,
}

/// `[[listener.host.route]]`
pub(super) struct Route {
    pub(super) span: Span,
    pub(super) path: Field<String>,
    pub(super) prefix: Field<String>,
    pub(super) upgrade: Field<()>,
    pub(super) cluster: Field<String>,
    pub(super) tunnel: Field<TunnelWord>,
    pub(super) accept: Field<Vec<At<String>>>,
    pub(super) early_data: Field<bool>,
    pub(super) idle_timeout: Field<Duration>,
    pub(super) redirect: Field<Redirect>,
    pub(super) respond: Field<Respond>,
    /// Whether all its keys are known. If so, a missing key was not misspelt.
    pub(super) complete: bool,
}

/// `route.tunnel`
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TunnelWord {
    Forward,
    Terminate,
}

const TUNNELS: [(&str, TunnelWord); 2] =
    [("forward", TunnelWord::Forward), ("terminate", TunnelWord::Terminate)];

/// `redirect = { … }`
pub(super) struct Redirect {
    pub(super) scheme: Field<Scheme>,
    pub(super) host: Field<String>,
    pub(super) port: Field<u64>,
    pub(super) path: Field<String>,
    pub(super) prefix: Field<String>,
    pub(super) strip_query: Field<bool>,
    pub(super) status: Field<u64>,
    /// Whether all its keys are known. If so, a missing key was not misspelt.
    pub(super) complete: bool,
}

/// `respond = { … }`
pub(super) struct Respond {
    pub(super) status: Field<u64>,
    pub(super) content_type: Field<String>,
    pub(super) body: Field<String>,
    pub(super) file: Field<String>,
}

/// `cluster.discovery`
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DiscoveryWord {
    Static,
    StrictDns,
}

/// `[cluster.NAME]`
pub(super) struct Cluster {
    pub(super) discovery: Field<DiscoveryWord>,
    pub(super) endpoints: Field<Vec<At<String>>>,
    pub(super) dns_refresh: Field<Duration>,
    pub(super) dns_family: Field<DnsFamily>,
    pub(super) connect_timeout: Field<Duration>,
    pub(super) connect_attempts: Field<u64>,
}

impl File {
    pub(super) fn read(report: &Report<'_>, keys: &DeTable<'_>) -> File {
        let mut table = Table::new(report, keys, "the file", Span { start: 0, end: 0 });
        let server = table.table("server", "[server]").value;
        let log = table.table("log", "[log]").value;
        let listeners = table.tables("listener", "[[listener]]");
        let clusters = table.named_tables("cluster");
        let file = File {
            server: server.map(|at| Server::read(at.value)).unwrap_or_default(),
            log: log.map(|at| Log::read(at.value)).unwrap_or_default(),
            access_log: AccessLog::read(&mut table, "[access_log]"),
            listeners: listeners.into_iter().map(Listener::read).collect(),
            clusters_complete: clusters.complete,
            clusters: clusters
                .tables
                .into_iter()
                .map(|(name, table)| (name, Cluster::read(table)))
                .collect(),
        };
        table.finish(&["admin"]);
        file
    }
}

impl Server {
    fn read(mut table: Table<'_>) -> Server {
        let drivers =
            [("auto", Driver::Auto), ("io_uring", Driver::IoUring), ("epoll", Driver::Epoll)];
        let server = Server {
            workers: read_workers(&mut table),
            driver: table.word("driver", &drivers, &[]),
            drain_timeout: table.duration("drain_timeout"),
        };
        table.finish(&[]);
        server
    }
}

/// Reads `"auto"`, a number, or a list of CPU ids.
fn read_workers(table: &mut Table<'_>) -> Field<Workers> {
    const KINDS: &str = "write \"auto\", a number of workers, or a list of CPU ids such as [0, 2]";
    let report = table.report;
    let field = table.any("workers");
    let value = field.value.and_then(|at| {
        let workers = match at.value {
            DeValue::String(text) if text == "auto" => Some(Workers::Auto),
            DeValue::String(text) => {
                let what = format!("`workers` cannot be {}", quoted(text));
                let note = advice(text, &["auto"]);
                let note = if note.starts_with("did") { note } else { String::from(KINDS) };
                report.error(at.span, what, note);
                None
            }
            DeValue::Integer(_) => {
                let range = 1..=MAX_WORKERS;
                let count = whole_number(at.value).filter(|count| range.contains(count));
                if count.is_none() {
                    let note = "write \"auto\" for one per CPU this process may use";
                    report.error(at.span, out_of_range("workers", &range), note);
                }
                count.map(|count| Workers::Count(count as usize))
            }
            DeValue::Array(items) => {
                let ids: Vec<Option<usize>> =
                    items.iter().map(|item| read_cpu(report, item)).collect();
                if ids.is_empty() {
                    report.error(at.span, "`workers` lists no CPU at all", KINDS);
                }
                for (index, item) in items.iter().enumerate() {
                    if ids[index].is_some() && ids[..index].contains(&ids[index]) {
                        let note = "two workers on one CPU would only take turns; name each once";
                        report.error(item.span().into(), "this CPU is in the list already", note);
                    }
                }
                ids.into_iter().collect::<Option<Vec<usize>>>().map(Workers::Cpus)
            }
            _ => {
                report.error(at.span, "`workers` is none of its three kinds", KINDS);
                None
            }
        };
        workers.map(|value| At { value, span: at.span })
    });
    Field { key: field.key, value }
}

/// The number of CPUs in an affinity mask, see sched_setaffinity(2).
const MAX_WORKERS: u64 = 1024;

fn read_cpu(report: &Report<'_>, item: &toml::Spanned<DeValue<'_>>) -> Option<usize> {
    let id = whole_number(item.get_ref()).filter(|id| *id < MAX_WORKERS);
    if id.is_none() {
        let what = format!("a CPU id is a number from 0 to {}", MAX_WORKERS - 1);
        report.error(item.span().into(), what, "`lscpu -e` lists the CPUs of this machine");
    }
    id.map(|id| id as usize)
}

impl Log {
    fn read(mut table: Table<'_>) -> Log {
        let levels = ["error", "warn", "info", "debug", "trace", "off"].map(|level| (level, level));
        let log = Log {
            level: table.word("level", &levels, &[]),
            json: table.word("format", &[("text", false), ("json", true)], &[]),
        };
        table.finish(&[]);
        log
    }
}

impl AccessLog {
    fn read(parent: &mut Table<'_>, place: &str) -> Option<AccessLog> {
        let mut table = parent.table("access_log", place).value?.value;
        let log = AccessLog { path: table.string("path"), format: table.string("format") };
        table.finish(&[]);
        Some(log)
    }
}

impl Listener {
    fn read(mut table: Table<'_>) -> Listener {
        let protocols = [
            ("tcp", ProtocolWord::Tcp),
            ("http", ProtocolWord::Http),
            ("tls", ProtocolWord::Tls),
            ("udp", ProtocolWord::Udp),
        ];
        let name = table.string("name");
        let listen = table.strings("listen", true);
        let protocol = table.word_with("protocol", &protocols, &[], foreign::protocol);
        let tls = table.tables("tls", "[[listener.tls]]");
        let mut listener = Listener {
            span: table.span,
            name: table.required("name", name, "records and messages call the listener by it"),
            listen: table.required(
                "listen",
                listen,
                "where to accept connections: listen = \"0.0.0.0:80\", or a list of such",
            ),
            protocol: table.required(
                "protocol",
                protocol,
                "\"tcp\" hands every byte to a cluster, \"http\" serves a site, \"tls\" goes by \
                 name, \"udp\" is for datagrams",
            ),
            access_log: AccessLog::read(&mut table, "[listener.access_log]"),
            backlog: table.integer("backlog", 1..=65535, "it is the length of the accept queue"),
            nodelay: table.boolean("nodelay"),
            keepalive: table.duration_or_off("keepalive"),
            fast_open: table.boolean("fast_open"),
            max_connections: table.integer(
                "max_connections",
                1..=u64::MAX,
                "leave the key out for no limit",
            ),
            idle_timeout: table.duration("idle_timeout"),
            half_closed_timeout: table.duration("half_closed_timeout"),
            max_sessions: table.integer("max_sessions", 1..=1_000_000, "the default is 65536"),
            cluster: table.string("cluster"),
            http: Http::read(&mut table),
            hello_timeout: table.duration("hello_timeout"),
            tls: tls.into_iter().map(TlsRule::read).collect(),
            complete: true,
        };
        listener.complete =
            table.finish(&["proxy_protocol", "allow", "deny", "max_connections_per_ip"]);
        listener
    }
}

impl TlsRule {
    fn read(mut table: Table<'_>) -> TlsRule {
        let cluster = table.string("cluster");
        let rule = TlsRule {
            span: table.span,
            names: table.strings("names", false),
            alpn: table.strings("alpn", false),
            cluster: table.required(
                "cluster",
                cluster,
                "name the [cluster.NAME] that these connections go to",
            ),
            simple_obfs: table.boolean("simple_obfs"),
        };
        table.finish(&[]);
        rule
    }
}

impl Http {
    fn read(table: &mut Table<'_>) -> Http {
        let hosts = table.tables("host", "[[listener.host]]");
        Http {
            head_timeout: table.duration("head_timeout"),
            keepalive_timeout: table.duration("keepalive_timeout"),
            max_head: table.size("max_head", 1 << 10..=64 << 10),
            max_headers: table.integer("max_headers", 1..=256, "the default is 100"),
            hosts: hosts.into_iter().map(Host::read).collect(),
        }
    }
}

impl Host {
    fn read(mut table: Table<'_>) -> Host {
        let routes = table.tables("route", "[[listener.host.route]]");
        let mut host = Host {
            span: table.span,
            names: table.strings("names", false),
            routes: routes.into_iter().map(Route::read).collect(),
            complete: true,
        };
        host.complete = table.finish(&[]);
        host
    }
}

impl Route {
    fn read(mut table: Table<'_>) -> Route {
        let redirect = table.table("redirect", "redirect = { … }");
        let respond = table.table("respond", "respond = { … }");
        let mut route = Route {
            span: table.span,
            path: table.string("path"),
            prefix: table.string("prefix"),
            upgrade: table.word("upgrade", &[("websocket", ())], &[]),
            cluster: table.string("cluster"),
            tunnel: table.word("tunnel", &TUNNELS, &[]),
            accept: table.strings("accept", false),
            early_data: table.boolean("early_data"),
            idle_timeout: table.duration("idle_timeout"),
            redirect: redirect.map(Redirect::read),
            respond: respond.map(Respond::read),
            complete: true,
        };
        route.complete = table.finish(&["regex", "method", "headers", "query", "clusters"]);
        route
    }
}

impl Redirect {
    fn read(mut table: Table<'_>) -> Redirect {
        let schemes = [("http", Scheme::Http), ("https", Scheme::Https)];
        let mut redirect = Redirect {
            scheme: table.word("scheme", &schemes, &[]),
            host: table.string("host"),
            port: table.integer("port", 1..=65535, "leave the key out for the scheme's own port"),
            path: table.string("path"),
            prefix: table.string("prefix"),
            strip_query: table.boolean("strip_query"),
            status: table.integer("status", 0..=u64::MAX, "the default is 301"),
            complete: true,
        };
        redirect.complete = table.finish(&[]);
        redirect
    }
}

impl Respond {
    fn read(mut table: Table<'_>) -> Respond {
        let respond = Respond {
            status: table.integer("status", 200..=599, "1xx are not final answers"),
            content_type: table.string("content_type"),
            body: table.string("body"),
            file: table.string("file"),
        };
        table.finish(&[]);
        respond
    }
}

impl Cluster {
    fn read(mut table: Table<'_>) -> Cluster {
        let discoveries =
            [("static", DiscoveryWord::Static), ("strict_dns", DiscoveryWord::StrictDns)];
        let families =
            [("auto", DnsFamily::Auto), ("ipv4", DnsFamily::Ipv4), ("ipv6", DnsFamily::Ipv6)];
        let balances = [("round_robin", ())];
        // There is only one balance so far. Its name has no effect, and another name is an error.
        table.word("balance", &balances, &["least_connections", "random", "maglev"]);
        let endpoints = table.strings("endpoints", false);
        let cluster = Cluster {
            discovery: table.word("discovery", &discoveries, &["logical_dns", "srv"]),
            endpoints: table.required(
                "endpoints",
                endpoints,
                "where connections go: endpoints = [\"127.0.0.1:8388\"]",
            ),
            dns_refresh: table.duration("dns_refresh"),
            dns_family: table.word("dns_family", &families, &[]),
            connect_timeout: table.duration("connect_timeout"),
            connect_attempts: table.integer(
                "connect_attempts",
                1..=16,
                "1 means no second endpoint is tried; the default is 2",
            ),
        };
        table.finish(&["max_connections", "send_proxy_protocol", "health_check", "outlier"]);
        cluster
    }
}
