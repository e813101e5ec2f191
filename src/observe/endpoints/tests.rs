//! What is counted of endpoints, and what is forgotten.

use super::*;

fn address(port: u16) -> Address {
    Address::Ip(([127, 0, 0, 1], port).into())
}

fn cluster(registry: &mut Registry, name: &str) -> ClusterNumbers {
    registry.show().into_iter().find(|one| &*one.name == name).expect("there is such a cluster")
}

#[test]
fn an_endpoint_keeps_its_numbers_while_its_cluster_has_it() {
    let mut registry = Registry::new(2);
    let name: Arc<str> = "c".into();
    let first = registry.list(&name, &[address(1), address(2)], |_| false);
    let cells = [0, 1].map(|worker| first.cells(&first.listed[0], worker));
    cells.iter().for_each(|cells| cells.endpoint.uses.begin());
    cells[0].endpoint.uses.end();
    cells[1].endpoint.add_failure(FailureKind::Refused);
    drop(cells);
    let again = registry.list(&name, &[address(1)], |_| false);
    assert!(Arc::ptr_eq(&first.listed[0].cells, &again.listed[0].cells));
    let shown = cluster(&mut registry, "c");
    let [one] = &shown.endpoints[..] else { panic!("{shown:?}") };
    assert_eq!((one.state, one.failing_workers, one.is_listed), (State::Failing, 1, true));
    assert_eq!((one.numbers.begun, one.numbers.open), (2, 1));
    assert_eq!(one.numbers.failures[FailureKind::Refused as usize], 1);
    assert_eq!((shown.listed, shown.failing), (1, 1));
}

#[test]
fn a_success_of_one_worker_counts_more_than_older_failures_of_others() {
    let mut registry = Registry::new(3);
    let listed = registry.list(&"c".into(), &[address(1)], |_| false);
    let cells = &listed.listed[0].cells;
    let mut state = |shown: [(State, u64); 3]| {
        cells.iter().zip(shown).for_each(|(cell, (state, at))| cell.show(Shown::new(state, at)));
        let shown = cluster(&mut registry, "c");
        let [one] = &shown.endpoints[..] else { panic!("{shown:?}") };
        assert_eq!(shown.failing > 0, one.state == State::Failing);
        (one.state, one.failing_workers)
    };
    let (untried, failing, up) = (State::Untried, State::Failing, State::Up);
    assert_eq!(state([(untried, 0), (failing, 5), (failing, 6)]), (failing, 2));
    assert_eq!(state([(failing, 5), (up, 6), (failing, 4)]), (up, 0));
    assert_eq!(state([(failing, 5), (up, 6), (failing, 7)]), (failing, 1));
    // Within a millisecond success is assumed to be the later one.
    assert_eq!(state([(failing, 6), (up, 6), (untried, 0)]), (up, 0));
}

#[test]
fn an_endpoint_without_a_route_is_not_failing() {
    let mut registry = Registry::new(2);
    let listed = registry.list(&"c".into(), &[address(1)], |_| false);
    let cells = listed.cells(&listed.listed[0], 0);
    cells.endpoint.add_failure(FailureKind::Unreachable);
    let shown = cluster(&mut registry, "c");
    let one = &shown.endpoints[0];
    assert_eq!((one.state, one.failing_workers), (State::Unreachable, 0));
    assert_eq!((shown.failing, shown.unreachable), (0, 1));
    assert_eq!(one.numbers.failures[FailureKind::Unreachable as usize], 1);
}

#[test]
fn a_response_on_an_idle_connection_is_a_success() {
    let cells = EndpointCells::default();
    let first_byte = Some(Duration::from_millis(1));
    cells.endpoint.add_failure(FailureKind::TimedOut);
    cells.add(&Outcome { first_byte, ..Outcome::new(End::UpstreamReset) });
    assert_eq!(cells.endpoint.shown().state(), State::Failing);
    cells.add(&Outcome { first_byte, is_reused: Some(true), ..Outcome::new(End::Done) });
    assert_eq!(cells.endpoint.shown().state(), State::Up);
}

#[test]
fn an_endpoint_that_is_gone_is_forgotten_when_nothing_uses_it_and_the_sum_stays() {
    let mut registry = Registry::new(1);
    let name: Arc<str> = "c".into();
    let listed = registry.list(&name, &[address(1)], |_| false);
    let cells = listed.cells(&listed.listed[0], 0);
    cells.endpoint.uses.begin();
    registry.list(&name, &[], |_| false);
    let shown = cluster(&mut registry, "c");
    assert!(!shown.endpoints[0].is_listed && shown.listed == 0);
    cells.endpoint.uses.end();
    drop(cells);
    let shown = cluster(&mut registry, "c");
    assert!(shown.endpoints.is_empty());
    assert_eq!((shown.numbers.begun, shown.numbers.open), (1, 0));
    registry.keep_clusters(|_| false);
    assert!(registry.show().is_empty());
}

#[test]
fn an_endpoint_that_is_gone_is_kept_while_an_attempt_is_under_way() {
    let mut registry = Registry::new(1);
    let name: Arc<str> = "c".into();
    let listed = registry.list(&name, &[address(1)], |_| false);
    let cells = listed.cells(&listed.listed[0], 0);
    let attempt = cells.endpoint.attempt();
    registry.list(&name, &[], |_| false);
    cells.endpoint.add_failure(FailureKind::TimedOut);
    drop(attempt);
    let shown = cluster(&mut registry, "c");
    assert_eq!(shown.numbers.failures[FailureKind::TimedOut as usize], 1);
    assert!(shown.endpoints.is_empty());
}

#[test]
fn the_number_of_endpoints_that_are_shown_is_bounded() {
    let mut registry = Registry::new(1);
    let many: Vec<Address> = (1..=1500).map(address).collect();
    let listed = registry.list(&"c".into(), &many, |_| false);
    let shown = cluster(&mut registry, "c");
    assert_eq!((shown.listed, shown.endpoints.len()), (1500, MOST_SHOWN));
    // One that is not shown is in the sum.
    listed.cells(&listed.listed[1499], 0).endpoint.uses.begin();
    assert_eq!(cluster(&mut registry, "c").numbers.open, 1);
    // Places become free.
    registry.list(&"c".into(), &[], |_| false);
    registry.list(&"d".into(), &many[..1], |_| false);
    assert_eq!(cluster(&mut registry, "d").endpoints.len(), 1);
}

#[test]
fn what_a_use_has_moved_is_counted_at_its_end() {
    let cells = EndpointCells::default();
    let outcome = Outcome { bytes_up: 3, bytes_down: 4, ..Outcome::new(End::Done) };
    cells.add(&outcome);
    let first_byte = Some(Duration::from_millis(1));
    cells.add(&Outcome { first_byte, own_down: 1, ..outcome });
    cells.cluster.add_connect(Duration::from_millis(2));
    assert_eq!(cells.cluster.connect.times().count(), 1);
    assert_eq!(cells.cluster.first_byte.times().count(), 1);
    let numbers = Numbers::of(&[cells.endpoint]);
    assert_eq!((numbers.bytes_up, numbers.bytes_down), (6, 7));
}

#[test]
fn cells_of_two_workers_share_no_pair_of_cache_lines() {
    assert_eq!(size_of::<EndpointCounters>(), 128);
    assert_eq!(align_of::<ClusterCounters>(), 128);
}
