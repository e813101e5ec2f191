//! Reloads that change what is ordered: orders of names that stay go on with their pauses, and
//! challenges of what is given up are not answered any more.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use crate::support::{
    HttpClient, LONG, PebblePlace, Ringgate, SHORT, Setup, read_until, wait_for, with_deadlines,
};

const QUARTER: u32 = 90 * 24 * 3600;
const FAILED: &str = "cannot get a certificate";

/// A site in plain HTTP, and certificates for these names by http-01.
fn config(place: &PebblePlace, storage: &Path, names: &[&str]) -> String {
    let mut config = "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\n\
                      protocol = \"http\"\n[[listener.host]]\n\
                      route = [{ prefix = \"/\", respond = { body = \"site\" } }]\n"
        .to_owned();
    if names.is_empty() {
        return config;
    }
    let acme = format!(
        "[acme]\ndirectory = \"{}\"\nstorage = {storage:?}\nchallenge = \"http-01\"\n\
         terms_agreed = true\nca = {:?}\ncontact = \"mailto:admin@example.com\"\n",
        place.url(),
        place.authorities(),
    );
    config += "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
               [[listener.host]]\n\
               route = [{ prefix = \"/\", respond = { body = \"site\" } }]\n";
    for name in names {
        write!(config, "[[listener.tls]]\nnames = [\"{name}\"]\nacme = true\n").unwrap();
    }
    acme + &config
}

fn start(config: &str) -> Ringgate {
    let server = "workers = 2".to_owned();
    Setup { config: config.to_owned(), server, ..Setup::default() }.start()
}

/// Takes the next question of the authority about a challenge. Returns its path.
fn question(authority: &TcpListener) -> (TcpStream, String) {
    let (stream, _) = authority.accept().unwrap();
    let mut stream = with_deadlines(stream);
    let head = String::from_utf8(read_until(&mut stream, b"\r\n\r\n")).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    (stream, path)
}

/// What the gate answers to a question of the authority.
fn answer(gate: &Ringgate, path: &str) -> String {
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
    String::from_utf8(client.response().body).unwrap()
}

fn failures(gate: &Ringgate, name: &str) -> usize {
    let name = format!("names={name} ");
    gate.lines().iter().filter(|line| line.contains(FAILED) && line.contains(&name)).count()
}

#[test]
fn a_name_in_its_pause_after_a_failure_is_not_asked_for_again_by_a_reload() {
    let (place, storage) = (PebblePlace::new(), tempfile::tempdir().unwrap());
    let _pebble = place.start(QUARTER, 0);
    // No listener is where the authority asks, so every order fails.
    let with = |names: &[&str]| config(&place, storage.path(), names);
    let gate = start(&with(&["a.test", "b.test"]));
    let fails = |name| wait_for("a failure", LONG, || (failures(&gate, name) > 0).then_some(()));
    fails("a.test");
    fails("b.test");

    // Orders run one after the other, those that wait longest first.
    gate.reload(&with(&["a.test", "b.test", "c.test"]));
    fails("c.test");
    // A name that goes and comes again has not been forgotten, nor if nothing is ordered between.
    gate.reload(&with(&["c.test"]));
    gate.reload(&with(&[]));
    gate.reload(&with(&["a.test", "b.test", "c.test", "d.test"]));
    fails("d.test");
    assert_eq!(["a.test", "b.test", "c.test"].map(|name| failures(&gate, name)), [1; 3]);
}

#[test]
fn an_order_of_a_name_that_stays_goes_on_and_that_of_another_is_given_up() {
    let (place, storage) = (PebblePlace::new(), tempfile::tempdir().unwrap());
    let authority = TcpListener::bind(place.http()).unwrap();
    let _pebble = place.start(QUARTER, 0);
    let with = |names: &[&str]| config(&place, storage.path(), names);
    let gate = start(&with(&["a.test"]));

    // 1. The authority asks, and waits for the answer while the name stays.
    let (mut stream, path) = question(&authority);
    gate.reload(&with(&["b.test", "a.test"]));
    let body = answer(&gate, &path);
    assert!(path.ends_with(body.split('.').next().unwrap()) && body.contains('.'), "{body:?}");
    let (_stream, other) = loop {
        let length = body.len();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
        // It asks from several places, and then about the other name.
        let next = question(&authority);
        if next.1 != path {
            break next;
        }
        stream = next.0;
    };
    let line = gate.line_with("a certificate was issued");
    assert!(line.contains("names=a.test"), "{line}");
    assert_eq!(failures(&gate, "a.test"), 0);

    // 2. The other one is not wanted any more.
    assert!(answer(&gate, &other).contains('.'));
    gate.reload(&with(&[]));
    wait_for("the challenge is withdrawn", SHORT, || {
        (answer(&gate, &other) == "site").then_some(())
    });
}
