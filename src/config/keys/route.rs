//! `[[listener.host.route]]`

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::patterns::PATH;
use super::{Redirect, Respond};
use crate::config::contract::When;
use crate::config::contract::rules::one_of;
use crate::config::types::{Field, List, NAME, Place, Time};

/// A route: the requests that it matches by `path` or `prefix`, and one action: `cluster` (with
/// `upgrade`), `redirect` or `respond`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-foreign" = {
    "match": "path",
    "location": "write `prefix`, or `path` for `location =`",
    "proxy_pass": "write cluster = \"NAME\", with the address in the `endpoints` of [cluster.NAME]",
    "return": "redirect",
    "upgrade_configs": "upgrade",
}))]
#[schemars(extend(
    "x-rules" = [
        one_of(&["path", "prefix"]),
        one_of(&["cluster", "redirect", "respond"]),
        json!({
            "if": {
                "required": ["redirect"],
                "properties": { "redirect": { "required": ["prefix"] } },
            },
            "then": { "required": ["prefix"] },
        }),
    ],
    "x-planned" = [
        "regex", "method", "headers", "query", "clusters", "rewrite", "request_fields",
        "response_fields", "timeout", "max_body", "root", "index", "not_found", "cache_control",
        "precompressed",
    ]
))]
pub(in crate::config) struct Route {
    #[schemars(skip)]
    pub(in crate::config) place: Place,
    /// The whole path, compared as it was sent: not decoded, not normalised, without the query.
    #[schemars(regex(pattern = PATH), example = "/stream")]
    pub(in crate::config) path: Field<String>,
    /// The start of the path, compared as it was sent. A prefix that forwards to a cluster matches
    /// no path with a dot segment (`.`, `..`, also encoded), which the cluster could resolve to a
    /// path outside of the prefix.
    #[schemars(regex(pattern = PATH), example = "/")]
    pub(in crate::config) prefix: Field<String>,
    /// The route matches only requests that upgrade to this protocol; others go on to the next
    /// route.
    #[schemars(extend("x-when" = [
        When::given("cluster", "name the [cluster.NAME] that upgrade requests go to, or remove it"),
    ]))]
    pub(in crate::config) upgrade: Field<UpgradeWord>,
    /// The name of the cluster that upgrade requests go to.
    #[schemars(regex(pattern = NAME), example = &"shadowsocks", extend("x-when" = [When::given(
        "upgrade",
        "add upgrade = \"websocket\": this version forwards only upgrade requests"
    )]))]
    pub(in crate::config) cluster: Field<String>,
    /// Who answers the handshake.
    #[schemars(extend("default" = "forward", "x-when" = [with_cluster()]))]
    pub(in crate::config) tunnel: Field<TunnelWord>,
    /// Which handshakes the route matches. Others go on to the next route.
    #[schemars(extend(
        "default" = ["obfs", "websocket"], "uniqueItems" = true,
        "x-empty" = "no request can match the route; leave `accept` out to match both kinds",
        "x-when" = [
        with_cluster(),
        When::is("tunnel", &["terminate"], &[(
            "",
            "add tunnel = \"terminate\", or remove it: a tunnel that is forwarded leaves the \
             handshake to the cluster",
        )]),
    ]))]
    pub(in crate::config) accept: Field<List<HandshakeWord>>,
    /// Whether bytes behind the request head are forwarded before the 101 response. A stock
    /// obfs-server needs it. To a server that does not upgrade, such bytes are a second request:
    /// write `true` only for a cluster of obfs-servers.
    #[schemars(extend("default" = false, "x-when" = [
        with_cluster(),
        When::is("tunnel", &["forward"], &[(
            "",
            "remove it; a tunnel that is terminated here never delays payload",
        )]),
    ]))]
    pub(in crate::config) early_data: Field<bool>,
    /// When neither side of a tunnel has sent a byte for this long, it ends. The default is the
    /// listener's `idle_timeout`.
    #[schemars(example = "10m", extend("x-inherits" = true, "x-when" = [with_cluster()]))]
    pub(in crate::config) idle_timeout: Field<Time>,
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

/// The key is about tunnels.
fn with_cluster() -> When {
    When::given("cluster", "remove it; a redirect or a response has no tunnel")
}
