//! Endpoints of strict_dns clusters: every address of every name. Names are looked up off the data
//! path, and again when the answer's time to live is over.
//!
//! Each name has one task for IPv4 and one for IPv6, so that trouble with one neither delays nor
//! loses another.

mod cluster;
mod error;
mod files;
mod follower;
mod hosts;
mod lookup;
mod names;
mod server;
mod system;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use self::cluster::Cluster;
use self::files::Files;
use self::lookup::{Family, Found, look_up};
use super::crew::Crew;
use crate::config::{Config, Discovery, DnsFamily, DnsName};
use crate::error::{Error, chain};
use crate::worker::Command;

/// The tasks that look up the names of all clusters. Dropping this ends the look-ups.
pub(super) struct Dns {
    _clusters: JoinSet<()>,
    /// The names of each cluster without a first answer.
    unanswered: Vec<watch::Receiver<Vec<String>>>,
}

impl Dns {
    /// Waits until every name of every cluster has its first answer.
    pub(super) async fn first_answers(&mut self) {
        for names in &mut self.unanswered {
            // An error means that the task has ended, which happens only with the process.
            let _ = names.wait_for(Vec::is_empty).await;
        }
    }

    /// The names without a first answer, separated by commas.
    pub(super) fn missing(&self) -> String {
        let missing = self.unanswered.iter().flat_map(|names| names.borrow().clone());
        let mut missing: Vec<String> = missing.collect();
        missing.sort();
        missing.dedup();
        missing.join(", ")
    }
}

/// Sends the endpoints of static clusters, and starts to look up those of strict_dns clusters.
///
/// # Errors
/// A thread cannot be started.
pub(super) fn start(config: &Arc<Config>, crew: &Crew) -> Result<Dns, Error> {
    let names = config.clusters.iter().flat_map(|cluster| match &cluster.discovery {
        Discovery::StrictDns { names, .. } => names.as_slice(),
        Discovery::Static(_) => &[],
    });
    let files = Files::start(names.map(|name| name.host.as_str()))?;
    let (mut clusters, mut unanswered) = (JoinSet::new(), Vec::new());
    for cluster in &config.clusters {
        let name = &cluster.name;
        match &cluster.discovery {
            Discovery::Static(addresses) => {
                let (cluster, addresses) = (Arc::clone(name), addresses.as_slice().into());
                crew.tell(&Command::Endpoints { cluster, addresses });
            }
            Discovery::StrictDns { names, refresh, family } => {
                let hosts = families_of_hosts(names, *family);
                let cluster = Cluster::new(Arc::clone(config), name, names, &hosts, crew, &files);
                let (sender, names) = watch::channel(cluster.unanswered());
                clusters.spawn(cluster.run(hosts, *refresh, sender));
                unanswered.push(names);
            }
        }
    }
    Ok(Dns { _clusters: clusters, unanswered })
}

/// Looks up hosts that the control plane itself connects to.
#[derive(Clone)]
pub(super) struct HostLookup(Files);

impl HostLookup {
    /// Starts the thread that reads the system's configuration of names.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start() -> Result<HostLookup, Error> {
        Files::start([]).map(HostLookup)
    }

    /// The addresses of a host, those of IPv4 first.
    ///
    /// # Errors
    /// There is none, and it is not known whether there are any. The text says why.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let (v4, v6) =
            tokio::join!(look_up(&self.0, host, Family::V4), look_up(&self.0, host, Family::V6));
        let (mut addresses, mut failed) = (Vec::new(), None);
        for found in [v4, v6] {
            match found {
                Ok(Found::Addresses(found, _)) => addresses.extend(found),
                Ok(Found::Empty(_)) => {}
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if addresses.is_empty() => Err(chain(&error)),
            _ => Ok(addresses),
        }
    }
}

/// Returns each host once, with the families to look up: several ports of one name need one
/// look-up. A literal address is always used, because `dns_family` applies to names.
fn families_of_hosts(names: &[DnsName], family: DnsFamily) -> Vec<(String, Vec<Family>)> {
    let mut hosts: Vec<&str> = names.iter().map(|name| name.host.as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let families = |host: &str| match (host.parse::<IpAddr>(), family) {
        (Ok(ip), _) => vec![Family::of(ip)],
        (Err(_), DnsFamily::Auto) => vec![Family::V4, Family::V6],
        (Err(_), DnsFamily::Ipv4) => vec![Family::V4],
        (Err(_), DnsFamily::Ipv6) => vec![Family::V6],
    };
    hosts.into_iter().map(|host| (host.to_owned(), families(host))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_in_the_families_that_are_wanted_and_an_address_in_its_own() {
        let name = |host: &str, port| DnsName { host: host.to_owned(), port };
        let names =
            [name("b", 1), name("a", 1), name("b", 2), name("::1", 1), name("127.0.0.1", 1)];
        let expected = |families: &[Family]| {
            [
                ("127.0.0.1", &[Family::V4][..]),
                ("::1", &[Family::V6]),
                ("a", families),
                ("b", families),
            ]
            .map(|(host, families)| (host.to_owned(), families.to_vec()))
        };
        let both = [Family::V4, Family::V6];
        assert_eq!(families_of_hosts(&names, DnsFamily::Auto), expected(&both));
        assert_eq!(families_of_hosts(&names, DnsFamily::Ipv4), expected(&both[..1]));
        assert_eq!(families_of_hosts(&names, DnsFamily::Ipv6), expected(&both[1..]));
    }
}
