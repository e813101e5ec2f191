//! Endpoints of strict_dns clusters: every address of every name. Names are looked up off the data
//! path, and again when the answer's time to live is over.
//!
//! | result of a look-up | the name's addresses |
//! | --- | --- |
//! | addresses | these |
//! | no answer, SERVFAIL, REFUSED, … | the last good ones, without limit |
//! | NXDOMAIN, or an answer without addresses | the last good ones for 30 s more, then none |
//!
//! Each name has one task for IPv4 and one for IPv6, so that trouble with one neither delays nor
//! loses another.

mod files;
mod hosts;
mod lookup;
mod names;
mod server;
mod system;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use self::files::Files;
use self::lookup::{Family, Found, look_up};
use self::names::{Names, Outcome, State};
use super::crew::Crew;
use crate::config::{Config, Discovery, DnsFamily, DnsName};
use crate::error::Error;
use crate::sys::{self, Address};
use crate::worker::Command;

/// How long the last addresses of a name are kept after answers without addresses.
const EMPTY_HOLD: Duration = Duration::from_secs(30);
/// The delay between a change of a name's state and its log line. Changes of other names, and of
/// the other family, within this time share the line: they mostly have the same cause.
const SETTLE: Duration = Duration::from_millis(300);

/// The tasks that look up the names of all clusters.
pub(super) struct Dns {
    clusters: Vec<Following>,
}

/// The task that looks up the names of one cluster. Dropping it ends the look-ups.
struct Following {
    task: AbortHandle,
    /// The names without a first answer.
    unanswered: watch::Receiver<Vec<String>>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Dns {
    /// Waits until every name of every cluster has its first answer.
    pub(super) async fn first_answers(&mut self) {
        for cluster in &mut self.clusters {
            // An error means that the task has ended, which happens only with the process.
            let _ = cluster.unanswered.wait_for(Vec::is_empty).await;
        }
    }

    /// The names without a first answer, separated by commas.
    pub(super) fn missing(&self) -> String {
        let missing = self.clusters.iter().flat_map(|one| one.unanswered.borrow().clone());
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
    let mut clusters = Vec::new();
    for cluster in &config.clusters {
        let name = Arc::clone(&cluster.name);
        match &cluster.discovery {
            Discovery::Static(addresses) => {
                let addresses = addresses.as_slice().into();
                crew.tell(&Command::Endpoints { cluster: name, addresses });
            }
            Discovery::StrictDns { names, refresh, family } => {
                let hosts = followed(names, *family);
                let states = Names::new(hosts.iter().cloned());
                let (unanswered, first) = watch::channel(states.unanswered());
                let cluster = Cluster {
                    config: Arc::clone(config),
                    name,
                    names: names.clone(),
                    states,
                    known: HashMap::new(),
                    found: Vec::new(),
                    left_out: Vec::new(),
                    sent: Vec::new(),
                    workers: crew.commands(),
                    files: files.clone(),
                };
                let task = tokio::spawn(cluster.follow(hosts, *refresh, unanswered));
                clusters.push(Following { task: task.abort_handle(), unanswered: first });
            }
        }
    }
    Ok(Dns { clusters })
}

/// Returns each host once, with the families to look up: several ports of one name need one
/// look-up. A literal address is always used, because `dns_family` applies to names.
fn followed(names: &[DnsName], family: DnsFamily) -> Vec<(String, Vec<Family>)> {
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

type Key = (String, Family);

/// A follower's result: the addresses to use from now on, and the outcome of the look-up.
struct News {
    key: Key,
    addresses: Vec<IpAddr>,
    outcome: Outcome,
}

/// One cluster: the addresses of its names, and what was sent to the workers.
struct Cluster {
    config: Arc<Config>,
    name: Arc<str>,
    names: Vec<DnsName>,
    states: Names,
    known: HashMap<Key, Vec<IpAddr>>,
    /// Every address of every name, sorted.
    found: Vec<SocketAddr>,
    /// Addresses of `found` that are not endpoints because they lead back to the cluster.
    left_out: Vec<SocketAddr>,
    sent: Vec<SocketAddr>,
    workers: Vec<Sender<Command>>,
    files: Files,
}

impl Cluster {
    /// Processes the results of the followers of its names.
    async fn follow(
        mut self,
        hosts: Vec<(String, Vec<Family>)>,
        refresh: Duration,
        unanswered: watch::Sender<Vec<String>>,
    ) {
        let (found, mut news) = mpsc::unbounded_channel();
        // Dropped with this task, which ends the followers.
        let mut followers = JoinSet::new();
        for (host, families) in hosts {
            for family in families {
                let follower = Follower::new((host.clone(), family), refresh);
                followers.spawn(follower.follow(self.files.clone(), found.clone()));
            }
        }
        let mut announce = None;
        loop {
            let settled = async {
                match announce {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // This task holds a sender itself, so the channel is never closed.
                Some(News { key, addresses, outcome }) = news.recv() => {
                    if self.states.learn(&key.0, key.1, outcome) && announce.is_none() {
                        announce = Some(tokio::time::Instant::now() + SETTLE);
                    }
                    self.known.insert(key, addresses);
                    // Send at once: answers for IPv4 and IPv6 mostly come together, but neither
                    // waits.
                    self.tell();
                    unanswered.send_replace(self.states.unanswered());
                }
                () = settled => {
                    announce = None;
                    self.announce();
                }
            }
        }
    }

    /// Logs the names whose state has changed.
    fn announce(&mut self) {
        let cluster = &self.name;
        for change in self.states.changes() {
            let (names, error) = (change.names, change.error);
            match change.state {
                State::Resolved => tracing::info!(%cluster, names, "names are resolved"),
                State::NoSuchName => tracing::warn!(%cluster, names, "names do not exist in DNS"),
                State::NoAddress => tracing::warn!(%cluster, names, "names have no address"),
                State::Partial => {
                    tracing::warn!(%cluster, names, error, "names are resolved in one family only");
                }
                State::Failing => tracing::warn!(%cluster, names, error, "cannot look up names"),
            }
        }
    }

    fn tell(&mut self) {
        let mut found = Vec::new();
        for name in &self.names {
            for family in [Family::V4, Family::V6] {
                let known = self.known.get(&(name.host.clone(), family));
                let with_port = |ip: &IpAddr| SocketAddr::new(*ip, name.port);
                found.extend(known.into_iter().flatten().map(with_port));
            }
        }
        // The order of addresses in an answer has no meaning, so a rotation is not a change.
        found.sort();
        found.dedup();
        if found == self.found {
            return;
        }
        self.leave_loops_out(&found);
        let is_used = |address: &&SocketAddr| !self.left_out.contains(address);
        let endpoints: Vec<SocketAddr> = found.iter().filter(is_used).copied().collect();
        self.found = found;
        if endpoints != self.sent {
            self.send(endpoints);
        }
    }

    /// Checks the new addresses and warns of those that lead back to the cluster, which the check
    /// of the configuration cannot find. If that is certain, an address does not become an
    /// endpoint.
    fn leave_loops_out(&mut self, found: &[SocketAddr]) {
        self.left_out.retain(|address| found.contains(address));
        let is_new = |address: &&SocketAddr| !self.found.contains(address);
        let new: Vec<SocketAddr> = found.iter().filter(is_new).copied().collect();
        for back in self.config.loops_through(&self.name, &new, sys::is_local) {
            let (cluster, endpoint, listeners) =
                (&self.name, back.address, back.listeners.join(" "));
            if back.certain {
                self.left_out.push(endpoint);
                tracing::warn!(
                    %cluster, %endpoint, listeners,
                    "the endpoint leads back to its own cluster by way of these listeners, and \
                     each connection would open another, without end: it is left out of the \
                     cluster. Let the name mean another server, or let the listener listen \
                     elsewhere"
                );
            } else {
                tracing::warn!(
                    %cluster, %endpoint, listeners,
                    "the endpoint probably leads back to its own cluster by way of these \
                     listeners, and each connection would open another: let the name mean another \
                     server, or let the listener listen elsewhere"
                );
            }
        }
    }

    fn send(&mut self, endpoints: Vec<SocketAddr>) {
        let list = endpoints.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ");
        let (cluster, count) = (&self.name, endpoints.len());
        if endpoints.is_empty() {
            tracing::warn!(%cluster, "the cluster has no endpoint any more");
        } else {
            tracing::info!(%cluster, count, endpoints = list, "the cluster has endpoints");
        }
        let addresses: Arc<[Address]> = endpoints.iter().copied().map(Address::Ip).collect();
        self.sent = endpoints;
        for worker in &self.workers {
            let addresses = Arc::clone(&addresses);
            let cluster = Arc::clone(&self.name);
            // An error means that the worker has ended.
            let _ = worker.send(Command::Endpoints { cluster, addresses });
        }
    }
}

/// Looks up one name in one family, again and again.
struct Follower {
    key: Key,
    refresh: Duration,
    /// The last good answer.
    addresses: Vec<IpAddr>,
    /// Since when all look-ups have found that there are no addresses.
    empty_since: Option<Instant>,
}

impl Follower {
    fn new(key: Key, refresh: Duration) -> Follower {
        Follower { key, refresh, addresses: Vec::new(), empty_since: None }
    }

    async fn follow(mut self, files: Files, found: mpsc::UnboundedSender<News>) {
        let mut told = None;
        loop {
            let (outcome, wait) = self.learn(look_up(&files, &self.key.0, self.key.1).await);
            let news = (outcome, self.addresses.clone());
            // Send only what differs from the last news.
            if told.as_ref() != Some(&news) {
                told = Some(news.clone());
                let (outcome, addresses) = news;
                let news = News { key: self.key.clone(), addresses, outcome };
                if found.send(news).is_err() {
                    return;
                }
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Processes one result. Returns its outcome, and the time until the next look-up.
    fn learn(&mut self, found: Found) -> (Outcome, Duration) {
        match found {
            Found::Addresses(addresses, ttl) => {
                self.empty_since = None;
                self.addresses = addresses;
                let ttl = ttl.filter(|ttl| !ttl.is_zero());
                (Outcome::Found, ttl.unwrap_or(self.refresh))
            }
            Found::Empty(absence) => {
                let since = *self.empty_since.get_or_insert_with(Instant::now);
                let left = EMPTY_HOLD.saturating_sub(since.elapsed());
                if left.is_zero() {
                    self.addresses = Vec::new();
                }
                let held = !self.addresses.is_empty();
                let wait = if held { left.min(self.refresh) } else { self.refresh };
                (Outcome::Empty(absence), wait)
            }
            Found::Failed(error) => {
                // A failure does not confirm the earlier answer without addresses.
                self.empty_since = None;
                (Outcome::Failed(error), self.refresh)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::lookup::Absence;
    use super::*;

    fn follower() -> Follower {
        Follower::new(("node.test".into(), Family::V4), Duration::from_secs(5))
    }

    fn one() -> Vec<IpAddr> {
        vec![[127, 0, 0, 1].into()]
    }

    #[test]
    fn the_time_to_live_rules_unless_it_is_unknown_or_0() {
        let seconds = |ttl| follower().learn(Found::Addresses(one(), ttl)).1.as_secs();
        assert_eq!(seconds(Some(Duration::from_secs(300))), 300);
        assert_eq!(seconds(Some(Duration::ZERO)), 5);
        assert_eq!(seconds(None), 5);
    }

    #[test]
    fn a_failure_keeps_and_an_empty_answer_is_held() {
        let mut follower = follower();
        follower.learn(Found::Addresses(one(), None));
        follower.learn(Found::Failed("no answer".into()));
        assert_eq!(follower.addresses, one());
        follower.learn(Found::Empty(Absence::NoSuchName));
        assert_eq!(follower.addresses, one());
        follower.empty_since = Instant::now().checked_sub(EMPTY_HOLD);
        follower.learn(Found::Empty(Absence::NoSuchName));
        assert!(follower.addresses.is_empty());
    }

    #[test]
    fn a_failure_in_between_starts_the_hold_anew() {
        let mut follower = follower();
        follower.learn(Found::Addresses(one(), None));
        follower.empty_since = Instant::now().checked_sub(EMPTY_HOLD);
        follower.learn(Found::Failed("no answer".into()));
        follower.learn(Found::Empty(Absence::NoSuchName));
        assert_eq!(follower.addresses, one());
    }

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
        assert_eq!(followed(&names, DnsFamily::Auto), expected(&both));
        assert_eq!(followed(&names, DnsFamily::Ipv4), expected(&both[..1]));
        assert_eq!(followed(&names, DnsFamily::Ipv6), expected(&both[1..]));
    }
}
