//! `[tls]`

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::types::Field;
use crate::proto::tls::Version;

/// What all rules share that end TLS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-foreign" = {
    "ssl_protocols": "min_version",
    "protocols": "min_version",
    "ssl_session_ticket_key": "ticket_keys",
    "session_ticket_keys": "ticket_keys",
    "ssl_certificate": "write `certificate`, in [[listener.tls]]",
    "ssl_certificate_key": "write `key`, in [[listener.tls]]",
}))]
pub(in crate::config) struct Tls {
    /// The oldest version of TLS that is accepted. A rule may have another one.
    #[schemars(extend("default" = "1.2"))]
    pub(in crate::config) min_version: Field<TlsVersion>,
    /// A file with the keys of session tickets: a line for each, with the base64 of 32 random bytes
    /// (`openssl rand -base64 32`). The first one makes tickets, and all are accepted, at most 16.
    /// Lines that begin with `#` are comments. The file is read again when it changes. With such a
    /// file clients resume their sessions after a restart, and on other machines that have the same
    /// file. Put a new key in front every few hours, and remove keys that are older than a day.
    /// Without the file the keys are made at the start; a new one follows every 6 h. A ticket is
    /// accepted for 12 h.
    #[schemars(example = "/etc/ringgate/tickets")]
    pub(in crate::config) ticket_keys: Field<String>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(extend("x-foreign" = {
    "1.0": "versions before TLS 1.2 must not be used (RFC 8996): write \"1.2\" or \"1.3\"",
    "1.1": "versions before TLS 1.2 must not be used (RFC 8996): write \"1.2\" or \"1.3\"",
    "tlsv1": "versions before TLS 1.2 must not be used (RFC 8996): write \"1.2\" or \"1.3\"",
    "tlsv1.1": "versions before TLS 1.2 must not be used (RFC 8996): write \"1.2\" or \"1.3\"",
    "tlsv1.2": "write \"1.2\"",
    "tlsv1.3": "write \"1.3\"",
}))]
pub(in crate::config) enum TlsVersion {
    /// TLS 1.2 and later.
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 alone.
    #[serde(rename = "1.3")]
    Tls13,
}

impl From<TlsVersion> for Version {
    fn from(word: TlsVersion) -> Version {
        match word {
            TlsVersion::Tls12 => Version::Tls12,
            TlsVersion::Tls13 => Version::Tls13,
        }
    }
}
