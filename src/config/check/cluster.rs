//! Checks `[cluster.NAME]`: endpoints must fit the kind of discovery.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::super::file::{self, DiscoveryWord};
use super::super::report::{Fault, Span, quoted};
use super::super::table::{At, Field};
use super::super::{Cluster, Discovery, DnsFamily, address};
use super::Check;

impl Check<'_> {
    pub(super) fn cluster(&self, name: &At<String>, typed: file::Cluster) -> Option<Cluster> {
        self.name("cluster", name);
        let discovery = match typed.discovery.as_ref() {
            Some(DiscoveryWord::StrictDns) => {
                let names = self.endpoints(&typed.endpoints, address::dns_endpoint);
                let refresh = typed.dns_refresh.or(Duration::from_secs(5));
                let family = typed.dns_family.or(DnsFamily::Auto);
                names.map(|names| Discovery::StrictDns { names, refresh, family })
            }
            // An invalid `discovery` was reported. Endpoints are not checked, because their kind is
            // unknown.
            None if typed.discovery.is_given() => None,
            None | Some(DiscoveryWord::Static) => {
                let because = "has no effect in a static cluster, which looks up no names";
                let note = "remove it, or add discovery = \"strict_dns\"";
                self.misplaced("dns_refresh", &typed.dns_refresh, because, note);
                self.misplaced("dns_family", &typed.dns_family, because, note);
                self.endpoints(&typed.endpoints, address::static_endpoint).map(Discovery::Static)
            }
        };
        Some(Cluster {
            name: Arc::from(name.value.as_str()),
            discovery: discovery?,
            connect_timeout: typed.connect_timeout.or(Duration::from_secs(5)),
            connect_attempts: typed.connect_attempts.or(2) as usize,
        })
    }

    /// Reads the endpoints. Reports an empty list, invalid endpoints and duplicates. Returns `None`
    /// if the key was left out or was reported.
    fn endpoints<T: Clone + Eq + Hash>(
        &self,
        field: &Field<Vec<At<String>>>,
        understand: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<Vec<T>> {
        let At { value: texts, span } = field.value.as_ref()?;
        if texts.is_empty() {
            let note = "add at least one: endpoints = [\"127.0.0.1:8388\"]";
            self.report.error(*span, "`endpoints` is an empty list", note);
        }
        let mut seen: HashMap<T, Span> = HashMap::new();
        let mut endpoints = Vec::with_capacity(texts.len());
        for text in texts {
            match understand(&text.value) {
                Err(fault) => self.report.fault(text.span, fault),
                Ok(endpoint) => match seen.insert(endpoint.clone(), text.span) {
                    None => endpoints.push(endpoint),
                    Some(first) => {
                        let what =
                            format!("the endpoint {} is in the list already", quoted(&text.value));
                        let note = format!(
                            "line {} has it; list each endpoint once",
                            self.report.line(first)
                        );
                        self.report.error(text.span, what, note);
                    }
                },
            }
        }
        Some(endpoints)
    }
}
