//! Checks a route that passes requests on: `cluster` without `upgrade`.

use std::sync::Arc;

use super::super::report::quoted;
use super::super::types::At;
use super::super::{
    PathMatch, PathRewrite, Proxy, RelayTimeouts, Rewrite, Tunnel, TunnelKind, address, keys,
};
use super::Check;
use super::fields::Message;
use crate::proto::http::has_dot_segment;

impl Check<'_> {
    /// `matched` is the path of the route. `timeouts` are the listener's: upgrades have them, apart
    /// from `idle_timeout`.
    pub(super) fn proxy(
        &self,
        route: &keys::Route,
        matched: Option<&PathMatch>,
        timeouts: RelayTimeouts,
    ) -> Option<Proxy> {
        let cluster = self.cluster_name(&route.cluster);
        let idle = route.idle_timeout.get().0;
        let rewrite = match &route.rewrite.value {
            None => Some(Rewrite { path: PathRewrite::Keep, host: None }),
            Some(at) => self.rewrite(at, matched),
        };
        Some(Proxy {
            rewrite: rewrite?,
            request_fields: self.field_rules(&route.request_fields, Message::Request),
            response_timeout: route.timeout.get().0,
            idle_timeout: idle,
            max_body: route.max_body.get().0,
            upgrades: Tunnel {
                cluster: Arc::clone(cluster.as_ref()?),
                kind: TunnelKind::Forward { early_data: false },
                timeouts: RelayTimeouts { idle, ..timeouts },
            },
            cluster: cluster?,
        })
    }

    /// Returns `None` if an error was reported.
    fn rewrite(&self, at: &At<Box<keys::Rewrite>>, matched: Option<&PathMatch>) -> Option<Rewrite> {
        let typed = &at.value;
        let given = [&typed.prefix, &typed.path, &typed.host].map(|key| key.is_given());
        if given == [false; 3] && typed.place.complete {
            let note = "add a key for what changes: prefix, path or host";
            self.report.error(at.span, "`rewrite` changes nothing", note);
        }
        let path = self.path_rewrite(&typed.path, &typed.prefix, "rewrite", matched);
        for at in [&typed.path, &typed.prefix].into_iter().filter_map(|key| key.value.as_ref()) {
            if has_dot_segment(&at.value) {
                let what = format!("{} has a dot segment", quoted(&at.value));
                let note =
                    "servers resolve the segments `.` and `..`: write the path that is meant";
                self.report.error(at.span, what, note);
            }
        }
        let host = match &typed.host.value {
            None => None,
            Some(host) => Some(self.host_and_port(host)?),
        };
        Some(Rewrite { path, host })
    }

    /// Returns `None` if an error was reported.
    fn host_and_port(&self, at: &At<String>) -> Option<String> {
        let host = address::host_and_port(&at.value);
        host.map_err(|fault| self.report.fault(at.span, fault)).ok()
    }
}
