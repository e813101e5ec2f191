//! Sessions that are resumed by a ticket: on every worker, after a restart, under the same rule
//! alone.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, HandshakeKind};

use crate::support::{
    Authority, Echo, OpensslClient, Pair, Ringgate, SHORT, Setup, TlsClient, VERSIONS,
    openssl_client, run, tls_settings, wait_for, write_private,
};

const NAME: &str = "site.test";

/// Listeners `edge` and `beside`, each with a rule for each of these names, in front of `to`. `tls`
/// is the lines of `[tls]`.
fn start(pair: &Pair, names: &[&str], to: SocketAddr, server: &str, tls: &str) -> Ringgate {
    let rules = names.iter().map(|name| pair.rule(&[name], "cluster = \"echo\""));
    let rules = rules.collect::<String>();
    let listener = |name| {
        let keys = "listen = \"127.0.0.1:0\"\nprotocol = \"tls\"";
        format!("[[listener]]\nname = \"{name}\"\n{keys}\n{rules}")
    };
    let listeners = listener("edge") + &listener("beside");
    let cluster = format!("[cluster.echo]\nendpoints = [\"{to}\"]\n");
    let config = format!("{listeners}{cluster}[tls]\n{tls}\n");
    Setup { config, server: server.to_owned(), ..Setup::default() }.start()
}

/// Connects, lets the tickets arrive, and tells how the handshake went.
#[track_caller]
fn handshake(gate: &Ringgate, settings: &Arc<ClientConfig>) -> HandshakeKind {
    let mut client = TlsClient::connect(gate.address("edge"), settings, NAME);
    client.send(b"hello");
    // They are on their way before this is.
    client.expect(b"hello");
    client.close_notify();
    client.expect_close_notify();
    client.session.handshake_kind().unwrap()
}

/// A file with a ticket key made of each of these bytes.
fn write_keys(file: &Path, keys: &[char]) {
    // The base64 of 32 bytes.
    let lines = keys.iter().map(|key| format!("{}A=\n", String::from(*key).repeat(42)));
    // In place at once, as an operator's tool does it.
    let new = file.with_extension("new");
    write_private(&new, lines.collect::<String>());
    fs::rename(new, file).unwrap();
}

#[test]
fn every_worker_resumes_what_another_has_begun() {
    let (authority, echo) = (Authority::new("authority"), Echo::start());
    let pair = authority.signs(&[NAME]);
    for driver in ["io_uring", "epoll"] {
        for version in VERSIONS {
            let server = format!("workers = 3\ndriver = \"{driver}\"");
            let gate = start(&pair, &[NAME], echo.address(), &server, "");
            let settings = Arc::new(tls_settings(&authority, version));
            assert_eq!(handshake(&gate, &settings), HandshakeKind::Full);
            // The kernel chooses the worker by the client's port.
            for round in 0..20 {
                let kind = handshake(&gate, &settings);
                assert_eq!(kind, HandshakeKind::Resumed, "{driver}, {version:?}, {round}");
            }
            let records = gate.records(21);
            let resumed = records.iter().filter(|one| one.tls().flag("resumed") == Some(true));
            assert_eq!(resumed.count(), 20, "{records:?}");
            assert!(records.iter().all(|one| one.tls().text("sni") == NAME), "{records:?}");
        }
    }
}

#[test]
fn a_restart_keeps_sessions_only_with_a_file_of_keys() {
    let (authority, echo) = (Authority::new("authority"), Echo::start());
    let (pair, dir) = (authority.signs(&[NAME]), tempfile::tempdir().unwrap());
    let file = dir.path().join("keys");
    write_keys(&file, &['a']);
    let with_file = format!("ticket_keys = {file:?}");
    for (tls, after) in [(&*with_file, HandshakeKind::Resumed), ("", HandshakeKind::Full)] {
        for version in VERSIONS {
            let settings = Arc::new(tls_settings(&authority, version));
            let gate = start(&pair, &[NAME], echo.address(), "", tls);
            assert_eq!(handshake(&gate, &settings), HandshakeKind::Full);
            assert_eq!(handshake(&gate, &settings), HandshakeKind::Resumed);
            drop(gate);
            let gate = start(&pair, &[NAME], echo.address(), "", tls);
            assert_eq!(handshake(&gate, &settings), after, "{tls:?}, {version:?}");
            assert_eq!(handshake(&gate, &settings), HandshakeKind::Resumed);
        }
    }
}

#[test]
fn a_file_of_keys_is_read_again_and_its_older_keys_count_until_they_go() {
    let (authority, echo) = (Authority::new("authority"), Echo::start());
    let (pair, dir) = (authority.signs(&[NAME]), tempfile::tempdir().unwrap());
    let file = dir.path().join("keys");
    write_keys(&file, &['a']);
    let tls = format!("ticket_keys = {file:?}");
    let gate = start(&pair, &[NAME], echo.address(), "workers = 1", &tls);
    let clients = VERSIONS.map(|version| Arc::new(tls_settings(&authority, version)));
    let expect = |kind| clients.iter().for_each(|one| assert_eq!(handshake(&gate, one), kind));
    // The first 16 bytes of a ticket name its key.
    let key = || {
        let address = gate.address("edge");
        let client = run(&mut openssl_client(address, &authority, NAME, &["-tls1_2"]));
        let said = String::from_utf8_lossy(&client.stdout).into_owned();
        said.lines().find(|line| line.contains("0000 - ")).expect("a ticket").to_owned()
    };
    let write_and_wait = |keys: &[char]| {
        let before = key();
        write_keys(&file, keys);
        wait_for("another key makes tickets", SHORT, || (key() != before).then_some(()));
    };
    expect(HandshakeKind::Full);
    write_and_wait(&['b', 'a']);
    expect(HandshakeKind::Resumed);
    write_and_wait(&['c', 'a']);
    // The tickets are of the key that has gone.
    expect(HandshakeKind::Full);
    // A bad file changes nothing.
    write_private(&file, "no key\n");
    gate.line_with("the keys of tickets have changed and cannot be used");
    expect(HandshakeKind::Resumed);
}

#[test]
fn a_ticket_of_one_rule_is_no_ticket_for_another() {
    let (authority, echo) = (Authority::new("authority"), Echo::start());
    let (pair, dir) = (authority.signs(&[NAME, "other.test"]), tempfile::tempdir().unwrap());
    let gate = start(&pair, &[NAME, "other.test"], echo.address(), "", "");
    let file = dir.path().join("session.pem");
    let path = file.to_str().unwrap();
    let mut count = 0;
    for version in ["-tls1_2", "-tls1_3"] {
        let arguments = [version, "-sess_out", path];
        let edge = gate.address("edge");
        let mut client = OpensslClient::start(edge, &authority, NAME, &arguments);
        // The tickets are on their way before this is.
        client.echoes("hello");
        client.types("Q");
        let said = client.ends();
        // Early data can be replayed, so none is accepted.
        assert!(said.contains("Max Early Data: 0") || version == "-tls1_2", "{said}");
        count += 1;
        assert_eq!(gate.records(count).pop().unwrap().tls().flag("resumed"), Some(false));
        for (listener, name, expected) in [
            ("edge", NAME, "Reused, TLSv1."),
            ("edge", "other.test", "New, TLSv1."),
            ("beside", NAME, "New, TLSv1."),
        ] {
            let arguments = [version, "-sess_in", path];
            let address = gate.address(listener);
            let mut client = OpensslClient::start(address, &authority, name, &arguments);
            client.line_with(expected);
            client.echoes("it goes on in any case");
            client.types("Q");
            client.ends();
            count += 1;
            let tls = gate.records(count).pop().unwrap().tls();
            let is_resumed = expected.starts_with("Reused");
            assert_eq!(tls.flag("resumed"), Some(is_resumed), "{version}, {listener}, {name}");
            assert_eq!(tls.text("sni"), name);
        }
    }
}
