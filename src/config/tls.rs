//! What TLS needs besides the rules of listeners: keys of tickets, certificates by ACME, and
//! connections to clusters.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Certificate, Challenge, HostName, TlsRule};
use crate::proto::tls::{Authorities, TicketKeys, Version};

/// `[tls]`
#[derive(Debug, PartialEq, Eq)]
pub struct TlsShared {
    /// The keys of session tickets. `None` if they are made at the start.
    pub ticket_keys: Option<TicketFile>,
}

/// `tls.ticket_keys`
#[derive(Debug, PartialEq, Eq)]
pub struct TicketFile {
    /// The file.
    pub path: PathBuf,
    /// Its keys when the configuration was read.
    pub keys: Arc<TicketKeys>,
}

/// `[acme]`
#[derive(Debug, PartialEq, Eq)]
pub struct Acme {
    /// The https URL of the authority's directory (RFC 8555 section 7.1.1).
    pub directory: String,
    /// `mailto:` URLs.
    pub contact: Vec<String>,
    /// The directory of the account and the certificates. It may not exist yet.
    pub storage: PathBuf,
    /// How the authority checks that names lead here.
    pub challenge: Challenge,
    /// The authorities of the directory's own certificate. `None` for those of this machine.
    pub ca: Option<CaFile>,
}

/// A file with the certificates of authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaFile {
    /// The file.
    pub path: PathBuf,
    /// What it held when the configuration was read.
    pub authorities: Authorities,
}

/// `tls = { … }` of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterTls {
    /// The name that the certificates must be for: a DNS name, or an IP address without brackets.
    /// `None` if it is the IP address of each endpoint. A DNS name is sent as SNI.
    pub server_name: Option<Arc<str>>,
    /// How the certificates are checked.
    pub trust: Trust,
    /// What is shown to endpoints that ask for a certificate.
    pub certificate: Option<Certificate>,
    /// The protocols that are offered (ALPN), the preferred one first. Empty: none.
    pub alpn: Vec<String>,
    /// The oldest version that is accepted.
    pub min_version: Version,
}

/// `ca` and `verify` of a cluster with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The authorities of this machine.
    System,
    /// `ca`: these authorities.
    File(CaFile),
    /// `verify = false`: certificates are not checked.
    Anyone,
}

impl TlsRule {
    /// The exact names, sorted.
    pub fn exact_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .names
            .iter()
            .filter_map(|name| match name {
                HostName::Exact(name) => Some(name.clone()),
                HostName::Suffix(_) | HostName::Prefix(_) => None,
            })
            .collect();
        names.sort_unstable();
        names
    }
}
