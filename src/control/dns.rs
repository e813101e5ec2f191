//! Endpoints of strict_dns clusters: every address of every name, looked up off the data path,
//! again when the answer's time to live is over.
//!
//! | a look-up gives | the name's addresses |
//! | --- | --- |
//! | addresses | these |
//! | no answer, SERVFAIL, REFUSED, … | the last good ones, without limit |
//! | NXDOMAIN, or an answer without addresses | the last good ones for 30 s more, then none |
//!
//! IPv4 and IPv6 are looked up and kept separately, so that trouble with one does not lose the
//! other. /etc/hosts comes before DNS; both it and resolv.conf are read anew for each round, so
//! that a change needs no restart.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use tokio::sync::watch;

use super::crew::Crew;
use crate::config::{Config, Discovery, DnsName};
use crate::sys::Address;
use crate::worker::Command;

/// How long a name without addresses is not believed.
const EMPTY_HOLD: Duration = Duration::from_secs(30);

/// Tells when every cluster had its first round.
pub(super) struct Answers {
    clusters: Vec<watch::Receiver<bool>>,
}

impl Answers {
    /// Waits for the first round of all.
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
                    refresh: *refresh,
                    known: HashMap::new(),
                    sent: Vec::new(),
                    workers: crew.commands(),
                };
                tokio::spawn(cluster.follow(first));
            }
        }
    }
    Answers { clusters }
}

/// One cluster and what is known of its names.
struct Cluster {
    index: usize,
    name: String,
    names: Vec<DnsName>,
    refresh: Duration,
    known: HashMap<(String, RecordType), Known>,
    sent: Vec<SocketAddr>,
    workers: Vec<Sender<Command>>,
}

/// The last good answer for one name and family.
#[derive(Default)]
struct Known {
    addresses: Vec<IpAddr>,
    /// Since when look-ups say that there are none.
    empty_since: Option<Instant>,
    failing: bool,
}

/// What one look-up gives.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// At least one address; the smallest time to live of the chain, where there is one.
    Addresses(Vec<IpAddr>, Option<Duration>),
    /// Surely none.
    Empty,
    /// Nobody knows.
    Failed(String),
}

impl Cluster {
    async fn follow(mut self, first: watch::Sender<bool>) {
        loop {
            let wait = self.round().await;
            first.send_replace(true);
            tokio::time::sleep(wait).await;
        }
    }

    /// Looks every name up and tells the workers what changed. Returns when to do so again.
    async fn round(&mut self) -> Duration {
        let hosts = Hosts::from_system().unwrap_or_default();
        let resolver = resolver();
        let mut wait: Option<Duration> = None;
        for host in self.hosts() {
            for (family, found) in look_up(&hosts, &resolver, &host).await {
                let lasts = self.learn(&host, family, found);
                wait = Some(wait.map_or(lasts, |wait| wait.min(lasts)));
            }
        }
        self.tell();
        wait.unwrap_or(self.refresh)
    }

    /// Each host name once: several ports of it need one look-up.
    fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<String> = self.names.iter().map(|name| name.host.clone()).collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }

    /// Takes one answer in; returns how long it lasts.
    fn learn(&mut self, host: &str, family: RecordType, found: Found) -> Duration {
        let known = self.known.entry((host.to_owned(), family)).or_default();
        let failing = matches!(found, Found::Failed(_));
        match found {
            Found::Addresses(addresses, ttl) => {
                known.empty_since = None;
                known.addresses = addresses;
                known.failing = false;
                return ttl.filter(|ttl| !ttl.is_zero()).unwrap_or(self.refresh);
            }
            Found::Empty => {
                let since = *known.empty_since.get_or_insert_with(Instant::now);
                let left = EMPTY_HOLD.saturating_sub(since.elapsed());
                if !known.addresses.is_empty() && left.is_zero() {
                    known.addresses = Vec::new();
                }
                known.failing = false;
                if !known.addresses.is_empty() {
                    return left.min(self.refresh);
                }
            }
            Found::Failed(error) => {
                if !known.failing {
                    tracing::warn!(
                        "cluster {}: cannot look up {host} ({family}): {error}; keeping {} \
                         addresses",
                        self.name,
                        known.addresses.len()
                    );
                }
            }
        }
        known.failing = failing;
        self.refresh
    }

    fn tell(&mut self) {
        let mut endpoints = Vec::new();
        for name in &self.names {
            for family in [RecordType::A, RecordType::AAAA] {
                if let Some(known) = self.known.get(&(name.host.clone(), family)) {
                    let with_port = |ip: &IpAddr| SocketAddr::new(*ip, name.port);
                    endpoints.extend(known.addresses.iter().map(with_port));
                }
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
            let _ = worker.send(Command::Endpoints { cluster: self.index, addresses });
        }
    }
}

/// A resolver by the system's configuration as it is now; it keeps no answers of its own.
fn resolver() -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    let options = builder.options_mut();
    options.cache_size = 0;
    // The aliases on the way have times to live too.
    options.preserve_intermediates = true;
    builder.build()
}

/// Both families of one host. The hosts file answers for both.
async fn look_up(
    hosts: &Hosts,
    resolver: &Result<TokioResolver, NetError>,
    host: &str,
) -> [(RecordType, Found); 2] {
    if let Ok(ip) = host.parse::<IpAddr>() {
        let own = if ip.is_ipv4() { RecordType::A } else { RecordType::AAAA };
        return [RecordType::A, RecordType::AAAA].map(|family| {
            let addresses = Found::Addresses(vec![ip], None);
            (family, if family == own { addresses } else { Found::Empty })
        });
    }
    let families = [RecordType::A, RecordType::AAAA];
    let local = families.map(|family| from_hosts(hosts, host, family));
    if local.iter().any(|found| *found != Found::Empty) {
        let [v4, v6] = local;
        return [(RecordType::A, v4), (RecordType::AAAA, v6)];
    }
    let resolver = match resolver {
        Ok(resolver) => resolver,
        Err(error) => {
            return families.map(|family| (family, Found::Failed(error.to_string())));
        }
    };
    let (v4, v6) = tokio::join!(
        from_dns(resolver, host, RecordType::A),
        from_dns(resolver, host, RecordType::AAAA)
    );
    [(RecordType::A, v4), (RecordType::AAAA, v6)]
}

fn from_hosts(hosts: &Hosts, host: &str, family: RecordType) -> Found {
    let Ok(name) = Name::from_utf8(host) else { return Found::Empty };
    let lookup = hosts.lookup_static_host(&Query::query(name, family));
    let records = lookup.iter().flat_map(|lookup| lookup.answers());
    let addresses: Vec<IpAddr> = records.filter_map(|record| record.data.ip_addr()).collect();
    if addresses.is_empty() { Found::Empty } else { Found::Addresses(addresses, None) }
}

async fn from_dns(resolver: &TokioResolver, host: &str, family: RecordType) -> Found {
    match resolver.lookup(host, family).await {
        Ok(lookup) => {
            let records = lookup.answers();
            let ttl = records.iter().map(|record| record.ttl).min().unwrap_or(0);
            let addresses: Vec<IpAddr> =
                records.iter().filter_map(|record| record.data.ip_addr()).collect();
            match addresses.is_empty() {
                true => Found::Empty,
                false => Found::Addresses(addresses, Some(Duration::from_secs(ttl.into()))),
            }
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none)))
            if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
        {
            Found::Empty
        }
        Err(error) => Found::Failed(error.to_string()),
    }
}
