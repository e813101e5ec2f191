//! `[[listener]]`

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::patterns::{
    ERROR_STATUS, HEAD_SIZE, KEEPALIVE, LISTEN, LISTEN_UDP, NETWORK, SOME_FIELD_VALUE,
};
use super::{AccessLog, FieldRules, Host, TlsRule};
use crate::config::contract::When;
use crate::config::contract::rules::has;
use crate::config::foreign;
use crate::config::types::{Entries, Field, List, NAME, Off, OneOrMany, Place, Size, Tables, Time};
use crate::sys::{Keepalive, SocketOptions};

/// What ringgate listens on, and what it does with the bytes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-foreign" = {
    "address": "listen",
    "bind": "listen",
    "port": "listen",
    "mode": "protocol",
    "maxconn": "max_connections",
    "route": "write [[listener.host.route]], below a [[listener.host]]",
    "location": "write [[listener.host.route]], below a [[listener.host]]",
    "server_name": "write `names`: in [[listener.host]] for a site, in [[listener.tls]] for TLS",
    "server_names": "write `names`: in [[listener.host]] for a site, in [[listener.tls]] for TLS",
    "proxy_pass": "write cluster = \"NAME\", with the address in the `endpoints` of [cluster.NAME]",
    "ssl": "add [[listener.tls]] with `certificate` and `key`",
    "ssl_certificate": "write `certificate`, in [[listener.tls]]",
    "ssl_certificate_key": "write `key`, in [[listener.tls]]",
    "ssl_client_certificate": "write `client_ca`, in [[listener.tls]]",
    "ssl_verify_client": "write `client_ca`, in [[listener.tls]]",
    "ssl_protocols": "write `min_version`, in [tls] or in [[listener.tls]]",
    "ssl_session_ticket_key": "write `ticket_keys`, in [tls]",
    "ssl_preread": "write protocol = \"tls\", and add [[listener.tls]] with `cluster`",
    "server_tokens": "server_header",
    "error_page": "error_pages",
    "set_real_ip_from": "trusted_proxies",
    "add_header": "response_fields",
}))]
#[schemars(extend(
    "x-rules" = rules(),
    "x-planned" = [
        "proxy_protocol", "proxy_protocol_from", "allow", "deny", "max_connections_per_ip",
        "max_rate", "max_rate_per_connection", "quota", "congestion", "mark", "fallback",
    ],
))]
pub(in crate::config) struct Listener {
    #[schemars(skip)]
    pub(in crate::config) place: Place,
    /// The name of the listener in records and messages. It is unique, and consists of 1 to 64
    /// letters, digits, `-`, `_` and dots.
    #[schemars(
        regex(pattern = NAME), example = &"web",
        extend("x-required" = "the name identifies the listener in records and messages")
    )]
    pub(in crate::config) name: Field<String>,
    /// One address or a list: `IP:port`, `[IPv6]:port`, a range of at most 1024 ports, or
    /// `unix:/path` (not for udp). For port 0 the kernel chooses the port, and a message at the
    /// start names it. `0.0.0.0` is every IPv4 address of the machine, `[::]` every IPv6 address
    /// and no IPv4 address. A Unix socket gets the permissions that the umask leaves.
    #[schemars(
        regex(pattern = LISTEN), inner(regex(pattern = LISTEN)),
        example = ["0.0.0.0:80", "[::]:80"], example = "0.0.0.0:12345-12399",
        example = "unix:/run/ringgate/web.sock",
        extend(
            "x-empty" = "add at least one address: listen = \"0.0.0.0:80\"",
            "x-required" = "write the address to listen on: listen = \"0.0.0.0:80\", or a list of \
                            addresses"
        )
    )]
    pub(in crate::config) listen: Field<OneOrMany<String>>,
    /// What the listener does with the bytes.
    #[schemars(extend("x-required" = "\"tcp\" relays every byte to a cluster, \"http\" serves a \
        site, \"tls\" routes by server name, \"udp\" relays datagrams"))]
    pub(in crate::config) protocol: Field<ProtocolWord>,
    /// The name of the cluster that all bytes or datagrams go to.
    #[schemars(regex(pattern = NAME), example = &"shadowsocks", extend(
        "x-required" = "add cluster = \"NAME\": the [cluster.NAME] that its traffic goes to",
        "x-when" = [When::is("protocol", &["tcp", "udp"], &[
            ("http", "in an http listener each route names its cluster: move it to a \
                      [[listener.host.route]]"),
            ("tls", "move it to a [[listener.tls]]; a rule without `names` matches every \
                     connection"),
        ])]
    ))]
    pub(in crate::config) cluster: Field<String>,
    /// Where the records of this listener go, in place of the table at the top.
    #[schemars(extend("x-inherits" = true))]
    pub(in crate::config) access_log: Field<AccessLog>,
    /// The length of the accept queue of each listening socket (listen(2)). The kernel limits it to
    /// `net.core.somaxconn`.
    #[schemars(range(min = 1, max = 65535), example = 4096, extend(
        "default" = 4096, "x-unit" = "connections", "x-when" = connections(NO_CONNECTIONS),
        "x-advice" = "the value is the length of the accept queue"
    ))]
    pub(in crate::config) backlog: Field<u64>,
    /// TCP_NODELAY on both sides (tcp(7)): small writes are sent at once.
    #[schemars(extend("default" = true, "x-when" = connections(NO_CONNECTIONS)))]
    pub(in crate::config) nodelay: Field<bool>,
    /// TCP keepalive on both sides: how long a connection is silent before the kernel probes the
    /// peer (TCP_KEEPIDLE, tcp(7)), and the time between two probes. After
    /// `net.ipv4.tcp_keepalive_probes` probes without an answer (9 by default) the connection ends.
    /// On the upstream side it starts within 26 s of the connect.
    #[schemars(regex(pattern = KEEPALIVE), example = "30s", example = &"off", extend(
        "default" = "30s", "x-min" = "1s", "x-max" = "32767s", "x-step" = "1s",
        "x-advice" = "the kernel accepts whole seconds, at most \"32767s\"",
        "x-when" = connections(NO_CONNECTIONS)
    ))]
    pub(in crate::config) keepalive: Field<Off>,
    /// When the peer has not acknowledged what was sent to it for this long, or has not made room
    /// for more, the kernel ends the connection (TCP_USER_TIMEOUT, tcp(7)). It applies to both
    /// sides. It also takes the place of the number of keepalive probes: an idle connection ends
    /// when a probe was not answered and the peer has been silent for this long. Take several times
    /// `keepalive`, so that one lost probe ends nothing. Without the key the kernel sends again for
    /// about 15 minutes (`net.ipv4.tcp_retries2`), and waits for room without limit.
    #[schemars(example = "2m", extend(
        "x-min" = "1ms", "x-max" = "24d", "x-advice" = "the kernel accepts at most \"24d\"",
        "x-when" = connections(NO_CONNECTIONS)
    ))]
    pub(in crate::config) user_timeout: Field<Time>,
    /// TCP Fast Open on the listening sockets (tcp(7)).
    #[schemars(extend("default" = false, "x-when" = connections(NO_CONNECTIONS)))]
    pub(in crate::config) fast_open: Field<bool>,
    /// How many connections may be open at one time, of all workers together. Those beyond it are
    /// accepted and reset at once. Without the key there is no limit.
    #[schemars(range(min = 1, max = 2_147_483_647), example = 100_000, extend(
        "x-unit" = "connections", "x-advice" = "leave the key out for no limit",
        "x-when" = connections("remove it; `max_sessions` limits the number of clients")
    ))]
    pub(in crate::config) max_connections: Field<u64>,
    /// When neither side has sent a byte for this long, the connection or session ends. For udp the
    /// default is `"5m"`, and a session without a reply ends after 30 s if that is less.
    #[schemars(example = "1h", extend(
        "default" = "1h",
        "x-defaults" = [[When::is("protocol", &["udp"], &[]), "5m"]]
    ))]
    pub(in crate::config) idle_timeout: Field<Time>,
    /// When one side has ended and the other has sent nothing for this long, the connection ends.
    #[schemars(example = "1m", extend(
        "default" = "1m", "x-when" = connections(NO_CONNECTIONS)
    ))]
    pub(in crate::config) half_closed_timeout: Field<Time>,
    /// How many sessions there may be at one time. The workers share them out evenly. A session is
    /// one client address and port; it takes one descriptor and one local port. A new session takes
    /// the place of an old one when the limit is reached.
    #[schemars(range(min = 1, max = 1_000_000), example = 65536, extend(
        "default" = 65536, "x-unit" = "sessions",
        "x-advice" = "each session takes a descriptor and a local port",
        "x-when" = [When::is("protocol", &["udp"], &[
            ("", "remove it; `max_connections` limits connections"),
        ])]
    ))]
    pub(in crate::config) max_sessions: Field<u64>,
    /// How long a request head may take, counted from its first byte. A new connection must send
    /// its first head within this time, too. Then the response is a 408.
    #[schemars(example = "10s", extend("default" = "10s", "x-when" = http(NO_REQUESTS)))]
    pub(in crate::config) head_timeout: Field<Time>,
    /// How long a connection may be silent between requests, and how long a client may take no part
    /// of its responses.
    #[schemars(example = "75s", extend("default" = "75s", "x-when" = http(NO_REQUESTS)))]
    pub(in crate::config) keepalive_timeout: Field<Time>,
    /// The largest request head, with its request line and all fields.
    #[schemars(regex(pattern = HEAD_SIZE), example = "16KiB", extend(
        "default" = "16KiB", "x-min" = "1KiB", "x-max" = "64KiB", "x-when" = http(NO_REQUESTS)
    ))]
    pub(in crate::config) max_head: Field<Size>,
    /// The largest number of fields in a request head.
    #[schemars(range(min = 1, max = 256), example = 100, extend(
        "default" = 100, "x-unit" = "fields",
        "x-when" = http(NO_REQUESTS)
    ))]
    pub(in crate::config) max_headers: Field<u64>,
    /// The Server field of every response. Left out: responses that are made here have none, and
    /// those of a cluster keep theirs.
    #[schemars(
        regex(pattern = SOME_FIELD_VALUE), example = &"nginx",
        extend("x-when" = http(NO_REQUESTS))
    )]
    pub(in crate::config) server_header: Field<String>,
    /// Files with the bodies of responses that ringgate itself makes, by status, 400 to 599. The
    /// extension of a file says its type: `.html`, `.txt`, `.json`, `.xml` or `.svg`. They are read
    /// once, together with the configuration, and have at most 1 MiB each. A relative path starts
    /// at the directory of the configuration.
    #[schemars(example = json!({ "404": "pages/404.html", "502": "pages/50x.html" }), extend(
        "propertyNames" = json!({ "pattern": ERROR_STATUS }),
        "x-when" = http(NO_REQUESTS),
        "x-empty" = "leave `error_pages` out to have a line of text each",
        "x-advice" = "write error_pages = { 404 = \"404.html\" }: files by status"
    ))]
    pub(in crate::config) error_pages: Field<Entries<String>>,
    /// The addresses of proxies in front of this listener, and networks of them: `IP` or
    /// `IP/prefix`. Only what they say in X-Forwarded-For, -Proto and -Host is believed and passed
    /// on to clusters; from everyone else these fields are replaced.
    #[schemars(
        inner(regex(pattern = NETWORK)),
        example = ["10.0.0.0/8", "2001:db8::1"],
        extend(
            "uniqueItems" = true, "x-when" = http(NO_REQUESTS),
            "x-empty" = "leave `trusted_proxies` out to trust none"
        )
    )]
    pub(in crate::config) trusted_proxies: Field<List<String>>,
    /// Header fields that are changed in every response of the listener.
    #[schemars(extend("x-when" = http(NO_REQUESTS)))]
    pub(in crate::config) response_fields: Field<Box<FieldRules>>,
    /// The hosts of an http listener. Without a host that has no names, other hosts get a 404.
    #[schemars(extend(
        "x-required" = "add one with a [[listener.host.route]]; without `names` it matches every \
                        host",
        "x-when" = http([
            ("tcp", "a tcp listener relays every byte to its cluster and has no hosts"),
            ("tls", "a tls listener routes by server name and has no hosts"),
            ("udp", "a udp listener relays every datagram to its cluster and has no hosts"),
        ])
    ))]
    pub(in crate::config) host: Tables<Host>,
    /// How long the TLS handshake of a client may take, or its ClientHello where TLS is passed on.
    /// It is counted from the accept; on an http listener from the first byte, which has
    /// `head_timeout`.
    #[schemars(example = "5s", extend("default" = "5s", "x-when" = [
        When::is("protocol", &["http", "tls"], &NO_REQUESTS),
        When::given("tls", "add [[listener.tls]], or remove it"),
    ]))]
    pub(in crate::config) hello_timeout: Field<Time>,
    /// Rules for connections that begin with a TLS handshake. A tls listener needs at least one. On
    /// an http listener, connections whose first byte is 0x16 go by these rules; without rules such
    /// bytes are an invalid request. Other connections there get the routes without TLS: a first
    /// route with `redirect = { scheme = "https" }` leads them to TLS.
    #[schemars(extend("x-when" = handshakes([
        ("tcp", "write protocol = \"tls\", and move `cluster` into the rule: a tcp listener relays \
                 every byte as it is"),
        ("udp", "a udp listener relays every datagram to its cluster and has no server names"),
    ])))]
    pub(in crate::config) tls: Tables<TlsRule>,
}

impl Listener {
    pub(in crate::config) fn socket_options(&self) -> SocketOptions {
        SocketOptions {
            backlog: i32::try_from(self.backlog.get()).unwrap_or(i32::MAX),
            nodelay: self.nodelay.get(),
            keepalive: self.keepalive.get().0.map(|idle| Keepalive { idle }),
            user_timeout: self.user_timeout.as_ref().map(|time| time.0),
            fast_open: self.fast_open.get(),
        }
    }
}

/// What a listener does with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(extend("x-foreign" = foreign::protocols()))]
pub(in crate::config) enum ProtocolWord {
    /// Relays every byte to a cluster.
    Tcp,
    /// Serves a site over HTTP/1.1 and HTTP/2, with tunnels behind some of its paths.
    Http,
    /// Routes TLS connections by their server name (SNI), passed on unchanged or decrypted.
    Tls,
    /// Relays every datagram to a cluster.
    Udp,
}

/// Rules about `protocol` that are not about single keys.
fn rules() -> [Value; 2] {
    let addresses = json!({ "pattern": LISTEN_UDP, "items": { "pattern": LISTEN_UDP } });
    [
        json!({
            "if": has("protocol", ["udp"]),
            "then": { "properties": { "listen": addresses } },
        }),
        json!({
            "if": has("protocol", ["tls"]),
            "then": { "required": ["tls"], "properties": { "tls": { "minItems": 1 } } },
        }),
    ]
}

const NO_CONNECTIONS: &str = "remove it; UDP has no connections";

const NO_REQUESTS: [(&str, &str); 3] = [
    ("tcp", "remove it; a tcp listener does not parse what it relays"),
    ("tls", "remove it; a tls listener does not decrypt, so it sees no requests"),
    ("udp", "remove it; a udp listener does not parse what it relays"),
];

/// The key is about connections.
fn connections(note: &str) -> [When; 1] {
    [When::is("protocol", &["tcp", "http", "tls"], &[("", note)])]
}

/// The key is about requests.
fn http(notes: [(&str, &str); 3]) -> [When; 1] {
    [When::is("protocol", &["http"], &notes)]
}

/// The key is about TLS handshakes.
fn handshakes(notes: [(&str, &str); 2]) -> [When; 1] {
    [When::is("protocol", &["http", "tls"], &notes)]
}
