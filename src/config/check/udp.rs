//! Checks `protocol = "udp"`: its addresses, and that its cluster has no paths.

use super::super::Udp;
use super::super::keys;
use super::super::types::{Field, OneOrMany};
use super::Check;
use super::listener::UsedAddresses;
use crate::sys::Address;

impl Check<'_> {
    pub(super) fn udp(&self, typed: &keys::Listener) -> Option<Udp> {
        let cluster = self.cluster_name(&typed.cluster);
        if let (Some(cluster), Some(at)) = (&cluster, &typed.cluster.value)
            && self.with_paths.contains(&&**cluster)
        {
            let what = "a udp listener cannot use a cluster with `unix:` endpoints";
            let note = "use a cluster whose endpoints are IP addresses";
            self.report.error(at.span, what, note);
        }
        typed.cluster.value.iter().for_each(|at| self.udp_cluster(at));
        let max_sessions = typed.max_sessions.get();
        Some(Udp {
            cluster: cluster?,
            idle_timeout: typed.idle_timeout.get().0,
            max_sessions: usize::try_from(max_sessions).unwrap_or(usize::MAX),
        })
    }

    /// Reads `listen` like `addresses`, but refuses paths.
    pub(super) fn udp_addresses(
        &self,
        field: &Field<OneOrMany<String>>,
        used: &mut UsedAddresses,
    ) -> Option<Vec<Address>> {
        let texts = field.as_ref().into_iter().flat_map(|texts| texts.iter());
        for text in texts.filter(|text| text.value.starts_with("unix:")) {
            let what = "a udp listener cannot listen on a path";
            let note = "write \"IP:port\" such as \"0.0.0.0:8388\"";
            self.report.error(text.span, what, note);
        }
        self.addresses(field, used)
    }
}
