//! `[[listener.host.route]]`

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::patterns::{FILE_NAME, FILE_PATH, PATH, SOME_FIELD_VALUE};
use super::{FieldRules, Redirect, Respond, Rewrite};
use crate::config::contract::When;
use crate::config::contract::rules::one_of;
use crate::config::types::{Field, List, NAME, Place, SizeOrOff, Time};

/// A route: the requests that it matches by `path` or `prefix`, and one action: `cluster` (with
/// `upgrade` for tunnels), `root`, `redirect` or `respond`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-foreign" = {
    "match": "path",
    "location": "write `prefix`, or `path` for `location =`",
    "proxy_pass": "write cluster = \"NAME\", with the address in the `endpoints` of [cluster.NAME]",
    "reverse_proxy": "cluster",
    "return": "redirect",
    "upgrade_configs": "upgrade",
    "prefix_rewrite": "rewrite",
    "host_rewrite_literal": "rewrite",
    "proxy_set_header": "request_fields",
    "add_header": "response_fields",
    "proxy_read_timeout": "timeout",
    "client_max_body_size": "max_body",
    "alias": "root",
    "file_server": "root",
    "try_files": "fallback",
    "error_page": "not_found",
    "expires": "cache_control",
}))]
#[schemars(extend(
    "x-rules" = [
        one_of(&["path", "prefix"]),
        one_of(&["cluster", "root", "redirect", "respond"]),
        replaces_prefix("redirect"),
        replaces_prefix("rewrite"),
    ],
    "x-planned" = ["regex", "method", "headers", "query", "clusters"]
))]
pub(in crate::config) struct Route {
    #[schemars(skip)]
    pub(in crate::config) place: Place,
    /// The whole path, without the query. A percent-encoded byte is the same as the byte itself,
    /// apart from an encoded slash. Nothing else is normalised.
    #[schemars(regex(pattern = PATH), example = "/stream")]
    pub(in crate::config) path: Field<String>,
    /// The start of the path, compared as `path` is. A prefix that forwards to a cluster matches no
    /// path with a dot segment (`.`, `..`, also encoded), which the cluster could resolve to a path
    /// outside of the prefix.
    #[schemars(regex(pattern = PATH), example = "/")]
    pub(in crate::config) prefix: Field<String>,
    /// The route matches only requests that upgrade to this protocol; others go on to the next
    /// route.
    #[schemars(extend("x-when" = [
        When::given("cluster", "name the [cluster.NAME] that upgrade requests go to, or remove it"),
    ]))]
    pub(in crate::config) upgrade: Field<UpgradeWord>,
    /// The name of the cluster that requests go to. Without `upgrade` these are all requests,
    /// WebSocket handshakes included.
    #[schemars(regex(pattern = NAME), example = &"shadowsocks")]
    pub(in crate::config) cluster: Field<String>,
    /// Who answers the handshake.
    #[schemars(extend("default" = "forward", "x-when" = tunnels()))]
    pub(in crate::config) tunnel: Field<TunnelWord>,
    /// Which handshakes the route matches. Others go on to the next route.
    #[schemars(extend(
        "default" = ["obfs", "websocket"], "uniqueItems" = true,
        "x-empty" = "no request can match the route; leave `accept` out to match both kinds",
        "x-when" = with_tunnel("terminate",
            "add tunnel = \"terminate\", or remove it: a tunnel that is forwarded leaves the \
             handshake to the cluster")
    ))]
    pub(in crate::config) accept: Field<List<HandshakeWord>>,
    /// Whether bytes behind the request head are forwarded before the 101 response. A stock
    /// obfs-server needs it. To a server that does not upgrade, such bytes are a second request:
    /// write `true` only for a cluster of obfs-servers.
    #[schemars(extend("default" = false, "x-when" = with_tunnel(
        "forward", "remove it; a tunnel that is terminated here never delays payload"
    )))]
    pub(in crate::config) early_data: Field<bool>,
    /// When neither side has sent a byte for this long, the tunnel or the exchange with the cluster
    /// ends. The default of a tunnel is the listener's `idle_timeout`. Without `upgrade` it is
    /// `"60s"`, and a WebSocket on the route has the listener's `idle_timeout`.
    #[schemars(example = "10m", extend(
        "x-inherits" = true, "x-defaults" = [[When::absent("upgrade", ""), "60s"]],
        "x-when" = [with_cluster()]
    ))]
    pub(in crate::config) idle_timeout: Field<Time>,
    /// What changes in the target of a request before the cluster gets it.
    #[schemars(extend("x-when" = requests()))]
    pub(in crate::config) rewrite: Field<Box<Rewrite>>,
    /// Header fields that are changed in requests before the cluster gets them.
    #[schemars(extend("x-when" = requests()))]
    pub(in crate::config) request_fields: Field<Box<FieldRules>>,
    /// How long the cluster may take for the head of its response, counted from when the request
    /// was sent. Then the response is a 504.
    #[schemars(example = "5m", extend("default" = "60s", "x-when" = requests()))]
    pub(in crate::config) timeout: Field<Time>,
    /// The largest body of a request. If it is larger, the response is a 413. Bodies are passed on
    /// as they arrive and never stored, so a limit protects the cluster alone.
    #[schemars(example = "64MiB", extend(
        "default" = "off", "x-when" = requests()
    ))]
    pub(in crate::config) max_body: Field<SizeOrOff>,
    /// A directory of files. The whole path of the request is looked up below it, also the part
    /// that `prefix` matches: with prefix = "/img/" the file of `/img/a.png` is `img/a.png` in it.
    /// It must exist. A relative path starts at the directory of the configuration.
    #[schemars(example = "/var/www/example")]
    pub(in crate::config) root: Field<String>,
    /// The names of files that stand for their directory, the preferred one first.
    #[schemars(
        inner(regex(pattern = FILE_NAME)),
        example = ["index.html", "index.htm"],
        extend(
            "default" = ["index.html"], "uniqueItems" = true, "x-when" = files(),
            "x-empty" = "name at least one file: index = [\"index.html\"]"
        )
    )]
    pub(in crate::config) index: Field<List<String>>,
    /// The page for what is not found: a file below `root`, served with status 404. Left out: the
    /// page of the listener, or a line of text.
    #[schemars(regex(pattern = FILE_PATH), example = "/404.html", extend("x-when" = files()))]
    pub(in crate::config) not_found: Field<String>,
    /// A file below `root` that is served with status 200 in place of one that does not exist.
    /// Applications of one page need it, because they interpret the path in the browser.
    #[schemars(regex(pattern = FILE_PATH), example = "/index.html", extend("x-when" = [
        with_root(),
        When::absent("not_found", "remove one of them: with `fallback` everything is found"),
    ]))]
    pub(in crate::config) fallback: Field<String>,
    /// The Cache-Control field of the responses. Left out: none, and browsers guess.
    #[schemars(
        regex(pattern = SOME_FIELD_VALUE),
        example = "public, max-age=3600",
        extend("x-when" = files())
    )]
    pub(in crate::config) cache_control: Field<String>,
    /// Codings of files that stand beside the plain ones under a longer name, such as `app.js.br`
    /// beside `app.js`. A client that accepts one of them gets that file. Among codings with the
    /// same weight the first one of this list is taken.
    #[schemars(example = ["br", "gzip"], extend(
        "uniqueItems" = true, "x-when" = files(),
        "x-empty" = "leave `precompressed` out to serve the plain files alone"
    ))]
    pub(in crate::config) precompressed: Field<List<Coding>>,
    /// Whether files and directories are served whose names start with a dot. `/.well-known/` is
    /// always served.
    #[schemars(extend("default" = false, "x-when" = files()))]
    pub(in crate::config) dot_files: Field<bool>,
    /// Whether symbolic links are followed. Those that lead out of `root` never are.
    #[schemars(extend("default" = false, "x-when" = files()))]
    pub(in crate::config) symlinks: Field<bool>,
    /// Header fields that are changed in the responses of the route, before those of the listener's
    /// `response_fields`.
    #[schemars(extend("x-when" = [
        When::absent("upgrade", "remove it; the response of a tunnel is a part of its handshake"),
    ]))]
    pub(in crate::config) response_fields: Field<Box<FieldRules>>,
    /// The response is a redirect to another URL.
    pub(in crate::config) redirect: Field<Box<Redirect>>,
    /// The response is made here.
    pub(in crate::config) respond: Field<Box<Respond>>,
}

/// `route.upgrade`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum UpgradeWord {
    /// `Upgrade: websocket`, which simple-obfs in its http mode sends, too.
    Websocket,
}

/// `route.tunnel`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum TunnelWord {
    /// The cluster: the request goes on to it.
    Forward,
    /// ringgate. The cluster gets the payload alone, without the disguise.
    Terminate,
}

/// `route.accept`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(extend("x-planned" = ["httpupgrade"]))]
pub(in crate::config) enum HandshakeWord {
    /// simple-obfs in its http mode.
    Obfs,
    /// WebSocket (RFC 6455).
    Websocket,
}

/// A coding of files that stand beside the plain ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[schemars(extend("x-foreign" = { "brotli": "write \"br\"", "gz": "write \"gzip\"" }))]
pub enum Coding {
    /// Brotli (RFC 7932), in files that end in `.br`.
    #[serde(rename = "br")]
    Brotli,
    /// Zstandard (RFC 8878), in files that end in `.zst`.
    #[serde(rename = "zstd")]
    Zstandard,
    /// Gzip (RFC 1952), in files that end in `.gz`.
    #[serde(rename = "gzip")]
    Gzip,
}

/// The action goes to a cluster.
fn with_cluster() -> When {
    When::given("cluster", "remove it; it is about what goes to a cluster")
}

/// The action serves files.
fn with_root() -> When {
    When::given("root", "add `root` with the directory of the files, or remove it")
}

/// The key is about files.
fn files() -> [When; 1] {
    [with_root()]
}

/// The key is about requests that go to a cluster.
fn requests() -> [When; 2] {
    let note = "remove one of them: what upgrades is passed on as it is";
    [with_cluster(), When::absent("upgrade", note)]
}

/// The key is about tunnels.
fn tunnels() -> [When; 2] {
    [with_cluster(), When::given("upgrade", "add upgrade = \"websocket\", or remove it")]
}

/// The key is about tunnels of this kind.
fn with_tunnel(kind: &str, note: &str) -> Vec<When> {
    let kind = When::is("tunnel", &[kind], &[("", note)]);
    tunnels().into_iter().chain([kind]).collect()
}

/// An action that replaces what the prefix matched needs the prefix.
fn replaces_prefix(action: &str) -> Value {
    json!({
        "if": { "required": [action], "properties": { action: { "required": ["prefix"] } } },
        "then": { "required": ["prefix"] },
    })
}
