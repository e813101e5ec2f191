//! What a run of the suite found, as it stands in `results.json`: every sample of every round, so
//! that all medians, spreads and ratios can be computed again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    /// What each contender says of its version.
    pub(crate) versions: BTreeMap<Contender, String>,
    /// In the order in which they were taken.
    pub(crate) samples: Vec<Sample>,
    pub(crate) weights: Vec<Weighing>,
    pub(crate) balance: Vec<Balance>,
    /// What peers could not do, in words; it has no sample.
    pub(crate) failures: Vec<String>,
}

/// Where it ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    /// Of TCP. One that paces, such as bbr, costs all proxies a timer for what they send.
    pub(crate) congestion_control: String,
    /// `root` or `user`: pipes and locked memory are limited for users.
    pub(crate) user: String,
    /// Date, as `YYYY-MM-DD`.
    pub(crate) date: String,
}

/// How it ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) quick: bool,
    pub(crate) rounds: u16,
    /// Length of one timed interval.
    pub(crate) seconds: f64,
    /// Load before the timed interval.
    pub(crate) warmup: f64,
    /// How bulk is sent: `copy`, `file` or `pages`.
    pub(crate) send: String,
    /// The command that repeats it.
    pub(crate) command: String,
    pub(crate) proxy_cpu: u16,
    pub(crate) load_cpu: u16,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contender {
    /// The proxy this is about.
    Ringgate,
    /// The same at L4, beside what goes through a tunnel.
    #[serde(rename = "ringgate-l4")]
    RinggateL4,
    /// The same with two workers.
    RinggateTwo,
    /// The same as a user without privileges.
    RinggateUser,
    /// The same with four workers, for the balance between them.
    RinggateFour,
    Nginx,
    /// nginx with 1 MiB for each direction of each connection: its strongest for bulk, and more
    /// memory than anyone gives it for thousands of connections.
    #[serde(rename = "nginx-1m")]
    NginxHuge,
    /// HAProxy that splices every byte of bulk, where it is told to find out by itself what to
    /// splice.
    #[serde(rename = "haproxy-splice")]
    HaproxySplice,
    Haproxy,
    Envoy,
    /// Sites only: it has no L4.
    Caddy,
    /// The server side of v2ray-plugin, which ends WebSockets.
    V2ray,
    /// nginx, which ends TLS, with v2ray-plugin's server behind it, as most wss boxes have it. CPU
    /// time is that of both.
    #[serde(rename = "nginx-v2ray")]
    NginxV2ray,
    /// A loop of epoll and splice that does nothing else.
    Floor,
    /// No proxy at all.
    Direct,
}

/// What is compared. Everything that has a place in a table is a workload with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub(crate) enum Workload {
    /// Bulk at L4, client to server.
    BulkUp {
        connections: u16,
    },
    /// Bulk at L4, server to client.
    BulkDown {
        connections: u16,
    },
    /// Round trips at L4.
    RoundTrips {
        connections: u16,
        size: u16,
    },
    /// Connect, one 100 B round trip, close, at L4.
    Churn {
        connections: u16,
    },
    /// 301s on connections that stay.
    Redirects {
        connections: u16,
    },
    /// 301s on a connection each.
    RedirectsOnce {
        connections: u16,
    },
    /// Bulk through a `/stream` tunnel, client to server.
    StreamUp {
        connections: u16,
    },
    /// Bulk through a `/stream` tunnel, server to client.
    StreamDown {
        connections: u16,
    },
    /// Round trips through a `/stream` tunnel.
    StreamRoundTrips {
        connections: u16,
        size: u16,
    },
    /// Bulk whose simple-obfs handshake the proxy answers.
    ObfsUp {
        connections: u16,
    },
    ObfsDown {
        connections: u16,
    },
    /// Bulk in WebSocket frames that the proxy takes off and puts on.
    WebSocketUp {
        connections: u16,
    },
    WebSocketDown {
        connections: u16,
    },
    /// Bulk that comes in TLS and goes on plain.
    TlsUp {
        connections: u16,
    },
    TlsDown {
        connections: u16,
    },
    /// Round trips, over TLS to the proxy.
    TlsRoundTrips {
        connections: u16,
        size: u16,
    },
    /// Connect, full handshake, one small exchange, close.
    Handshakes {
        connections: u16,
        by: Generator,
    },
    /// The same, with a session resumed by a ticket.
    Resumptions {
        connections: u16,
        by: Generator,
    },
    /// 301s over TLS on connections that stay.
    TlsRedirects {
        connections: u16,
        by: Generator,
    },
    /// Bulk in WebSocket frames in TLS; the proxy takes both off and puts both on.
    WssUp {
        connections: u16,
    },
    WssDown {
        connections: u16,
    },
    /// Datagrams there and back, both counted; `burst` of them by one call.
    Datagrams {
        clients: u16,
        size: u16,
        burst: u16,
    },
    /// 100 B round trips while bulk flows share the worker; what is counted are the round trips.
    Mixed {
        bulk: u16,
        small: u16,
    },
    /// Requests whose answers a backend gives, on connections that stay.
    SiteAnswers {
        connections: u16,
        size: u32,
        tls: bool,
        by: Generator,
    },
    /// Requests with bodies, which a backend gets.
    SiteUploads {
        connections: u16,
        size: u32,
        by: Generator,
    },
    /// Files, on connections that stay.
    SiteFiles {
        connections: u16,
        size: u32,
        tls: bool,
        by: Generator,
    },
    /// 301s by HTTP/2, so many streams at a time on each connection.
    SiteStreams {
        connections: u16,
        streams: u16,
        by: Generator,
    },
    /// Answers of 1 KiB from a backend while large bodies go both ways; what is counted are the
    /// answers.
    SiteMixed {
        large: u16,
        small: u16,
    },
}

/// What makes the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Generator {
    /// The loads of this program.
    Own,
    /// `openssl s_time`, one connection at a time.
    STime,
    Hey,
    Wrk,
    /// HTTP/2.
    H2load,
}

/// What a contender is configured for; each has a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kit {
    Plain,
    /// Every port speaks TLS.
    Tls,
    /// The same with the buffers that are best for bulk, where they are set for a whole process.
    TlsBulk,
    /// A site: a backend, files and redirects, on one port plain and on one with TLS.
    Site,
}

impl Workload {
    pub(crate) fn kit(self) -> Kit {
        match self {
            Workload::TlsUp { .. }
            | Workload::TlsDown { .. }
            | Workload::WssUp { .. }
            | Workload::WssDown { .. } => Kit::TlsBulk,
            Workload::TlsRoundTrips { .. }
            | Workload::Handshakes { .. }
            | Workload::Resumptions { .. }
            | Workload::TlsRedirects { .. } => Kit::Tls,
            Workload::SiteAnswers { .. }
            | Workload::SiteUploads { .. }
            | Workload::SiteFiles { .. }
            | Workload::SiteStreams { .. }
            | Workload::SiteMixed { .. } => Kit::Site,
            _ => Kit::Plain,
        }
    }

    /// What makes its load.
    pub(crate) fn generator(self) -> Generator {
        match self {
            Workload::Handshakes { by, .. }
            | Workload::Resumptions { by, .. }
            | Workload::TlsRedirects { by, .. }
            | Workload::SiteAnswers { by, .. }
            | Workload::SiteUploads { by, .. }
            | Workload::SiteFiles { by, .. }
            | Workload::SiteStreams { by, .. } => by,
            _ => Generator::Own,
        }
    }
}

impl Workload {
    /// Small messages whose latency is to be the proxy's: the servers of bulk give way to them.
    pub(crate) fn is_mixed(self) -> bool {
        matches!(self, Workload::Mixed { .. } | Workload::SiteMixed { .. })
    }
}

impl Rest {
    pub(crate) const ALL: [Rest; 3] = [Rest::Pairs, Rest::KeepAlive, Rest::Tls];

    pub(crate) fn kit(self) -> Kit {
        match self {
            Rest::Pairs | Rest::KeepAlive => Kit::Plain,
            Rest::Tls => Kit::Tls,
        }
    }
}

/// One contender at one workload in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) workload: Workload,
    pub(crate) contender: Contender,
    /// From 1. Samples of one round were taken right after each other.
    pub(crate) round: u16,
    /// Units a second: bytes, round trips, connections or requests.
    pub(crate) rate: f64,
    /// CPU seconds of the proxy a unit, all its threads; none without a proxy.
    pub(crate) cost: Option<f64>,
    /// Share of one CPU that the proxy used. Well under 1, the load was the limit and not it.
    pub(crate) busy: Option<f64>,
    /// Share of one CPU that load and servers used.
    pub(crate) load_busy: f64,
    pub(crate) latency: Option<Latency>,
    /// Bytes a second of the bulk beside small messages.
    pub(crate) beside: Option<f64>,
}

/// Quantiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

/// What connections at rest cost a contender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Weighing {
    pub(crate) contender: Contender,
    pub(crate) rest: Rest,
    /// Held at the time.
    pub(crate) connections: u16,
    /// After the last step all were closed, and the process weighed again.
    pub(crate) closed: bool,
    /// Anonymous memory in RAM, in bytes: heap and stacks.
    pub(crate) anonymous: u64,
    pub(crate) rss: u64,
    pub(crate) descriptors: u64,
}

/// How connections rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Rest {
    /// Pairs at L4 that have carried one byte.
    Pairs,
    /// HTTP connections that have had one answer.
    KeepAlive,
    /// Pairs with TLS on the client's side that have carried one byte.
    Tls,
}

/// How long-lived flows are spread over workers, in one trial.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Balance {
    pub(crate) flows: u16,
    /// CPU seconds of each worker's thread while all flows do the same.
    pub(crate) cpu_seconds: Vec<f64>,
}
