//! `[[listener.tls]]`

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::TlsVersion;
use super::patterns::SERVER_NAME;
use crate::config::contract::When;
use crate::config::contract::rules::{has, none_of, some_of};
use crate::config::types::{Field, List, NAME, OneOrMany, Place};

/// A rule for connections that begin with a TLS handshake. With `certificate` or `acme` TLS ends
/// here; without them the bytes are passed on unchanged. The most specific name wins: exact, then
/// the longest `*.suffix`, then the longest `prefix.*`, then a rule without names. Among equal
/// names the first rule wins that matches in all. What no rule matches gets an unrecognized_name
/// alert if TLS ends in one of the rules; otherwise it is reset, as what is no ClientHello is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-foreign" = {
    "sni": "names",
    "server_names": "names",
    "server_name": "names",
    "cert": "certificate",
    "certs": "certificate",
    "ssl_certificate": "certificate",
    "ssl_certificate_key": "key",
    "certificate_key": "key",
    "private_key": "key",
    "privkey": "key",
    "fullchain": "certificate",
    "chain": "add these certificates to the file of `certificate`, behind the first one",
    "ca": "client_ca",
    "cacert": "client_ca",
    "ssl_verify_client": "client_ca",
    "ssl_protocols": "min_version",
    "ssl_session_ticket_key": "write `ticket_keys`, in [tls]",
    "client_auth": "client_ca",
    "ssl_client_certificate": "client_ca",
}))]
#[schemars(extend(
    "x-rules" = [
        json!({
            "if": has("simple_obfs", [true]),
            "then": none_of(&["alpn", "certificate", "client_ca", "min_version"]),
        }),
        json!({
            "if": some_of(&["client_ca", "min_version"]),
            "then": ended(),
        }),
        json!({ "if": { "required": ["cluster"] }, "else": ended() }),
        json!({ "if": { "required": ["certificate"] }, "then": { "required": ["key"] } }),
        json!({ "if": has("acme", [true]), "then": {
            "required": ["names"],
            "properties": {
                "names": { "items": { "not": { "pattern": r"\*|:" } } },
                "certificate": false,
                "simple_obfs": { "enum": [false] },
            },
        } }),
    ],
))]
pub(in crate::config) struct TlsRule {
    #[schemars(skip)]
    pub(in crate::config) place: Place,
    /// Server names (SNI): a name, `"*.example.com"` for all its subdomains, or `"example.*"`. Left
    /// out: every other name, and connections without a name, as to an IP address.
    #[schemars(
        inner(regex(pattern = SERVER_NAME)),
        example = ["www.example.com", "*.example.org"],
        extend(
            "uniqueItems" = true,
            "x-empty" = "no connection can match the rule; leave `names` out to match \
                         every other name"
        )
    )]
    pub(in crate::config) names: Field<List<String>>,
    /// A file with the certificate of the server, followed by the certificates of the authorities
    /// between it and a root (PEM). Then TLS ends here. A list has one file for each kind of key,
    /// for example one for ECDSA and one for RSA; a client gets the first one that it accepts,
    /// ECDSA before RSA. The files are read again when they change. A relative path starts at the
    /// directory of the configuration.
    #[schemars(
        example = "/etc/ringgate/example.pem",
        example = ["ecdsa.pem", "rsa.pem"],
        extend("x-empty" = "name a file, or leave `certificate` out to pass the bytes on")
    )]
    pub(in crate::config) certificate: Field<OneOrMany<String>>,
    /// The file with the private key of `certificate` (PEM, without a passphrase), or a list with
    /// as many files in the same order.
    #[schemars(
        example = "/etc/ringgate/example.key",
        example = ["ecdsa.key", "rsa.key"],
        extend(
            "x-empty" = "name the file with the private key",
            "x-when" = [When::given("certificate", "add `certificate`, or remove it")]
        )
    )]
    pub(in crate::config) key: Field<OneOrMany<String>>,
    /// Whether the certificate for the names of the rule comes from an authority by ACME, in place
    /// of `certificate` and `key`. Then TLS ends here. The names must be exact. It needs `[acme]`.
    #[schemars(extend("default" = false))]
    pub(in crate::config) acme: Field<bool>,
    /// A file with the certificates of authorities (PEM). Clients must then show a certificate that
    /// comes from one of them. The file is read at the start and at a reload. Only where TLS ends
    /// here.
    #[schemars(example = "/etc/ringgate/clients.pem")]
    pub(in crate::config) client_ca: Field<String>,
    /// The oldest version of TLS that is accepted, in place of the one in `[tls]`. Only where TLS
    /// ends here.
    #[schemars(example = "1.3")]
    pub(in crate::config) min_version: Field<TlsVersion>,
    /// Names of protocols (ALPN, RFC 7301), each of 1 to 255 bytes. Where TLS ends here: what is
    /// offered, the preferred one first; a client that offers protocols, but none of these, is
    /// refused. The default is `["h2", "http/1.1", "http/1.0"]` where the routes of the listener
    /// follow, and nothing otherwise. Where it is passed on: the client must offer at least one of
    /// them; left out there is no condition.
    #[schemars(inner(length(min = 1, max = 255)), example = ["h2", "http/1.1"], extend(
        "x-empty" = "no connection can match the rule; leave `alpn` out to match every protocol"
    ))]
    pub(in crate::config) alpn: Field<List<String>>,
    /// The name of the cluster that the connections go to. Where TLS ends here it gets the
    /// decrypted bytes. On an http listener it may then be left out: the routes of the listener
    /// follow.
    #[schemars(regex(pattern = NAME), example = &"site")]
    pub(in crate::config) cluster: Field<String>,
    /// Whether the rule matches only handshakes of simple-obfs in its tls mode. These end here, and
    /// the cluster gets their payload.
    #[schemars(extend("default" = false))]
    pub(in crate::config) simple_obfs: Field<bool>,
}

/// TLS ends here.
fn ended() -> Value {
    json!({ "anyOf": [{ "required": ["certificate"] }, has("acme", [true])] })
}
