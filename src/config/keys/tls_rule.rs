//! `[[listener.tls]]`

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::patterns::HOST_NAME;
use crate::config::contract::rules::{has, none_of};
use crate::config::types::{Field, List, NAME, Place};

/// A rule for connections that begin with a TLS handshake. The most specific name wins: exact, then
/// the longest `*.suffix`, then the longest `prefix.*`, then a rule without names. Among equal
/// names the first rule wins that matches in all. What no rule matches, and what is no ClientHello,
/// is reset.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-foreign" = {
    "sni": "names",
    "server_names": "names",
    "server_name": "names",
}))]
#[schemars(extend(
    "x-rules" = [json!({ "if": has("simple_obfs", [true]), "then": none_of(&["alpn"]) })],
    "x-planned" = ["certificate", "key", "acme", "client_ca"],
))]
pub(in crate::config) struct TlsRule {
    #[schemars(skip)]
    pub(in crate::config) place: Place,
    /// Server names (SNI): a name, `"*.example.com"` for all its subdomains, or `"example.*"`. Left
    /// out: every other name, and connections without a name.
    #[schemars(
        inner(regex(pattern = HOST_NAME)),
        example = ["www.example.com", "*.example.org"],
        extend(
            "uniqueItems" = true,
            "x-empty" = "no connection can match the rule; leave `names` out to match \
                         every other name"
        )
    )]
    pub(in crate::config) names: Field<List<String>>,
    /// Protocol names of which the client must offer at least one (ALPN, RFC 7301). Each has 1 to
    /// 255 bytes. Left out: no condition.
    #[schemars(inner(length(min = 1, max = 255)), example = ["h2", "http/1.1"], extend(
        "x-empty" = "no connection can match the rule; leave `alpn` out to match every protocol"
    ))]
    pub(in crate::config) alpn: Field<List<String>>,
    /// The name of the cluster that the connections go to.
    #[schemars(regex(pattern = NAME), example = &"site", extend(
        "x-required" = "name the [cluster.NAME] that these connections go to"
    ))]
    pub(in crate::config) cluster: Field<String>,
    /// Whether the rule matches only handshakes of simple-obfs in its tls mode. These end here, and
    /// the cluster gets their payload.
    #[schemars(extend("default" = false))]
    pub(in crate::config) simple_obfs: Field<bool>,
}
