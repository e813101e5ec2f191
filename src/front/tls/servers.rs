//! The TLS servers of one listener on one worker: one for each rule that ends TLS. They are made
//! anew when a certificate or the keys of tickets change.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use crate::config::{Protocol, TlsAction, TlsEnd};
use crate::proto::tls::{Identity, Server, ServerSettings, TicketKeys};

/// The servers of a listener; none unless a rule of it ends TLS.
#[derive(Default)]
pub(in crate::front) struct Servers(Vec<Entry>);

struct Entry {
    end: Arc<TlsEnd>,
    /// In the order of the configuration.
    identities: RefCell<Vec<Identity>>,
    /// `None` if rustls refuses the rule, or if it has no certificate.
    server: RefCell<Option<Server>>,
}

impl Servers {
    /// Makes the servers of the rules of a listener.
    pub(in crate::front) fn new(protocol: &Protocol, keys: &Arc<TicketKeys>) -> Servers {
        let rules = match protocol {
            Protocol::Tls(tls) => &tls.rules[..],
            Protocol::Http(http) => http.tls.as_ref().map_or(&[][..], |tls| &tls.rules),
            Protocol::Tcp(_) | Protocol::Udp(_) => &[],
        };
        let entry = |end: &Arc<TlsEnd>| {
            let identities = end.certificates.iter().map(|one| one.identity.clone()).collect();
            let entry = Entry {
                end: Arc::clone(end),
                identities: RefCell::new(identities),
                server: RefCell::new(None),
            };
            entry.make(keys);
            entry
        };
        let ends = rules.iter().filter_map(|rule| match &rule.action {
            TlsAction::End(end) => Some(entry(end)),
            TlsAction::PassOn { .. } | TlsAction::Obfs { .. } => None,
        });
        Servers(ends.collect())
    }

    /// Returns true if no rule ends TLS.
    pub(in crate::front) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The server of a rule. `None` if there is none at present.
    pub(in crate::front) fn of(&self, end: &Arc<TlsEnd>) -> Option<Server> {
        let entry = self.0.iter().find(|entry| Arc::ptr_eq(&entry.end, end))?;
        entry.server.borrow().clone()
    }

    /// Replaces the identity that comes from two files.
    pub(in crate::front) fn set_identity(
        &self,
        certificate: &Path,
        key: &Path,
        identity: &Identity,
        keys: &Arc<TicketKeys>,
    ) {
        for entry in &self.0 {
            let mut is_changed = false;
            for (at, files) in entry.end.certificates.iter().enumerate() {
                if files.certificate == certificate && files.key == key {
                    entry.identities.borrow_mut()[at] = identity.clone();
                    is_changed = true;
                }
            }
            if is_changed {
                entry.make(keys);
            }
        }
    }

    /// Replaces the keys of tickets.
    pub(in crate::front) fn set_ticket_keys(&self, keys: &Arc<TicketKeys>) {
        self.0.iter().for_each(|entry| entry.make(keys));
    }
}

impl Entry {
    fn make(&self, keys: &Arc<TicketKeys>) {
        let server = Server::new(&ServerSettings {
            identities: &self.identities.borrow(),
            protocols: &self.end.alpn,
            client_authorities: self.end.client_ca.as_ref(),
            min_version: self.end.min_version,
            ticket_keys: keys,
            scope: &self.end.scope,
        });
        *self.server.borrow_mut() = server.ok();
    }
}
