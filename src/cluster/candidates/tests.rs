//! The order in which endpoints are tried.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::cluster::IdleQuota;
use crate::config::{self, Discovery};
use crate::observe::endpoints::Endpoints;

const REFUSED: Reason = Reason::System(ConnectError::Refused(Errno::CONNREFUSED));
const NO_ROUTE: Reason = Reason::System(ConnectError::Unreachable(Errno::NETUNREACH));

fn cluster(connect_attempts: usize, ports: &[u16]) -> Cluster {
    let cluster = Cluster::new(
        &config::Cluster {
            name: "c".into(),
            discovery: Discovery::Static(Vec::new()),
            connect_timeout: Duration::from_secs(1),
            connect_attempts,
            keepalive_connections: 0,
            keepalive_timeout: Duration::from_secs(1),
            tls: None,
        },
        0,
        None,
        &IdleQuota::new(0),
        None,
    );
    let address = |&port| Address::Ip(([127, 0, 0, 1], port).into());
    set_endpoints(&cluster, &ports.iter().map(address).collect::<Vec<_>>());
    cluster
}

fn set_endpoints(cluster: &Cluster, addresses: &[Address]) {
    cluster.set_endpoints(&Endpoints::unshared(addresses, 1));
}

fn port(address: &Address) -> u16 {
    match address {
        Address::Ip(ip) => ip.port(),
        Address::Unix(_) => 0,
    }
}

/// The ports that one connection tries. `verdict` returns the failure of each, or `None`.
fn tries(cluster: &Cluster, verdict: impl Fn(u16) -> Option<Reason>) -> (Vec<u16>, Tried) {
    let (mut candidates, mut ports) = (cluster.candidates(), Vec::new());
    while let Some(endpoint) = candidates.next() {
        ports.push(port(&endpoint.address));
        match verdict(port(&endpoint.address)) {
            None => return (ports, candidates.connected()),
            Some(reason) => candidates.failed(&endpoint, reason),
        }
    }
    (ports, candidates.given_up())
}

#[test]
fn endpoints_take_turns() {
    let cluster = cluster(2, &[1, 2, 3]);
    let first = |_| tries(&cluster, |_| None).0[0];
    assert_eq!(Vec::from_iter((0..7).map(first)), [1, 2, 3, 1, 2, 3, 1]);
}

#[test]
fn one_endpoint_is_tried_again_and_none_gives_nothing() {
    let (ports, tried) = tries(&cluster(3, &[7]), |_| Some(REFUSED));
    assert_eq!(ports, [7, 7, 7]);
    assert_eq!((tried.attempts, tried.failed.len()), (3, 1));
    let (ports, tried) = tries(&cluster(3, &[]), |_| Some(REFUSED));
    assert_eq!((ports, tried.attempts, tried.last), (vec![], 0, None));
}

#[test]
fn attempts_go_to_others_while_there_are_others() {
    let cluster = cluster(4, &[1, 2, 3]);
    assert_eq!(tries(&cluster, |_| Some(REFUSED)).0, [1, 2, 3, 1]);
    assert_eq!(tries(&cluster, |_| Some(REFUSED)).0, [2, 3, 1, 2]);
}

#[test]
fn what_the_cluster_has_dropped_meanwhile_is_not_tried_while_it_has_others() {
    let address = |port| Address::Ip(([127, 0, 0, 1], port).into());
    // The first one is under way when others are dropped.
    let dropping = |kept: &[u16]| {
        let cluster = cluster(3, &[1, 2, 3]);
        let kept: Vec<Address> = kept.iter().copied().map(address).collect();
        tries(&cluster, |_| {
            set_endpoints(&cluster, &kept);
            Some(REFUSED)
        })
        .0
    };
    assert_eq!(dropping(&[1, 3]), [1, 3, 1]);
    assert_eq!(dropping(&[4]), [1, 2, 3]);
}

#[test]
fn what_cannot_be_reached_uses_up_no_attempt_and_is_asked_once() {
    let cluster = || cluster(2, &[1, 2, 3, 4]);
    let only_the_last = |port| (port != 4).then_some(NO_ROUTE);
    let (ports, tried) = tries(&cluster(), only_the_last);
    assert_eq!((ports.len(), ports[3]), (4, 4), "{ports:?}");
    assert_eq!((tried.attempts, tried.failed.len()), (1, 3));
    let (ports, tried) = tries(&cluster(), |_| Some(NO_ROUTE));
    assert_eq!((ports.len(), tried.attempts), (4, 0));
    // The only one with a route is tried as often as configured.
    let refuses = |port| Some(if port == 1 { REFUSED } else { NO_ROUTE });
    let (ports, tried) = tries(&cluster(), refuses);
    assert_eq!(ports.iter().filter(|port| **port == 1).count(), 2, "{ports:?}");
    assert_eq!((tried.attempts, ports.len()), (2, 5));
}

#[test]
fn what_was_unreachable_is_left_out_and_tried_again_one_at_a_time() {
    let ports: Vec<u16> = (1..=300).collect();
    let cluster = cluster(2, &ports);
    let only =
        |reachable: &'static [u16]| move |port| (!reachable.contains(&port)).then_some(NO_ROUTE);
    // No connection tries all of them, wherever it begins.
    assert_eq!(tries(&cluster, only(&[])).0.len(), MOST_UNREACHABLE);
    assert_eq!(tries(&cluster, only(&[300])).0.last(), Some(&300));
    let tried = (0..10).map(|_| tries(&cluster, only(&[300])).0);
    assert_eq!(tried.collect::<Vec<_>>(), vec![[300]; 10]);
    // New addresses change nothing for those that stay.
    let addresses = ports.iter().map(|&port| Address::Ip(([127, 0, 0, 1], port).into()));
    set_endpoints(&cluster, &addresses.collect::<Vec<_>>());
    assert_eq!(tries(&cluster, only(&[300])).0, [300]);

    cluster.endpoints.borrow().iter().for_each(|one| one.age());
    for _ in 0..1000 {
        assert!(tries(&cluster, only(&[300])).0.len() <= 2);
    }
    // An endpoint that is reachable again is found, and is used in turn from then on.
    cluster.endpoints.borrow().iter().for_each(|one| one.age());
    let found = (0..1000).filter(|_| tries(&cluster, only(&[7, 300])).0 == [7]).count();
    assert!(found > 200, "{found}");
}

#[test]
fn where_all_are_known_to_be_unreachable_a_connection_tries_a_few() {
    let cluster = cluster(2, &(1..=100).collect::<Vec<_>>());
    assert_eq!(tries(&cluster, |_| Some(NO_ROUTE)).0.len(), 100);
    for _ in 0..10 {
        assert_eq!(tries(&cluster, |_| Some(NO_ROUTE)).0.len(), MOST_KNOWN);
    }
    // Each connection goes on where the last one has ended, so that a new route is found.
    let found = |_| tries(&cluster, |port| (port != 50).then_some(NO_ROUTE)).0.contains(&50);
    assert!((0..10).any(found));
    assert_eq!(tries(&cluster, |port| (port != 50).then_some(NO_ROUTE)).0, [50]);
}

#[test]
fn a_shortage_of_this_machine_is_no_fault_of_the_endpoint() {
    let cluster = cluster(3, &[1, 2]);
    let short = Reason::System(ConnectError::Local(Errno::MFILE));
    let (ports, tried) = tries(&cluster, |_| Some(short));
    assert_eq!((ports.len(), tried.attempts, tried.failed.len()), (1, 1, 0));
    assert_eq!(tried.shortage, Some(Errno::MFILE));
    let (reports, received) = std::sync::mpsc::sync_channel(1);
    cluster.report_failures(&reports);
    assert!(received.try_recv().is_err(), "it was reported");
}

#[test]
fn where_no_port_is_left_for_one_endpoint_others_are_tried() {
    let no_port = Reason::System(ConnectError::Local(Errno::ADDRNOTAVAIL));
    let (ports, tried) = tries(&cluster(3, &[1, 2]), |port| (port == 1).then_some(no_port));
    assert_eq!((ports, tried.attempts, tried.failed.len()), (vec![1, 2], 2, 0));
    // Each endpoint is tried once: a moment later there is no port, either.
    let (ports, tried) = tries(&cluster(3, &[1, 2]), |_| Some(no_port));
    assert_eq!((ports, tried.attempts), (vec![1, 2], 2));
    assert_eq!(tried.shortage, Some(Errno::ADDRNOTAVAIL));
}

#[test]
fn an_attempt_that_was_cut_off_counts() {
    let cluster = cluster(2, &[1]);
    let mut candidates = cluster.candidates();
    let endpoint = candidates.next().unwrap();
    candidates.failed(&endpoint, REFUSED);
    assert!(candidates.next().is_some());
    let tried = candidates.cut_off();
    assert_eq!((tried.attempts, tried.failed.len()), (2, 1));
}

#[test]
fn sessions_alone_leave_out_what_refused_datagrams_and_share_the_others_evenly() {
    let cluster = cluster(2, &[1, 2, 3, 4]);
    let session = || port(&cluster.candidates_for_session().next().unwrap().address);
    let sessions = |count| {
        let mut shares = [0; 5];
        (0..count).for_each(|_| shares[usize::from(session())] += 1);
        shares
    };
    let endpoint = |at: usize| Rc::clone(&cluster.endpoints.borrow()[at - 1]);
    cluster.refused_datagrams(&endpoint(2), REFUSED);
    assert_eq!(sessions(30), [0, 10, 0, 10, 10]);
    // New addresses change nothing, and a connection has no effect on datagrams.
    let addresses = [1, 2, 3, 4].map(|at| Address::clone(&endpoint(at).address));
    set_endpoints(&cluster, &addresses);
    let connections = (0..4).map(|_| tries(&cluster, |_| None).0[0]);
    assert_eq!(connections.filter(|port| *port == 2).count(), 1);
    assert_eq!(sessions(30)[2], 0);
    // All are used in turn if there is no other endpoint, and after a second.
    [1, 3, 4].iter().for_each(|at| cluster.refused_datagrams(&endpoint(*at), REFUSED));
    assert_eq!(sessions(8), [0, 2, 2, 2, 2]);
    cluster.endpoints.borrow().iter().for_each(|one| one.age());
    assert_eq!(sessions(8), [0, 2, 2, 2, 2]);
}

#[test]
fn a_refusal_counts_for_an_address_that_was_dropped_and_came_back() {
    let cluster = cluster(2, &[1, 2]);
    let old = Rc::clone(&cluster.endpoints.borrow()[0]);
    let both: Vec<Address> =
        cluster.endpoints.borrow().iter().map(|one| Address::clone(&one.address)).collect();
    set_endpoints(&cluster, &both[1..]);
    set_endpoints(&cluster, &both);
    assert!(!Rc::ptr_eq(&old, &cluster.endpoints.borrow()[0]), "it is another object");
    cluster.refused_datagrams(&old, REFUSED);
    let session = || port(&cluster.candidates_for_session().next().unwrap().address);
    assert_eq!([session(), session(), session()], [2, 2, 2]);
}

#[test]
fn a_session_whose_other_endpoints_have_no_route_tries_one_that_has_refused() {
    let cluster = cluster(2, &[1, 2]);
    let refuses = Rc::clone(&cluster.endpoints.borrow()[0]);
    cluster.refused_datagrams(&refuses, REFUSED);
    let mut candidates = cluster.candidates_for_session();
    let other = candidates.next().unwrap();
    assert_eq!(port(&other.address), 2);
    candidates.failed(&other, NO_ROUTE);
    assert!(candidates.next().is_some_and(|next| Rc::ptr_eq(&next, &refuses)));
    assert_eq!(candidates.connected().attempts, 1);
}

#[test]
fn an_endpoint_that_is_down_comes_up_no_more_often_than_others() {
    let cluster = cluster(2, &[1, 2]);
    let dead = |port| (port == 1).then_some(REFUSED);
    let waited = (0..10).filter(|_| !tries(&cluster, dead).1.failed.is_empty());
    assert_eq!(waited.count(), 5);
}

proptest! {
    /// Both for sequential connections and for connections that fail at the same time.
    #[test]
    fn the_share_of_a_dead_endpoint_goes_to_all_others(
        dead in 0u16..4,
        rounds in 1usize..20,
        at_once in 1usize..12,
    ) {
        let cluster = cluster(2, &[0, 1, 2, 3]);
        let mut served = HashMap::<u16, usize>::new();
        for _ in 0..rounds {
            let connections = (0..at_once).map(|_| {
                let mut candidates = cluster.candidates();
                (candidates.next(), candidates)
            });
            // All first attempts begin before the first failure is known.
            for (first, mut candidates) in connections.collect::<Vec<_>>() {
                let mut endpoint = first.unwrap();
                if port(&endpoint.address) == dead {
                    candidates.failed(&endpoint, REFUSED);
                    endpoint = candidates.next().unwrap();
                }
                prop_assert_ne!(port(&endpoint.address), dead);
                *served.entry(port(&endpoint.address)).or_default() += 1;
            }
        }
        let shares = (0..4).filter(|port| *port != dead).map(|port| {
            served.get(&port).copied().unwrap_or(0)
        });
        let (least, most) = (shares.clone().min().unwrap(), shares.max().unwrap());
        prop_assert!(most - least <= 2, "{served:?}");
    }
}
