//! What an operator changes of clusters, and how long it lasts.

use std::sync::mpsc::{Receiver, channel};

use super::*;

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn addresses(ports: &[u16]) -> Vec<Address> {
    ports.iter().map(|port| address(*port).into()).collect()
}

/// A configuration whose cluster `c` has these endpoints.
fn config(ports: &[u16]) -> Config {
    config_of("c", ports)
}

fn config_of(name: &str, ports: &[u16]) -> Config {
    let endpoints: Vec<String> = ports.iter().map(|port| address(*port).to_string()).collect();
    let text = format!(
        "[[listener]]\nname = \"l\"\nlisten = \"127.0.0.2:1\"\nprotocol = \"tcp\"\n\
         cluster = \"{name}\"\n[cluster.{name}]\nendpoints = {endpoints:?}\n"
    );
    crate::config::parse("test.toml", &text, std::path::Path::new("/")).unwrap()
}

/// The ports of the endpoints that a worker has got last.
fn got(worker: &Receiver<Command>) -> Option<Vec<u16>> {
    let endpoints = worker.try_iter().map(|command| match command {
        Command::Endpoints { endpoints, .. } => endpoints,
        _ => panic!("another command"),
    });
    Some(ports(&*endpoints.last()?))
}

fn ports(endpoints: &Endpoints) -> Vec<u16> {
    let port = |address: &Address| match address {
        Address::Ip(ip) => ip.port(),
        Address::Unix(_) => panic!("a path"),
    };
    endpoints.listed.iter().map(|one| port(&one.address)).collect()
}

/// Commits a configuration, and returns the endpoints of `c`.
fn commit(roster: &Roster, ports_of: &[u16]) -> Vec<u16> {
    roster.keep(&config(ports_of));
    ports(&roster.list(&"c".into(), addresses(ports_of)))
}

fn steer(roster: &Roster, ports: &[u16], steer: Steer) -> Result<(), String> {
    roster.steer(&"c".into(), &config(ports).clusters[0].discovery, &steer)
}

#[test]
fn a_drained_endpoint_gets_nothing_until_it_is_enabled() {
    let (sender, worker) = channel();
    let roster = Roster::new(vec![sender], Vec::new());
    assert_eq!(commit(&roster, &[1, 2]), [1, 2]);
    let one = || address(1).to_string();
    steer(&roster, &[1, 2], Steer::Drain(one())).unwrap();
    assert_eq!(got(&worker), Some(vec![2]));
    let shown = roster.show().remove(0);
    assert_eq!((shown.listed, shown.drained), (2, 1));
    assert!(shown.endpoints[0].is_drained && !shown.endpoints[1].is_drained);
    // DNS loses it and has it again, and the configuration is loaded again.
    roster.publish(&"c".into(), addresses(&[2]));
    roster.publish(&"c".into(), addresses(&[1, 2, 3]));
    assert_eq!(got(&worker), Some(vec![2, 3]));
    assert_eq!(commit(&roster, &[1, 2]), [2]);
    steer(&roster, &[1, 2], Steer::Enable(one())).unwrap();
    assert_eq!(got(&worker), Some(vec![1, 2]));
    assert!(steer(&roster, &[1, 2], Steer::Drain(address(9).to_string())).is_err());
    assert_eq!(got(&worker), None);
}

#[test]
fn endpoints_that_are_set_stay_until_the_configuration_names_others() {
    let (sender, worker) = channel();
    let roster = Roster::new(vec![sender], Vec::new());
    commit(&roster, &[1]);
    steer(&roster, &[1], Steer::Set(vec![address(8), address(7), address(7)])).unwrap();
    assert_eq!(got(&worker), Some(vec![7, 8]));
    assert!(roster.is_set("c"));
    // An answer from DNS, and a reload for another reason.
    roster.publish(&"c".into(), addresses(&[2]));
    assert_eq!(got(&worker), Some(vec![7, 8]));
    assert_eq!(commit(&roster, &[1]), [7, 8]);
    assert_eq!(commit(&roster, &[2]), [2]);
    assert!(!roster.is_set("c"));
    steer(&roster, &[2], Steer::Set(Vec::new())).unwrap();
    assert_eq!(got(&worker), Some(Vec::new()));
    steer(&roster, &[2], Steer::Reset).unwrap();
    assert_eq!(got(&worker), Some(vec![2]));
}

#[test]
fn a_successor_goes_on_with_what_was_changed() {
    let roster = Roster::new(Vec::new(), Vec::new());
    commit(&roster, &[1, 2]);
    assert!(roster.steered().is_empty());
    steer(&roster, &[1, 2], Steer::Drain(address(1).to_string())).unwrap();
    // So many that they need two parts.
    steer(&roster, &[1, 2], Steer::Set((1..=300).map(address).collect())).unwrap();
    assert_eq!(roster.steered().len(), 3);
    let packet = serde_json::to_string(&roster.steered()).unwrap();
    let steered: Vec<(String, Steered)> = serde_json::from_str(&packet).unwrap();
    let successor = Roster::new(Vec::new(), steered.clone());
    assert_eq!(commit(&successor, &[1, 2]), (2..=300).collect::<Vec<u16>>());
    // Its configuration has no such cluster.
    let other = Roster::new(Vec::new(), steered);
    other.keep(&config_of("d", &[1]));
    assert!(other.steered().is_empty());
}

#[test]
fn the_number_of_drained_endpoints_is_bounded() {
    let roster = Roster::new(Vec::new(), Vec::new());
    let ports: Vec<u16> = (1..=1001).collect();
    commit(&roster, &ports);
    let config = config(&[1]);
    let discovery = &config.clusters[0].discovery;
    let drain =
        |port: u16| roster.steer(&"c".into(), discovery, &Steer::Drain(address(port).to_string()));
    (1..=1000).for_each(|port| drain(port).unwrap());
    assert!(drain(1001).is_err());
    drain(1).unwrap();
}
