//! Checks `tls = { … }` of a cluster: the name that certificates must be for, and the files.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::report::quoted;
use super::super::types::At;
use super::super::{ClusterTls, Discovery, Trust, address, keys};
use super::Check;
use crate::sys::Address;

impl Check<'_> {
    /// `discovery` is `None` if an error in it was reported. Returns `None` if an error was
    /// reported.
    pub(super) fn cluster_tls(
        &self,
        at: &At<Box<keys::ClusterTls>>,
        discovery: Option<&Discovery>,
    ) -> Option<ClusterTls> {
        let typed = &at.value;
        let server_name = match &typed.server_name.value {
            Some(name) => self.server_name(name).map(Some),
            None if typed.server_name.is_given() => None,
            None => self.default_name(at, discovery?),
        };
        let trust = self.trust(typed);
        let certificate = match (&typed.certificate.value, &typed.key.value) {
            (Some(certificate), Some(key)) => self.certificate(certificate, key, &[]).map(Some),
            // One without the other was reported.
            _ => Some(None),
        };
        let alpn = self.protocols(&typed.alpn);
        Some(ClusterTls {
            server_name: server_name?,
            trust: trust?,
            certificate: certificate?,
            alpn: alpn?,
            min_version: typed.min_version.get().into(),
        })
    }

    fn server_name(&self, at: &At<String>) -> Option<Arc<str>> {
        match address::exact_host(&at.value) {
            Ok(name) => Some(bare(&name).into()),
            Err(mut fault) => {
                if at.value.contains('*') {
                    fault.note = String::from("write the name that one endpoint has, without `*`");
                } else if at
                    .value
                    .rsplit_once(':')
                    .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
                {
                    fault.note = String::from("write the name without the port");
                }
                self.report.fault(at.span, fault);
                None
            }
        }
    }

    /// The name where the file has none: the one name of all endpoints, or `None` if each endpoint
    /// is an IP address.
    fn default_name(
        &self,
        at: &At<Box<keys::ClusterTls>>,
        discovery: &Discovery,
    ) -> Option<Option<Arc<str>>> {
        let why = match discovery {
            Discovery::Static(endpoints) => {
                if endpoints.iter().all(|one| matches!(one, Address::Ip(_))) {
                    return Some(None);
                }
                "a path is not a name that a certificate can be for"
            }
            Discovery::StrictDns { names, .. } => {
                if names.iter().all(|name| name.host.parse::<IpAddr>().is_ok()) {
                    return Some(None);
                }
                let host =
                    |name: &super::super::DnsName| name.host.trim_end_matches('.').to_owned();
                let first = names.first().map(host)?;
                if names.iter().all(|name| host(name) == first) {
                    return Some(Some(first.into()));
                }
                "the endpoints have several names, and their addresses are used alike"
            }
        };
        if at.value.place.complete {
            let note = format!("{why}: add the one name that all certificates are for");
            self.report.error(at.span, "`tls` needs `server_name`", note);
        }
        None
    }

    fn trust(&self, typed: &keys::ClusterTls) -> Option<Trust> {
        if typed.verify.get() {
            return match &typed.ca.value {
                Some(at) => self.ca_file(at).map(Trust::File),
                None => (!typed.ca.is_given()).then_some(Trust::System),
            };
        }
        if let Some(span) = typed.ca.key {
            let note = "remove one of them: with `ca` certificates are checked";
            self.report.error(span, "`ca` cannot be combined with verify = false", note);
        }
        if let Some(at) = &typed.verify.value {
            let what = "the certificates of the endpoints are not checked";
            let note = "anyone between ringgate and the endpoints can read and change \
                        everything: remove `verify`, and name the authority of the certificates in \
                        `ca` if it is a private one";
            self.report.warning(at.span, what, note);
        }
        Some(Trust::Anyone)
    }

    /// Reports a udp listener with a cluster whose endpoints use TLS.
    pub(super) fn udp_cluster(&self, at: &At<String>) {
        if self.with_tls.contains(&at.value.as_str()) {
            let what = format!(
                "a udp listener cannot use the cluster {}, which has `tls`",
                quoted(&at.value)
            );
            let note = "datagrams are relayed as they are: use a cluster without `tls`";
            self.report.error(at.span, what, note);
        }
    }
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}
