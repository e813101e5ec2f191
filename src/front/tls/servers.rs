//! The TLS servers of one listener on one worker: one for each rule that ends TLS. They are made
//! anew when a certificate or the keys of tickets change.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::{Listener, TlsAction, TlsEnd, TlsRule};
use crate::proto::tls::{Identity, Server, ServerSettings, TicketKeys};

/// Where an identity comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Two files.
    Files {
        /// The file of the certificate.
        certificate: Arc<Path>,
        /// The file of the key.
        key: Arc<Path>,
    },
    /// ACME, for these names in lower case, sorted.
    Acme(Arc<[String]>),
}

/// The servers of a listener; none unless a rule of it ends TLS.
#[derive(Default)]
pub(in crate::front) struct Servers {
    /// By what the rules say; each has a [`TlsEnd`] of its own, which its entry keeps.
    entries: HashMap<*const TlsEnd, Rc<Entry>>,
    /// The entries that have an identity from this origin.
    by_origin: HashMap<Origin, Vec<Rc<Entry>>>,
    demand_certificates: bool,
}

struct Entry {
    end: Arc<TlsEnd>,
    /// The names of the certificate that comes by ACME; none of files.
    names: Option<Arc<[String]>>,
    /// In the order of the configuration. Empty until there is a certificate by ACME.
    identities: RefCell<Vec<Identity>>,
    /// `None` if rustls refuses the rule, or if it has no certificate.
    server: RefCell<Option<Server>>,
}

impl Servers {
    /// Makes the servers of the rules of a listener. Those of `before` are used again whose rules
    /// have not changed.
    pub(in crate::front) fn new(
        listener: &Listener,
        keys: &Arc<TicketKeys>,
        before: Option<&Servers>,
    ) -> Servers {
        let mut servers = Servers::default();
        for (rule, end) in ends(listener) {
            let known = before.and_then(|before| before.entries.get(&Arc::as_ptr(end)));
            let entry = match known.filter(|entry| entry.is_of(rule, end)) {
                Some(entry) => Rc::clone(entry),
                None => Rc::new(Entry::new(rule, end, keys)),
            };
            for origin in entry.origins() {
                servers.by_origin.entry(origin).or_default().push(Rc::clone(&entry));
            }
            servers.demand_certificates |= end.client_ca.is_some();
            servers.entries.insert(Arc::as_ptr(end), entry);
        }
        servers
    }

    /// Returns true if these servers have the certificates that the configuration has.
    pub(in crate::front) fn are_of(&self, listener: &Listener) -> bool {
        ends(listener).all(|(rule, end)| {
            let entry = self.entries.get(&Arc::as_ptr(end));
            entry.is_some_and(|entry| entry.is_of(rule, end))
        })
    }

    /// Returns true if a rule demands certificates of its clients.
    pub(in crate::front) fn demand_certificates(&self) -> bool {
        self.demand_certificates
    }

    /// Returns true if no rule ends TLS.
    pub(in crate::front) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The server of a rule. `None` if there is none at present.
    pub(in crate::front) fn of(&self, end: &Arc<TlsEnd>) -> Option<Server> {
        self.entries.get(&Arc::as_ptr(end))?.server.borrow().clone()
    }

    /// Replaces an identity.
    pub(in crate::front) fn set_identity(
        &self,
        origin: &Origin,
        identity: &Identity,
        keys: &Arc<TicketKeys>,
    ) {
        for entry in self.by_origin.get(origin).into_iter().flatten() {
            if entry.replace(origin, identity) {
                entry.make(keys);
            }
        }
    }

    /// Replaces the keys of tickets.
    pub(in crate::front) fn set_ticket_keys(&self, keys: &Arc<TicketKeys>) {
        self.entries.values().for_each(|entry| entry.make(keys));
    }
}

/// The rules of a listener that end TLS.
fn ends(listener: &Listener) -> impl Iterator<Item = (&TlsRule, &Arc<TlsEnd>)> {
    listener.tls_rules().iter().filter_map(|rule| match &rule.action {
        TlsAction::End(end) => Some((&**rule, end)),
        TlsAction::PassOn { .. } | TlsAction::Obfs { .. } => None,
    })
}

impl Entry {
    fn new(rule: &TlsRule, end: &Arc<TlsEnd>, keys: &Arc<TicketKeys>) -> Entry {
        let identities = end.certificates.iter().map(|one| one.identity.clone()).collect();
        let entry = Entry {
            end: Arc::clone(end),
            names: end.acme.then(|| rule.exact_names().into()),
            identities: RefCell::new(identities),
            server: RefCell::new(None),
        };
        entry.make(keys);
        entry
    }

    /// Where its identities come from, each once.
    fn origins(&self) -> impl Iterator<Item = Origin> {
        let files = self.end.certificates.iter().map(|one| Origin::Files {
            certificate: one.certificate.as_path().into(),
            key: one.key.as_path().into(),
        });
        let names = self.names.iter().map(|names| Origin::Acme(Arc::clone(names)));
        files.chain(names).collect::<HashSet<_>>().into_iter()
    }

    /// Returns true if the entry is that of a rule, with the certificates that the configuration
    /// has. Those by ACME are not in the configuration.
    fn is_of(&self, rule: &TlsRule, end: &Arc<TlsEnd>) -> bool {
        if !Arc::ptr_eq(&self.end, end) {
            return false;
        }
        let has_same_names =
            self.names.as_deref().is_none_or(|names| *names == *rule.exact_names());
        let configured = end.certificates.iter().map(|one| &one.identity);
        has_same_names && (end.acme || self.identities.borrow().iter().eq(configured))
    }

    /// Replaces an identity. Returns true if it was replaced.
    fn replace(&self, origin: &Origin, identity: &Identity) -> bool {
        let mut identities = self.identities.borrow_mut();
        match origin {
            Origin::Acme(names) if self.names.as_ref() == Some(names) => {
                let is_other = identities.first() != Some(identity);
                *identities = vec![identity.clone()];
                is_other
            }
            Origin::Acme(_) => false,
            Origin::Files { certificate, key } => {
                let mut is_replaced = false;
                for (files, own) in self.end.certificates.iter().zip(identities.iter_mut()) {
                    if *files.certificate == **certificate && *files.key == **key {
                        *own = identity.clone();
                        is_replaced = true;
                    }
                }
                is_replaced
            }
        }
    }

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
