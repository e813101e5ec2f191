//! What earlier processes of the service have counted. After a take-over the old process tells the
//! new one what it counts, until it ends, so that the counters of the service go on.
//!
//! What is open is not among it: each process shows its own. Endpoints are summed by cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::counters::{Counters, Registry};
use super::endpoints::{self, Sums};
use super::histogram::Times;
use super::outcome::{Copied, End, Relay};

/// What was counted under one name, since the first process of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Earlier {
    /// Of a listener.
    Listener(String, Box<ListenerSums>),
    /// The requests of a host of a listener.
    Host(String, String, u64),
    /// Of a cluster.
    Cluster(String, Box<Sums>),
}

/// What was counted of a listener. Words stand for kinds, because another version of the program
/// may have others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerSums {
    /// Connections, tunnels and UDP sessions.
    begun: [u64; 3],
    bytes: [u64; 2],
    relayed: BTreeMap<String, [u64; 2]>,
    copied: BTreeMap<String, u64>,
    ends: BTreeMap<String, u64>,
    handshakes: [u64; 4],
    failed_handshakes: u64,
    handshake_times: Times,
}

impl ListenerSums {
    fn of(cells: &[Arc<Counters>]) -> ListenerSums {
        let sum = |number: &dyn Fn(&Counters) -> u64| cells.iter().map(|one| number(one)).sum();
        let some = |(word, count): (&str, u64)| (count > 0).then(|| (word.to_owned(), count));
        let relayed = Relay::ALL.into_iter().map(|relay| {
            let bytes = [0, 1].map(|way| sum(&|one| one.relayed[relay as usize][way].get()));
            (relay.as_str().to_owned(), bytes)
        });
        let copied =
            Copied::ALL.into_iter().map(|one| (one.as_str(), sum(&|cell| cell.copied_for(one))));
        let ends = End::ALL.into_iter().map(|end| (end.as_str(), sum(&|one| one.ended_by(end))));
        let mut handshake_times = Times::default();
        cells.iter().for_each(|cell| handshake_times += cell.tls.times());
        ListenerSums {
            begun: [
                sum(&|one| one.connections.begun()),
                sum(&|one| one.tunnels.begun()),
                sum(&|one| one.sessions.begun()),
            ],
            bytes: [0, 1].map(|way| sum(&|one| one.bytes[way].get())),
            relayed: relayed.collect(),
            copied: copied.filter_map(some).collect(),
            ends: ends.filter_map(some).collect(),
            handshakes: [0, 1, 2, 3].map(|kind| sum(&|one| one.tls.done[kind].get())),
            failed_handshakes: sum(&|one| one.tls.failed()),
            handshake_times,
        }
    }

    fn put_into(&self, cell: &Counters) {
        let gauges = [&cell.connections, &cell.tunnels, &cell.sessions];
        gauges.into_iter().zip(self.begun).for_each(|(gauge, begun)| gauge.set_begun(begun));
        cell.bytes.iter().zip(self.bytes).for_each(|(count, bytes)| count.set(bytes));
        for relay in Relay::ALL {
            let bytes = self.relayed.get(relay.as_str()).copied().unwrap_or_default();
            let counts = &cell.relayed[relay as usize];
            counts.iter().zip(bytes).for_each(|(count, bytes)| count.set(bytes));
        }
        for copied in Copied::ALL {
            let count = self.copied.get(copied.as_str()).copied().unwrap_or_default();
            cell.copied[copied as usize].set(count);
        }
        for end in End::ALL {
            let count = self.ends.get(end.as_str()).copied().unwrap_or_default();
            cell.ends[end as usize].set(count);
        }
        let done = cell.tls.done.iter().zip(self.handshakes);
        done.for_each(|(count, handshakes)| count.set(handshakes));
        cell.tls.failed.set(self.failed_handshakes);
        cell.tls.times.set(&self.handshake_times);
    }
}

/// Everything that this process and those before it have counted.
pub fn all(listeners: &Registry, clusters: &endpoints::Registry) -> Vec<Earlier> {
    let mut all = Vec::new();
    for (name, cells) in listeners.all() {
        all.push(Earlier::Listener(name.to_string(), Box::new(ListenerSums::of(&cells))));
    }
    for host in listeners.hosts.all() {
        let requests = host.requests();
        all.push(Earlier::Host(host.listener.to_string(), host.name.to_string(), requests));
    }
    for (name, sums) in clusters.sums() {
        all.push(Earlier::Cluster(name.to_string(), Box::new(sums)));
    }
    all
}

/// Takes what an earlier process has counted, in place of what was taken before under this name.
/// Names that are unknown here are skipped.
pub fn take(earlier: &Earlier, listeners: &Registry, clusters: &mut endpoints::Registry) {
    match earlier {
        Earlier::Listener(name, sums) => {
            if let Some(cell) = listeners.earlier(name) {
                sums.put_into(cell);
            }
        }
        Earlier::Host(listener, name, requests) => {
            if let Some(cell) = listeners.hosts.earlier(listener, name) {
                cell.requests.set(*requests);
            }
        }
        Earlier::Cluster(name, sums) => clusters.set_earlier(name, **sums),
    }
}
