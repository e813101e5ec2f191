//! `tls = { … }` of a cluster.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::TlsVersion;
use super::patterns::HOST;
use crate::config::contract::When;
use crate::config::contract::rules::{has, none_of};
use crate::config::types::{Field, List, Place};

/// Connections to the endpoints use TLS. `tls = {}` has the defaults of all keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "x-inline" = true,
    "x-rules" = [json!({ "if": has("verify", [false]), "then": none_of(&["ca"]) })],
    "x-foreign" = {
        "sni": "server_name",
        "name": "server_name",
        "cert": "certificate",
        "ca_file": "ca",
        "cacert": "ca",
        "client_ca": "ca",
        "proxy_ssl_name": "server_name",
        "proxy_ssl_trusted_certificate": "ca",
        "proxy_ssl_certificate": "certificate",
        "proxy_ssl_certificate_key": "key",
        "proxy_ssl_protocols": "min_version",
        "proxy_ssl_verify": "verify",
        "insecure": "verify",
        "skip_verify": "verify",
    },
))]
pub(in crate::config) struct ClusterTls {
    #[schemars(skip)]
    pub(in crate::config) place: Place,
    /// The name that the certificates of the endpoints must be for. It is sent as SNI unless it is
    /// an IP address. The default is the name of the endpoints of a strict_dns cluster if they have
    /// the same one. Endpoints that are IP addresses have as default their own addresses, which are
    /// not sent.
    #[schemars(regex(pattern = HOST), example = "api.internal")]
    pub(in crate::config) server_name: Field<String>,
    /// A file with the certificates of authorities (PEM). The certificates of the endpoints must
    /// come from one of them, or be one of them: a self-signed certificate can stand here itself.
    /// The default are the authorities of this machine. The file is read at the start and at a
    /// reload.
    #[schemars(example = "/etc/ringgate/private-ca.pem")]
    pub(in crate::config) ca: Field<String>,
    /// A file with the certificate that is shown to endpoints that ask for one, followed by those
    /// of the authorities between it and a root (PEM). It is read at the start and at a reload,
    /// with `key`.
    #[schemars(example = "/etc/ringgate/client.pem", extend("x-when" = [When::given(
        "key", "name the file with the private key: key = \"client.key\""
    )]))]
    pub(in crate::config) certificate: Field<String>,
    /// The file with the private key of `certificate` (PEM, without a passphrase).
    #[schemars(example = "/etc/ringgate/client.key", extend("x-when" = [When::given(
        "certificate", "name the file with the certificate: certificate = \"client.pem\""
    )]))]
    pub(in crate::config) key: Field<String>,
    /// Names of protocols (ALPN, RFC 7301) that are offered to the endpoints, the preferred one
    /// first, each of 1 to 255 bytes. Left out: none.
    #[schemars(inner(length(min = 1, max = 255)), example = ["http/1.1"], extend(
        "x-empty" = "leave `alpn` out to offer no protocols"
    ))]
    pub(in crate::config) alpn: Field<List<String>>,
    /// The oldest version of TLS that is accepted.
    #[schemars(extend("default" = "1.2"))]
    pub(in crate::config) min_version: Field<TlsVersion>,
    /// Whether the certificates of the endpoints are checked. With `false` anyone between ringgate
    /// and the endpoints can read and change everything.
    #[schemars(extend("default" = true))]
    pub(in crate::config) verify: Field<bool>,
}
