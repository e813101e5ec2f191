//! Checks `[[listener.tls]]`: each name occurs once for each protocol, each rule is reachable.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::super::keys;
use super::super::report::{Span, quoted};
use super::super::types::{Field, List};
use super::super::{HostName, RelayTimeouts, Tls, TlsAction, TlsRule, address};
use super::Check;
use super::acme::is_ip;
use super::certificates::RulesOf;

impl Check<'_> {
    pub(super) fn tls(&self, typed: &keys::Listener, timeouts: RelayTimeouts) -> Option<Tls> {
        let mut earlier = EarlierRules::new();
        let of = RulesOf { listener: typed, protocol: typed.protocol.as_ref().copied() };
        let mut rules = Vec::with_capacity(typed.tls.len());
        for rule in typed.tls.iter() {
            rules.push(self.tls_rule(of, rule, &mut earlier));
        }
        Some(Tls {
            hello_timeout: typed.hello_timeout.get().0,
            rules: rules.into_iter().collect::<Option<Vec<Arc<TlsRule>>>>()?,
            timeouts,
        })
    }

    fn tls_rule(
        &self,
        of: RulesOf<'_>,
        typed: &keys::TlsRule,
        earlier: &mut EarlierRules,
    ) -> Option<Arc<TlsRule>> {
        let names = self.server_names(typed);
        let alpn = self.protocols(&typed.alpn);
        let simple_obfs = typed.simple_obfs.get();
        let ends = ends(typed);
        if simple_obfs {
            self.no_end(typed);
            let note = "remove it; a simple-obfs client offers no protocols, so no connection can \
                        match";
            if let Some(span) = typed.alpn.key {
                let what = "`alpn` cannot be combined with simple_obfs = true";
                self.report.error(span, what, note);
            }
        }
        if typed.acme.get() {
            self.acme_rule(typed, names.as_deref().unwrap_or_default());
        }
        if let (Some(names), Some(alpn)) = (&names, &alpn) {
            // What a rule offers that ends TLS is no condition.
            let mut condition = if ends { Vec::new() } else { alpn.clone() };
            condition.sort_unstable();
            condition.dedup();
            let condition = Rc::new(condition);
            // A rule without names is checked like a rule with one name, `None`.
            let all = names.iter().map(|(name, span)| (Some(name.clone()), *span));
            let none = names.is_empty().then_some((None, typed.place.span));
            for (name, span) in all.chain(none) {
                let this = EarlierRule { alpn: Rc::clone(&condition), simple_obfs, span };
                let same_name = earlier.entry(name.clone()).or_default();
                if let Some(first) = same_name.iter().find(|first| first.covers(&this)) {
                    let what = match &name {
                        Some(_) => "this name can never match here".to_owned(),
                        None => "this rule can never match".to_owned(),
                    };
                    let line = self.report.line(first.span);
                    let note = format!(
                        "line {line} matches the same connections, and the first match wins: \
                         remove this one, or move it up and add `alpn` or simple_obfs = true"
                    );
                    self.report.error(span, what, note);
                }
                same_name.push(this);
            }
        }
        let first = typed.names.value.as_ref().and_then(|names| names.value.first());
        let name = first.map_or_else(|| "*".to_owned(), |name| name.value.to_ascii_lowercase());
        let action = if ends {
            let names = names.as_deref().unwrap_or_default();
            let end = self.tls_end(of, typed, names, &name, alpn.clone().unwrap_or_default());
            end.map(|end| TlsAction::End(Arc::new(end)))
        } else {
            self.passes_on(typed, alpn.clone())
        };
        alpn?;
        let names = names?.into_iter().map(|(name, _)| name).collect();
        Some(Arc::new(TlsRule { name, names, action: action? }))
    }

    /// Reports keys of TLS that ends here in a rule with `simple_obfs`.
    fn no_end(&self, typed: &keys::TlsRule) {
        for (key, span) in [
            ("certificate", typed.certificate.key),
            ("acme", typed.acme.key.filter(|_| typed.acme.get())),
            ("client_ca", typed.client_ca.key),
            ("min_version", typed.min_version.key),
        ] {
            let Some(span) = span else { continue };
            let what = format!("`{key}` cannot be combined with simple_obfs = true");
            let note = "a handshake of simple-obfs only looks like TLS: make two rules for the \
                        names, one of them without `simple_obfs`";
            self.report.error(span, what, note);
        }
    }

    /// What a rule does that passes bytes on.
    fn passes_on(&self, typed: &keys::TlsRule, alpn: Option<Vec<String>>) -> Option<TlsAction> {
        if !typed.cluster.is_given() && typed.place.complete {
            let what = "[[listener.tls]] needs `cluster`, `certificate` or `acme`";
            let note = "name the [cluster.NAME] that the connections go to, or the certificate \
                        with which TLS ends here";
            self.report.error(typed.place.span, what, note);
        }
        let only_ended =
            [("client_ca", &typed.client_ca.key), ("min_version", &typed.min_version.key)];
        for (key, span) in only_ended {
            if let (Some(span), false) = (span, typed.simple_obfs.get()) {
                let what = format!("`{key}` needs `certificate` or `acme`");
                let note = "add one of them, or remove it: other rules pass the bytes on";
                self.report.error(*span, what, note);
            }
        }
        let cluster = self.cluster_name(&typed.cluster)?;
        if typed.simple_obfs.get() {
            return Some(TlsAction::Obfs { cluster });
        }
        let mut alpn = alpn?;
        alpn.sort_unstable();
        alpn.dedup();
        Some(TlsAction::PassOn { cluster, alpn })
    }

    fn server_names(&self, typed: &keys::TlsRule) -> Option<Vec<(HostName, Span)>> {
        let Some(texts) = typed.names.as_ref() else {
            return (!typed.names.is_given()).then(Vec::new);
        };
        let mut names = Vec::with_capacity(texts.len());
        for text in texts.iter() {
            match address::host_name(&text.value) {
                Ok(name) => {
                    // RFC 6066 section 3. Rules with `acme` get advice of their own.
                    let is_ip = matches!(&name, HostName::Exact(exact) if is_ip(exact));
                    if is_ip && !typed.acme.get() {
                        let what = format!("{} is an IP address", quoted(&text.value));
                        let note = "a server name in TLS is never an IP address: leave `names` out \
                                    in the rule that has the certificate for it";
                        self.report.error(text.span, what, note);
                    }
                    names.push((name, text.span));
                }
                Err(fault) => self.report.fault(text.span, fault),
            }
        }
        (names.len() == texts.len()).then_some(names)
    }

    pub(super) fn protocols(&self, field: &Field<List<String>>) -> Option<Vec<String>> {
        let Some(texts) = field.as_ref() else {
            return (!field.is_given()).then(Vec::new);
        };
        for text in texts.iter() {
            // The length of a protocol name is one byte (RFC 7301 section 3.1).
            if !(1..=255).contains(&text.value.len()) {
                let what = format!("{} is not the name of a protocol", quoted(&text.value));
                let note = "a protocol name has 1 to 255 bytes, as in alpn = [\"h2\", \
                            \"http/1.1\"]";
                self.report.error(text.span, what, note);
            }
        }
        Some(texts.iter().map(|text| text.value.clone()).collect())
    }
}

/// Whether TLS ends in the rule. An `acme` that was reported counts as true.
pub(super) fn ends(typed: &keys::TlsRule) -> bool {
    typed.certificate.is_given() || typed.acme.is_given() && typed.acme.as_ref() != Some(&false)
}

/// The rules so far by server name. Without a name a rule matches all connections that no rule with
/// a name matches.
type EarlierRules = HashMap<Option<HostName>, Vec<EarlierRule>>;

/// The connections with one server name that a rule matches.
struct EarlierRule {
    alpn: Rc<Vec<String>>,
    simple_obfs: bool,
    span: Span,
}

impl EarlierRule {
    /// Returns true when no connection is left for `later`.
    fn covers(&self, later: &EarlierRule) -> bool {
        let protocols = self.alpn.is_empty()
            || !later.alpn.is_empty() && later.alpn.iter().all(|name| self.alpn.contains(name));
        protocols && (!self.simple_obfs || later.simple_obfs)
    }
}
