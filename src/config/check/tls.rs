//! Checks `[[listener.tls]]`: each name occurs once for each protocol, each rule is reachable.

use std::collections::HashMap;
use std::rc::Rc;

use super::super::keys;
use super::super::report::{Span, quoted};
use super::super::types::{Field, List};
use super::super::{HostName, RelayTimeouts, Tls, TlsRule, address};
use super::Check;

impl Check<'_> {
    pub(super) fn tls(&self, typed: &keys::Listener, timeouts: RelayTimeouts) -> Option<Tls> {
        let mut earlier = EarlierRules::new();
        let mut rules = Vec::with_capacity(typed.tls.len());
        for rule in typed.tls.iter() {
            rules.push(self.tls_rule(rule, &mut earlier));
        }
        Some(Tls {
            hello_timeout: typed.hello_timeout.get().0,
            rules: rules.into_iter().collect::<Option<Vec<TlsRule>>>()?,
            timeouts,
        })
    }

    fn tls_rule(&self, typed: &keys::TlsRule, earlier: &mut EarlierRules) -> Option<TlsRule> {
        let names = self.server_names(&typed.names);
        let alpn = self.protocols(&typed.alpn).map(Rc::new);
        let simple_obfs = typed.simple_obfs.get();
        if simple_obfs {
            let note = "remove it; a simple-obfs client offers no protocols, so no connection can \
                        match";
            if let Some(span) = typed.alpn.key {
                let what = "`alpn` cannot be combined with simple_obfs = true";
                self.report.error(span, what, note);
            }
        }
        if let (Some(names), Some(alpn)) = (&names, &alpn) {
            // A rule without names is checked like a rule with one name, `None`.
            let all = names.iter().map(|(name, span)| (Some(name.clone()), *span));
            let none = names.is_empty().then_some((None, typed.place.span));
            for (name, span) in all.chain(none) {
                let this = EarlierRule { alpn: Rc::clone(alpn), simple_obfs, span };
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
        let cluster = self.cluster_name(&typed.cluster);
        let (names, alpn) = (names?, alpn?);
        let first = typed.names.value.as_ref().and_then(|names| names.value.first());
        Some(TlsRule {
            name: first.map_or_else(|| "*".to_owned(), |name| name.value.to_ascii_lowercase()),
            names: names.into_iter().map(|(name, _)| name).collect(),
            alpn: alpn.to_vec(),
            cluster: cluster?,
            simple_obfs,
        })
    }

    fn server_names(&self, field: &Field<List<String>>) -> Option<Vec<(HostName, Span)>> {
        let Some(texts) = field.as_ref() else {
            return (!field.is_given()).then(Vec::new);
        };
        let mut names = Vec::with_capacity(texts.len());
        for text in texts.iter() {
            match address::host_name(&text.value) {
                Ok(name) => names.push((name, text.span)),
                Err(fault) => self.report.fault(text.span, fault),
            }
        }
        (names.len() == texts.len()).then_some(names)
    }

    fn protocols(&self, field: &Field<List<String>>) -> Option<Vec<String>> {
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
        let mut protocols: Vec<String> = texts.iter().map(|text| text.value.clone()).collect();
        protocols.sort_unstable();
        protocols.dedup();
        Some(protocols)
    }
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
