//! Checks `[acme]` and the rules that use it.

use super::super::keys::{self, Challenge};
use super::super::report::{Report, Span, quoted};
use super::super::types::{At, Field};
use super::super::{Acme, Config, HostName, Listener, Protocol, TlsAction};
use super::Check;
use crate::sys::Address;

impl Check<'_> {
    /// Returns `Some(None)` if the table was left out, and `None` if an error was reported.
    pub(super) fn acme(&self, field: &Field<keys::Acme>) -> Option<Option<Acme>> {
        let Some(typed) = field.as_ref() else { return (!field.is_given()).then_some(None) };
        if let Some(directory) = &typed.directory.value {
            self.https_url(directory);
        }
        let contact = typed.contact.as_ref().map(|list| list.to_vec()).unwrap_or_default();
        contact.iter().for_each(|one| self.contact(one));
        let ca = match &typed.ca.value {
            None => (!typed.ca.is_given()).then_some(None),
            Some(at) => self.ca_file(at).map(Some),
        };
        if let Some(at) = typed.terms_agreed.value.as_ref().filter(|at| !at.value) {
            let what = "`terms_agreed` must be true";
            let note = "an authority issues certificates only to those who agree to its terms of \
                        service, which its directory links to: read them, and write \
                        terms_agreed = true";
            self.report.error(at.span, what, note);
        }
        let storage = typed.storage.value.as_ref()?;
        let path = self.base.join(&storage.value);
        if path.exists() && !path.is_dir() {
            let what = format!("{} is not a directory", quoted(&storage.value));
            let note = "name a directory; it is created if it does not exist";
            self.report.error(storage.span, what, note);
        }
        typed.terms_agreed.as_ref()?;
        Some(Some(Acme {
            directory: typed.directory.get(),
            contact: contact.into_iter().map(|one| one.value).collect(),
            storage: path,
            challenge: typed.challenge.get(),
            ca: ca?,
        }))
    }

    fn https_url(&self, at: &At<String>) {
        let text = at.value.as_str();
        let rest = text.strip_prefix("https://");
        let host = rest.and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
        let is_plain = text.chars().all(|c| c.is_ascii_graphic() && c != '#');
        if !host.is_empty() && is_plain {
            return;
        }
        let what = format!("`directory` is not an https URL: {}", quoted(text));
        let note = match rest {
            None => "it starts with https://, as RFC 8555 demands",
            Some(_) => "write a host and a path: \"https://ca.example.com/directory\"",
        };
        self.report.error(at.span, what, note);
    }

    fn contact(&self, at: &At<String>) {
        let text = at.value.as_str();
        let address = text.strip_prefix("mailto:");
        let parts = address.unwrap_or_default().split_once('@').unwrap_or_default();
        // RFC 8555 section 7.3: one address, and no fields.
        let is_plain = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic() && !"@,?".contains(c))
        };
        if is_plain(parts.0) && is_plain(parts.1) {
            return;
        }
        let what = format!("`contact` is not a mailto URL: {}", quoted(text));
        let note = match address {
            None if text.contains('@') => "write mailto: before the address",
            _ => "write one address each: [\"mailto:admin@example.com\"]",
        };
        self.report.error(at.span, what, note);
    }

    /// Checks a rule with `acme = true`. `names` are the names of the rule.
    pub(super) fn acme_rule(&self, typed: &keys::TlsRule, names: &[(HostName, Span)]) {
        let Some(acme) = typed.acme.key else { return };
        if !self.has_acme {
            let what = "`acme` needs [acme]";
            let note = "add [acme] with `storage` and `terms_agreed`, or write `certificate` and \
                        `key` in place of `acme`";
            self.report.error(acme, what, note);
        }
        if let Some(certificate) = typed.certificate.key {
            let what = "a rule has `certificate` or `acme`, not both";
            self.report.error(certificate, what, "remove one of them");
        }
        if !typed.names.is_given() && typed.place.complete {
            let note = "list the names that the certificate is for: names = [\"www.example.com\"]";
            self.report.error(acme, "`acme` needs `names`", note);
        }
        for (name, span) in names {
            let (is_ip, text) = match name {
                HostName::Suffix(_) | HostName::Prefix(_) => (false, None),
                HostName::Exact(name) => (is_ip(name), Some(name)),
            };
            let what = match text {
                Some(text) if is_ip => format!("{} is an IP address", quoted(text)),
                Some(_) => continue,
                None => String::from("names of a rule with `acme` are exact"),
            };
            let note = if is_ip {
                "a server name in TLS is never an IP address: write the name of the host"
            } else {
                "write each name; wildcards need the challenge dns-01, which changes records of \
                 DNS: get such a certificate by another program, and name its files in \
                 `certificate` and `key`"
            };
            self.report.error(*span, what, note);
        }
    }
}

/// Returns true for an exact name that is an IP address.
pub(super) fn is_ip(name: &str) -> bool {
    name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok()
}

/// The positions of `[acme]` and of its `challenge`.
pub(super) fn place(field: &Field<keys::Acme>) -> Option<(Span, Span)> {
    let table = field.key?;
    let challenge = field.as_ref().and_then(|acme| acme.challenge.value.as_ref());
    Some((table, challenge.map_or(table, |at| at.span)))
}

/// Warns if nothing uses `[acme]`, and if the authority probably finds nothing at its port.
pub(super) fn unintended(report: &Report<'_>, config: &Config, place: Option<(Span, Span)>) {
    let (Some(acme), Some((table, challenge))) = (&config.acme, place) else { return };
    let with_acme = |listener: &&std::sync::Arc<Listener>| {
        let rules = listener.tls_rules();
        rules.iter().any(|rule| matches!(&rule.action, TlsAction::End(end) if end.acme))
    };
    let mut users = config.listeners.iter().filter(with_acme).peekable();
    if users.peek().is_none() {
        let note = "write acme = true in a [[listener.tls]], or remove it";
        report.warning(table, "nothing uses [acme]", note);
        return;
    }
    let has_port = |listener: &Listener, port: u16| {
        let mut addresses = listener.addresses.iter();
        addresses.any(|address| matches!(address, Address::Ip(ip) if ip.port() == port))
    };
    let (is_found, what, note) = match acme.challenge {
        Challenge::TlsAlpn01 => (
            users.any(|listener| has_port(listener, 443)),
            "no listener with a rule that has `acme` listens on port 443",
            "for tls-alpn-01 the authority connects to port 443: listen there, or forward that \
             port to the listener",
        ),
        Challenge::Http01 => (
            config.listeners.iter().any(|listener| {
                matches!(listener.protocol, Protocol::Http(_)) && has_port(listener, 80)
            }),
            "no http listener listens on port 80",
            "for http-01 the authority sends its request to port 80: listen there, or forward \
             that port to an http listener",
        ),
    };
    if !is_found {
        report.warning(challenge, what, note);
    }
}
