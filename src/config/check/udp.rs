//! Checks `protocol = "udp"`: the keys that a listener without connections allows and refuses.

use std::time::Duration;

use super::super::Udp;
use super::super::file;
use super::super::table::{At, Field};
use super::Check;
use super::listener::UsedAddresses;
use crate::sys::Address;

impl Check<'_> {
    pub(super) fn udp(&self, typed: &file::Listener) -> Option<Udp> {
        let knows = "a udp listener relays every datagram to its cluster and has no";
        self.no_http(typed, "a udp listener does not parse what it relays", knows);
        self.no_tls(typed, knows);
        let note = "remove it; UDP has no connections";
        let because = "applies to connections";
        self.misplaced("backlog", &typed.backlog, because, note);
        self.misplaced("nodelay", &typed.nodelay, because, note);
        self.misplaced("keepalive", &typed.keepalive, because, note);
        self.misplaced("fast_open", &typed.fast_open, because, note);
        self.misplaced("half_closed_timeout", &typed.half_closed_timeout, because, note);
        let note = "remove it; `max_sessions` limits the number of clients";
        self.misplaced("max_connections", &typed.max_connections, because, note);
        if !typed.cluster.is_given() && typed.complete {
            let what = "a udp listener needs `cluster`";
            let note = "name the [cluster.NAME] that its datagrams go to";
            self.report.error(typed.span, what, note);
        }
        let cluster = self.cluster_name(&typed.cluster);
        if let (Some(cluster), Some(at)) = (&cluster, &typed.cluster.value)
            && self.with_paths.contains(&&**cluster)
        {
            let what = "a udp listener cannot use a cluster with `unix:` endpoints";
            let note = "use a cluster whose endpoints are IP addresses";
            self.report.error(at.span, what, note);
        }
        let max_sessions = typed.max_sessions.clone().or(65_536);
        Some(Udp {
            cluster: cluster?,
            idle_timeout: typed.idle_timeout.clone().or(Duration::from_secs(5 * 60)),
            max_sessions: usize::try_from(max_sessions).unwrap_or(usize::MAX),
        })
    }

    /// Reads `listen` like `addresses`, but refuses paths.
    pub(super) fn udp_addresses(
        &self,
        field: &Field<Vec<At<String>>>,
        used: &mut UsedAddresses,
    ) -> Option<Vec<Address>> {
        let texts = field.value.as_ref().map_or(&[][..], |at| &at.value);
        for text in texts.iter().filter(|text| text.value.starts_with("unix:")) {
            let what = "a udp listener cannot listen on a path";
            let note = "write \"IP:port\" such as \"0.0.0.0:8388\"";
            self.report.error(text.span, what, note);
        }
        self.addresses(field, used)
    }
}
