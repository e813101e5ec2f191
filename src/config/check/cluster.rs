//! Checks `[cluster.NAME]`: endpoints must fit the kind of discovery.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::super::keys::{self, DiscoveryWord};
use super::super::report::{Fault, Span, quoted};
use super::super::types::{At, Field, List};
use super::super::{Cluster, Discovery, address};
use super::Check;

impl Check<'_> {
    pub(super) fn cluster(&self, name: &At<String>, typed: &keys::Cluster) -> Option<Cluster> {
        self.name("cluster", name);
        // An invalid `discovery` was reported. Endpoints are not checked, because their kind is
        // unknown.
        if typed.discovery.is_given() && typed.discovery.value.is_none() {
            return None;
        }
        let discovery = match typed.discovery.get() {
            DiscoveryWord::StrictDns => {
                let names = self.endpoints(&typed.endpoints, address::dns_endpoint);
                let refresh = typed.dns_refresh.get().0;
                let family = typed.dns_family.get();
                names.map(|names| Discovery::StrictDns { names, refresh, family })
            }
            DiscoveryWord::Static => {
                self.endpoints(&typed.endpoints, address::static_endpoint).map(Discovery::Static)
            }
        };
        let tls = match &typed.tls.value {
            None => (!typed.tls.is_given()).then_some(None),
            Some(at) => self.cluster_tls(at, discovery.as_ref()).map(Some),
        };
        Some(Cluster {
            name: Arc::from(name.value.as_str()),
            discovery: discovery?,
            connect_timeout: typed.connect_timeout.get().0,
            connect_attempts: typed.connect_attempts.get() as usize,
            keepalive_connections: typed.keepalive_connections.get().0.unwrap_or(0) as usize,
            keepalive_timeout: typed.keepalive_timeout.get().0,
            tls: tls?,
        })
    }

    /// Reads the endpoints. Reports invalid endpoints and duplicates. Returns `None`
    /// if the key was left out or was reported.
    fn endpoints<T: Clone + Eq + Hash>(
        &self,
        field: &Field<List<String>>,
        understand: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<Vec<T>> {
        let texts = field.as_ref()?;
        let mut seen: HashMap<T, Span> = HashMap::new();
        let mut endpoints = Vec::with_capacity(texts.len());
        for text in texts.iter() {
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
