//! `/etc/hosts`: a large one, and one that cannot be read.

use std::net::Ipv4Addr;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    LONG, NameServer, Network, Reply, SHORT, SOON, Setup, inside_namespace, l4, require, run,
    wait_for,
};

fn setup(names: &[String]) -> Setup {
    let cluster = "discovery = \"strict_dns\"\ndns_family = \"ipv4\"\ndns_refresh = \"100ms\"";
    let config = l4(([127, 0, 0, 1], 1).into(), "", cluster)
        .replace("\"127.0.0.1:1\"", &format!("\"{}\"", names.join("\", \"")));
    Setup { config, server: "workers = 1".to_owned(), ..Setup::default() }
}

#[test]
fn a_large_hosts_file_delays_neither_look_ups_nor_signals() {
    if !inside_namespace("hosts::a_large_hosts_file_delays_neither_look_ups_nor_signals") {
        return;
    }
    let lines: String = (0..150_000).map(|n| format!("0.0.0.0 ads{n}.example\n")).collect();
    let _network = Network::new("", &lines);
    // Names that are denied are looked up ten times a second each.
    let server = NameServer::on([127, 0, 0, 1], |_, _| Reply::Code(3));
    let names: Vec<String> = (0..20).map(|n| format!("n{n}.test.:1")).collect();
    let mut gate = setup(&names).start();
    let asked = server.asked().len();
    let before = gate.cpu_time();
    wait_for("it looks up", LONG, || (server.asked().len() > asked + 600).then_some(()));
    // A look-up takes 2 ms in a debug build, and more beside others that use the caches of the
    // processor. To read the file for each would take more than ten times as long.
    let each = (gate.cpu_time() - before) / 600;
    assert!(each < Duration::from_millis(8), "{each:?} for each look-up");
    let begin = Instant::now();
    gate.signal(Signal::TERM);
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[test]
fn dns_family_is_about_the_hosts_file_too() {
    if !inside_namespace("hosts::dns_family_is_about_the_hosts_file_too") {
        return;
    }
    let _network = Network::new("", "127.0.0.5 both\n::1 both\n");
    let gate = setup(&["both:1".to_owned()]).start();
    let line = gate.line_with("the cluster has endpoints");
    assert!(line.contains("endpoints=\"127.0.0.5:1\""), "{line}");
}

#[test]
fn a_hosts_file_that_cannot_be_read_denies_no_name() {
    if !inside_namespace("hosts::a_hosts_file_that_cannot_be_read_denies_no_name") {
        return;
    }
    let _network = Network::new("", "127.0.0.5 ss_server\n");
    let _server = NameServer::on(Ipv4Addr::LOCALHOST, |_, _| Reply::Code(3));
    let gate = setup(&["ss_server:1".to_owned()]).start();
    gate.line_with("endpoints=\"127.0.0.5:1\"");
    // A socket cannot be opened as a file.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _socket = UnixListener::bind(&path).unwrap();
    assert!(run(require("mount").arg("--bind").arg(&path).arg("/etc/hosts")).status.success());
    let line = gate.line_with("cannot look up names");
    assert!(line.contains("cannot read /etc/hosts"), "{line}");
    assert!(run(require("umount").arg("/etc/hosts")).status.success());
    gate.line_with("names are resolved");
}
