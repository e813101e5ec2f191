//! Checks the files of a rule that ends TLS, and builds the rule.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::super::certificates::{
    CLOSE_FILE, FileFault, is_open, oddities, read_authorities, read_identity, read_ticket_keys,
    uncovered,
};
use super::super::input::ReadError;
use super::super::keys::{self, ProtocolWord};
use super::super::report::{Fault, Span, quoted};
use super::super::types::At;
use super::super::{CaFile, Certificate, HostName, TicketFile, TlsEnd, TlsShared};
use super::Check;
use crate::proto::tls::{Authorities, KeyKind, Version};

/// The protocols by which routes are served, the preferred one first: what a rule offers that names
/// none.
const SERVED: [&str; 3] = ["h2", "http/1.1", "http/1.0"];

/// What the rules of one listener have in common.
#[derive(Clone, Copy)]
pub(super) struct RulesOf<'a> {
    pub(super) listener: &'a keys::Listener,
    pub(super) protocol: Option<ProtocolWord>,
}

impl Check<'_> {
    pub(super) fn tls_shared(&self, typed: &keys::Tls) -> Option<TlsShared> {
        let Some(at) = &typed.ticket_keys.value else {
            return Some(TlsShared { ticket_keys: None });
        };
        let path = self.base.join(&at.value);
        match read_ticket_keys(&path) {
            Ok(keys) => {
                self.is_private(&path, at.span);
                let keys = Arc::new(keys);
                Some(TlsShared { ticket_keys: Some(TicketFile { path, keys }) })
            }
            Err(fault) => {
                self.file_fault(at.span, &at.value, fault);
                None
            }
        }
    }

    /// Builds the rule that ends TLS. `names` are the names of the rule.
    pub(super) fn tls_end(
        &self,
        of: RulesOf<'_>,
        typed: &keys::TlsRule,
        names: &[(HostName, Span)],
        name: &str,
        alpn: Vec<String>,
    ) -> Option<TlsEnd> {
        let certificates = match typed.acme.as_ref() {
            Some(true) => Some(Vec::new()),
            _ => self.certificates(typed, names),
        };
        let client_ca = match &typed.client_ca.value {
            None => (!typed.client_ca.is_given()).then_some(None),
            Some(at) => self.authorities(at).map(Some),
        };
        let cluster = self.cluster_name(&typed.cluster);
        let needs_cluster = of.protocol != Some(ProtocolWord::Http);
        if needs_cluster && !typed.cluster.is_given() && typed.place.complete {
            let what = "a [[listener.tls]] of a tls listener needs `cluster`";
            let note = "name the [cluster.NAME] that gets the decrypted bytes; the routes of a \
                        site need protocol = \"http\"";
            self.report.error(typed.place.span, what, note);
        }
        let alpn = self.offered(typed, alpn);
        let own = typed.min_version.as_ref().copied();
        let listener = of.listener.name.as_ref().map_or("", String::as_str);
        if typed.cluster.is_given() && cluster.is_none() {
            return None;
        }
        Some(TlsEnd {
            scope: format!("{listener}/{name}"),
            certificates: certificates?,
            acme: typed.acme.get(),
            alpn,
            client_ca: client_ca?,
            min_version: own.map_or(self.min_version, Version::from),
            cluster,
        })
    }

    /// The protocols that the rule offers.
    fn offered(&self, typed: &keys::TlsRule, alpn: Vec<String>) -> Vec<String> {
        // The bytes of a cluster may be of any protocol.
        if typed.cluster.is_given() {
            return alpn;
        }
        if typed.alpn.is_given() { alpn } else { SERVED.map(String::from).to_vec() }
    }

    fn certificates(
        &self,
        typed: &keys::TlsRule,
        names: &[(HostName, Span)],
    ) -> Option<Vec<Certificate>> {
        let certificates = typed.certificate.value.as_ref()?;
        let Some(keys) = &typed.key.value else {
            if !typed.key.is_given() && typed.place.complete {
                let what = "`certificate` needs `key`";
                let note = "name the file with the private key: key = \"example.key\"";
                self.report.error(certificates.span, what, note);
            }
            return None;
        };
        let (certificates, keys) = (&certificates.value, &keys.value);
        if certificates.len() != keys.len() {
            let what = format!(
                "there are {} files in `certificate` and {} in `key`",
                certificates.len(),
                keys.len()
            );
            let note = "each certificate has its key at the same place of the other list";
            self.report.error(typed.key.key.unwrap_or(typed.place.span), what, note);
            return None;
        }
        let mut found: Vec<Certificate> = Vec::with_capacity(keys.len());
        let mut is_complete = true;
        for (certificate, key) in certificates.iter().zip(keys.iter()) {
            let Some(read) = self.certificate(certificate, key, names) else {
                is_complete = false;
                continue;
            };
            let kind = |one: &Certificate| std::mem::discriminant(&one.identity.key());
            if found.iter().any(|earlier| kind(earlier) == kind(&read)) {
                let of = match read.identity.key() {
                    KeyKind::Rsa(_) => "an RSA",
                    KeyKind::Ecdsa => "an ECDSA",
                    KeyKind::Ed25519 => "an Ed25519",
                };
                let what = format!("the rule has a certificate with {of} key already");
                let note = "the certificates of a rule differ in their kind of key; for other \
                            names add another [[listener.tls]]";
                self.report.error(certificate.span, what, note);
            }
            found.push(read);
        }
        is_complete.then_some(found)
    }

    /// Reads a certificate and its key, and checks that it is for these names.
    pub(super) fn certificate(
        &self,
        certificate: &At<String>,
        key: &At<String>,
        names: &[(HostName, Span)],
    ) -> Option<Certificate> {
        let (certificate_path, key_path) =
            (self.base.join(&certificate.value), self.base.join(&key.value));
        let identity = match read_identity(&certificate_path, &key_path) {
            Ok(identity) => identity,
            Err(faults) => {
                for fault in faults {
                    let at = if fault.is_key { key } else { certificate };
                    self.file_fault(at.span, &at.value, fault);
                }
                return None;
            }
        };
        for oddity in oddities(&identity, SystemTime::now()) {
            let what = format!("the certificate {} {}", quoted(&certificate.value), oddity.what);
            self.report.warning(certificate.span, what, oddity.advice);
        }
        for (name, span) in names {
            for text in uncovered([name], &identity) {
                let file = quoted(&certificate.value);
                let what = format!("the certificate {file} is not for {}", quoted(&text));
                self.report.warning(*span, what, refusal(identity.names()));
            }
        }
        self.is_private(&key_path, key.span);
        Some(Certificate { certificate: certificate_path, key: key_path, identity })
    }

    pub(super) fn ca_file(&self, at: &At<String>) -> Option<CaFile> {
        let authorities = self.authorities(at)?;
        Some(CaFile { path: self.base.join(&at.value), authorities })
    }

    fn authorities(&self, at: &At<String>) -> Option<Authorities> {
        match read_authorities(&self.base.join(&at.value)) {
            Ok(authorities) => Some(authorities),
            Err(fault) => {
                self.file_fault(at.span, &at.value, fault);
                None
            }
        }
    }

    /// Reports a file that cannot be used. `typed` is its path in the configuration.
    pub(super) fn file_fault(&self, span: Span, typed: &str, fault: FileFault) {
        let what = format!("the file {} {}", quoted(typed), fault.what);
        match fault.cause {
            None => self.report.error(span, what, fault.advice),
            Some(cause) => {
                let is_missing = matches!(
                    &cause, ReadError::System(error) if error.kind() == ErrorKind::NotFound
                );
                let note = match typed.starts_with('/') {
                    _ if !is_missing => fault.advice,
                    true => "check the spelling of the path",
                    false => "relative paths start at the directory of this configuration",
                };
                self.report.unreadable(span, Fault::new(what, note), cause);
            }
        }
    }

    /// Warns of a secret that other users can read.
    pub(super) fn is_private(&self, path: &Path, span: Span) {
        if is_open(path) {
            let what = "every user of this machine can read this file";
            self.report.warning(span, what, CLOSE_FILE);
        }
    }
}

/// The note for a certificate that is for these names, and not for another one.
fn refusal(names: &[String]) -> String {
    if names.is_empty() {
        return String::from(
            "clients refuse it: it has no subjectAltName, and they do not read the common name \
             (CN). Make one of X.509 version 3 with it: openssl req -x509 with -addext, or openssl \
             x509 -req with -extfile",
        );
    }
    let listed = super::first_names(names.iter().map(String::as_str));
    format!("clients refuse it; it is for {listed}")
}
