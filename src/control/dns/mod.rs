//! Endpoints of strict_dns clusters: every address of every name. Names are looked up off the data
//! path, and again when the answer's time to live is over.
//!
//! Each name has one task for IPv4 and one for IPv6, so that trouble with one neither delays nor
//! loses another.

mod ages;
mod cluster;
mod endpoints;
mod error;
mod files;
mod follower;
mod hosts;
mod lookup;
mod names;
mod server;
mod system;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub(super) use self::ages::{Age, Ages};
use self::cluster::{Answers, Cluster, Follows};
use self::files::Files;
use self::follower::Key;
use self::lookup::{Family, Found, look_up};
use super::roster::Roster;
use crate::config::{self, Config, Discovery, DnsFamily, DnsName};
use crate::error::{Error, chain};
use crate::observe::endpoints::Endpoints;
use crate::sys;

/// The last answer about a name, or a part of it.
#[derive(Serialize, Deserialize)]
pub(super) struct Known {
    host: String,
    family: Family,
    addresses: Vec<IpAddr>,
}

/// The most addresses of one [`Known`], so that its size has a bound.
const MAX_KNOWN: usize = 100;

/// The tasks that look up the names of all clusters of a configuration.
pub(super) struct Dns {
    files: Files,
    /// What a predecessor knew of names. It counts for clusters that are new here.
    inherited: HashMap<Key, Vec<IpAddr>>,
    roster: Roster,
    clusters: HashMap<Arc<str>, Member>,
}

/// A strict_dns cluster and its task.
struct Member {
    config: Arc<config::Cluster>,
    follows: Arc<Follows>,
    task: Arc<Task>,
    answers: watch::Receiver<Answers>,
}

/// A task that ends when this is dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The clusters of a configuration that is not in use yet. Those that are new or have changed are
/// looked up already; their answers do not reach the workers before [`Dns::commit`].
pub(super) struct Next {
    config: Arc<Config>,
    clusters: HashMap<Arc<str>, Member>,
}

impl Next {
    /// Waits until every name of every cluster has its first answer.
    pub(super) async fn first_answers(&mut self) {
        for member in self.clusters.values_mut() {
            // An error means that the task has ended, which happens only with the process.
            let _ = member.answers.wait_for(|answers| answers.unanswered.is_empty()).await;
        }
    }

    /// The names without a first answer, separated by commas.
    pub(super) fn missing(&self) -> String {
        let unanswered = |member: &Member| member.answers.borrow().unanswered.clone();
        let mut missing: Vec<String> = self.clusters.values().flat_map(unanswered).collect();
        missing.sort();
        missing.dedup();
        missing.join(", ")
    }
}

impl Dns {
    /// Starts the thread that reads the system's configuration of names. Nothing is looked up yet.
    /// `known` is what a predecessor knew. `roster` gets what endpoints there are.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start(config: &Config, roster: Roster, known: Vec<Known>) -> Result<Dns, Error> {
        let names = config.clusters.iter().flat_map(|cluster| match &cluster.discovery {
            Discovery::StrictDns { names, .. } => names.as_slice(),
            Discovery::Static(_) => &[],
        });
        let files = Files::start(names.map(|name| name.host.as_str()))?;
        let mut inherited = HashMap::<Key, Vec<IpAddr>>::new();
        for Known { host, family, addresses } in known {
            inherited.entry((host, family)).or_default().extend(addresses);
        }
        Ok(Dns { files, inherited, roster, clusters: HashMap::new() })
    }

    /// The last look-ups of all clusters, by their names.
    pub(super) fn ages(&self) -> Vec<(Arc<str>, Ages)> {
        let ages = self.clusters.iter();
        ages.map(|(name, member)| (Arc::clone(name), member.follows.ages.clone())).collect()
    }

    /// What a predecessor knew of these names.
    fn inherited_of(&self, hosts: &[(String, Vec<Family>)]) -> HashMap<Key, Vec<IpAddr>> {
        let keys = hosts.iter().flat_map(|(host, families)| {
            families.iter().map(move |family| (host.clone(), *family))
        });
        keys.filter_map(|key| {
            let addresses = self.inherited.get(&key)?.clone();
            Some((key, addresses))
        })
        .collect()
    }

    /// What is known of the names of all clusters.
    pub(super) fn known(&self) -> Vec<Known> {
        let mut all = HashMap::new();
        for member in self.clusters.values() {
            all.extend(member.answers.borrow().addresses.clone());
        }
        let parts = |((host, family), addresses): (Key, Vec<IpAddr>)| {
            let part = |addresses: &[IpAddr]| Known {
                host: host.clone(),
                family,
                addresses: addresses.to_vec(),
            };
            addresses.chunks(MAX_KNOWN).map(part).collect::<Vec<_>>()
        };
        all.into_iter().flat_map(parts).collect()
    }

    /// Starts to look up the clusters of another configuration, as far as they differ from the
    /// present ones. They begin with the last answers about the same names.
    pub(super) fn prepare(&self, config: &Arc<Config>) -> Next {
        let mut clusters = HashMap::new();
        for cluster in &config.clusters {
            let Discovery::StrictDns { names, refresh, family } = &cluster.discovery else {
                continue;
            };
            let before = self.clusters.get(&cluster.name);
            let same = before.filter(|before| before.config.discovery == cluster.discovery);
            let member = match same {
                Some(before) => Member {
                    config: Arc::clone(cluster),
                    follows: Arc::clone(&before.follows),
                    task: Arc::clone(&before.task),
                    answers: before.answers.clone(),
                },
                None => {
                    let hosts = families_of_hosts(names, *family);
                    let known = match before {
                        Some(before) => before.answers.borrow().addresses.clone(),
                        None => self.inherited_of(&hosts),
                    };
                    let follows = Arc::new(Follows::new(self.roster.clone()));
                    let task = Cluster::new(&cluster.name, names, &hosts, known, &follows);
                    let (sender, answers) = watch::channel(task.answers());
                    let task = tokio::spawn(task.run(hosts, *refresh, self.files.clone(), sender));
                    let (config, task) = (Arc::clone(cluster), Arc::new(Task(task.abort_handle())));
                    Member { config, follows, task, answers }
                }
            };
            clusters.insert(Arc::clone(&cluster.name), member);
        }
        Next { config: Arc::clone(config), clusters }
    }

    /// Ends the look-ups. The workers keep the endpoints that they have.
    pub(super) fn stop(&mut self) {
        self.clusters.clear();
    }

    /// Makes the prepared clusters the present ones, and ends the look-ups of the others. Returns
    /// the endpoints of all clusters, which the workers must get before any other command.
    /// Addresses that lead back to their cluster by the new configuration are not among them.
    pub(super) fn commit(&mut self, next: Next) -> Vec<(Arc<str>, Arc<Endpoints>)> {
        let Next { config, clusters } = next;
        self.clusters = clusters;
        // They were for the first configuration.
        self.inherited.clear();
        self.roster.keep(&config);
        let clusters = self.roster.clusters(&config);
        let mut loops = None;
        let endpoints = |cluster: &Arc<config::Cluster>| {
            let addresses = match &cluster.discovery {
                Discovery::Static(addresses) => self.roster.list(&cluster.name, addresses.clone()),
                Discovery::StrictDns { .. } => {
                    let member = self.clusters.get(&cluster.name)?;
                    let loops =
                        loops.get_or_insert_with(|| config.loops_of(&clusters, sys::is_local));
                    let resolved = &member.answers.borrow().resolved;
                    member.follows.commit(&cluster.name, &config, loops, resolved)
                }
            };
            Some((Arc::clone(&cluster.name), addresses))
        };
        config.clusters.iter().filter_map(endpoints).collect()
    }
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
