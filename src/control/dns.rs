//! Endpoints of strict_dns clusters: every address of every name, looked up off the data path,
//! again when the answer's time to live is over.
//!
//! | a look-up gives | the name's addresses |
//! | --- | --- |
//! | addresses | these |
//! | no answer, SERVFAIL, REFUSED, … | the last good ones, without limit |
//! | NXDOMAIN, or an answer without addresses | the last good ones for 30 s more, then none |
//!
//! Each name is followed for IPv4 and IPv6 by a task of its own, so that trouble with one neither
//! delays nor loses another.

mod lookup;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use self::lookup::{Family, Found, look_up};
use super::crew::Crew;
use crate::config::{Config, Discovery, DnsName};
use crate::sys::Address;
use crate::worker::Command;

/// How long a name without addresses is not believed.
const EMPTY_HOLD: Duration = Duration::from_secs(30);

/// Tells when every name of every cluster was looked up once.
pub(super) struct Answers {
    clusters: Vec<watch::Receiver<bool>>,
}

impl Answers {
    /// Waits for the first answers of all.
    pub(super) async fn first(&mut self) {
        for cluster in &mut self.clusters {
            // An error means that the task has ended, which it does with the process.
            let _ = cluster.wait_for(|done| *done).await;
        }
    }
}

/// Sends the endpoints of static clusters, and begins to look up those of strict_dns clusters.
pub(super) fn start(config: &Arc<Config>, crew: &Crew) -> Answers {
    let mut clusters = Vec::new();
    for (index, cluster) in config.clusters.iter().enumerate() {
        match &cluster.discovery {
            Discovery::Static(addresses) => {
                let addresses = addresses.as_slice().into();
                crew.tell(&Command::Endpoints { cluster: index, addresses });
            }
            Discovery::StrictDns { names, refresh } => {
                let (first, done) = watch::channel(false);
                clusters.push(done);
                let cluster = Cluster {
                    index,
                    name: cluster.name.clone(),
                    names: names.clone(),
                    known: HashMap::new(),
                    sent: Vec::new(),
                    workers: crew.commands(),
                };
                tokio::spawn(cluster.follow(*refresh, first));
            }
        }
    }
    Answers { clusters }
}

type Key = (String, Family);

/// One cluster: the addresses of its names, and what the workers were told.
struct Cluster {
    index: usize,
    name: String,
    names: Vec<DnsName>,
    known: HashMap<Key, Vec<IpAddr>>,
    sent: Vec<SocketAddr>,
    workers: Vec<Sender<Command>>,
}

impl Cluster {
    /// Takes in what the followers of its names find.
    async fn follow(mut self, refresh: Duration, first: watch::Sender<bool>) {
        let (found, mut news) = mpsc::unbounded_channel();
        let mut hosts: Vec<String> = self.names.iter().map(|name| name.host.clone()).collect();
        hosts.sort();
        // Several ports of one name need one look-up.
        hosts.dedup();
        let expected = hosts.len() * Family::BOTH.len();
        for (host, family) in
            hosts.iter().flat_map(|host| Family::BOTH.map(|family| (host, family)))
        {
            let follower = Follower {
                cluster: self.name.clone(),
                key: (host.clone(), family),
                refresh,
                addresses: Vec::new(),
                empty_since: None,
                failing: false,
            };
            tokio::spawn(follower.follow(found.clone()));
        }
        while let Some((key, addresses)) = news.recv().await {
            self.known.insert(key, addresses);
            // IPv4 and IPv6 mostly come together: the first that is there need not wait.
            self.tell();
            first.send_replace(self.known.len() == expected);
        }
    }

    fn tell(&mut self) {
        let mut endpoints = Vec::new();
        for name in &self.names {
            for family in Family::BOTH {
                let known = self.known.get(&(name.host.clone(), family));
                let with_port = |ip: &IpAddr| SocketAddr::new(*ip, name.port);
                endpoints.extend(known.into_iter().flatten().map(with_port));
            }
        }
        // The order of an answer means nothing, so a rotated one is no change.
        endpoints.sort();
        endpoints.dedup();
        if endpoints == self.sent {
            return;
        }
        let list = endpoints.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ");
        if endpoints.is_empty() {
            tracing::warn!("cluster {} has no endpoint any more", self.name);
        } else {
            tracing::info!("cluster {} has {} endpoints: {list}", self.name, endpoints.len());
        }
        let addresses: Arc<[Address]> = endpoints.iter().copied().map(Address::Ip).collect();
        self.sent = endpoints;
        for worker in &self.workers {
            let addresses = Arc::clone(&addresses);
            // A worker that has ended needs no telling.
            let _ = worker.send(Command::Endpoints { cluster: self.index, addresses });
        }
    }
}

/// Follows one name in one family.
struct Follower {
    cluster: String,
    key: Key,
    refresh: Duration,
    /// The last good answer.
    addresses: Vec<IpAddr>,
    /// Since when all look-ups have said that there are none.
    empty_since: Option<Instant>,
    failing: bool,
}

impl Follower {
    async fn follow(mut self, found: mpsc::UnboundedSender<(Key, Vec<IpAddr>)>) {
        let mut told = None;
        loop {
            let answer = look_up(&self.key.0, self.key.1).await;
            let wait = self.learn(answer);
            if told.as_ref() != Some(&self.addresses) {
                told = Some(self.addresses.clone());
                if found.send((self.key.clone(), self.addresses.clone())).is_err() {
                    return;
                }
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes one answer in; returns how long it lasts.
    fn learn(&mut self, found: Found) -> Duration {
        if let Found::Failed(error) = found {
            if !std::mem::replace(&mut self.failing, true) {
                let (cluster, (host, family), kept) =
                    (&self.cluster, &self.key, self.addresses.len());
                tracing::warn!(
                    "cluster {cluster}: cannot look up {host} ({family}): {error}; keeping {kept} \
                     addresses"
                );
            }
            // Nobody knows: what was said before is not confirmed.
            self.empty_since = None;
            return self.refresh;
        }
        self.failing = false;
        match found {
            Found::Addresses(addresses, ttl) => {
                self.empty_since = None;
                self.addresses = addresses;
                ttl.filter(|ttl| !ttl.is_zero()).unwrap_or(self.refresh)
            }
            Found::Empty | Found::Failed(_) => {
                let since = *self.empty_since.get_or_insert_with(Instant::now);
                let left = EMPTY_HOLD.saturating_sub(since.elapsed());
                if left.is_zero() {
                    self.addresses = Vec::new();
                }
                if self.addresses.is_empty() { self.refresh } else { left.min(self.refresh) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower() -> Follower {
        Follower {
            cluster: "c".into(),
            key: ("node.test".into(), Family::V4),
            refresh: Duration::from_secs(5),
            addresses: Vec::new(),
            empty_since: None,
            failing: false,
        }
    }

    fn one() -> Vec<IpAddr> {
        vec![[127, 0, 0, 1].into()]
    }

    #[test]
    fn the_time_to_live_rules_unless_it_is_unknown_or_0() {
        let seconds = |ttl| follower().learn(Found::Addresses(one(), ttl)).as_secs();
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
        follower.learn(Found::Empty);
        assert_eq!(follower.addresses, one());
        follower.empty_since = Instant::now().checked_sub(EMPTY_HOLD);
        follower.learn(Found::Empty);
        assert!(follower.addresses.is_empty());
    }

    #[test]
    fn a_failure_in_between_starts_the_hold_anew() {
        let mut follower = follower();
        follower.learn(Found::Addresses(one(), None));
        follower.empty_since = Instant::now().checked_sub(EMPTY_HOLD);
        follower.learn(Found::Failed("no answer".into()));
        follower.learn(Found::Empty);
        assert_eq!(follower.addresses, one());
    }
}
