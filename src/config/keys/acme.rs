//! `[acme]`

use schemars::JsonSchema;
use serde::Deserialize;

use super::patterns::{CONTACT, HTTPS};
use crate::config::types::{Field, OneOrMany};

/// Certificates that an authority issues by ACME (RFC 8555), for the rules with `acme = true`. They
/// are kept in `storage` and renewed in time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-foreign" = {
    "server": "directory",
    "url": "directory",
    "email": "contact",
    "cache": "storage",
    "challenges": "challenge",
    "ca_root": "ca",
    "agree_tos": "terms_agreed",
    "terms_of_service_agreed": "terms_agreed",
}))]
pub(in crate::config) struct Acme {
    /// The URL of the authority's directory. The default is Let's Encrypt.
    #[schemars(
        regex(pattern = HTTPS), example = "https://acme-staging-v02.api.letsencrypt.org/directory",
        extend("default" = "https://acme-v02.api.letsencrypt.org/directory")
    )]
    pub(in crate::config) directory: Field<String>,
    /// Where the authority can reach you: a `mailto:` URL with one address, or a list of them.
    #[schemars(
        regex(pattern = CONTACT), inner(regex(pattern = CONTACT)),
        example = "mailto:admin@example.com",
        extend("x-empty" = "leave `contact` out if there is none")
    )]
    pub(in crate::config) contact: Field<OneOrMany<String>>,
    /// The directory of the account and the certificates with their keys. It is created if it does
    /// not exist, for the user of ringgate alone. A relative path starts at the directory of the
    /// configuration. Keep it: authorities limit how many certificates they issue in a week.
    #[schemars(example = "/var/lib/ringgate/acme", extend(
        "x-required" = "name the directory of the account and the certificates: \
                        storage = \"/var/lib/ringgate/acme\""
    ))]
    pub(in crate::config) storage: Field<String>,
    /// How the authority checks that the names lead here.
    #[schemars(extend("default" = "tls-alpn-01"))]
    pub(in crate::config) challenge: Field<Challenge>,
    /// A file with the certificates (PEM) that the certificate of the directory is checked against,
    /// in place of the authorities of this machine. Private authorities need it.
    #[schemars(example = "/etc/ringgate/private-ca.pem")]
    pub(in crate::config) ca: Field<String>,
    /// Must be `true`: you have read the terms of service of the authority, which its directory
    /// links to, and agree to them.
    #[schemars(example = true, extend(
        "enum" = [true],
        "x-required" = "write terms_agreed = true once you have read the terms of service of the \
                        authority, which its directory links to, and agree to them"
    ))]
    pub(in crate::config) terms_agreed: Field<bool>,
}

/// How an authority checks that names lead here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(extend("x-foreign" = {
    "dns-01": "write \"tls-alpn-01\" or \"http-01\": records of DNS are not changed",
}))]
pub enum Challenge {
    /// It opens a TLS connection to port 443 (RFC 8737). The rule itself answers.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// It sends a request to port 80 (RFC 8555 section 8.3). Every http listener answers, before
    /// any route.
    #[serde(rename = "http-01")]
    Http01,
}
