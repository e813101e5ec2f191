//! What a TLS session allocates for a record.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringgate::proto::tls::{
    Identity, Output, Server, ServerSettings, Session, State, TicketKeys, Version,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::counter::count_into;
use super::worker::Worker;
use super::{DRIVERS, MANY, MESSAGE, echo};

const NAME: &str = "site.example.test";
const RECORDS: u64 = 1_000;

#[test]
fn a_tls_record_costs_two_allocations_each_way() {
    let (mut client, mut server) = pair();
    let (mut buffer, mut output) = (vec![0; 64 * 1024], Output::default());
    shake(&mut client, &mut server, &mut buffer);
    let counter: &AtomicU64 = Box::leak(Box::default());
    count_into(counter);

    // Encrypts records, the first ones to reach those of full size.
    for length in [100, 16_384] {
        server.encrypt(&vec![0; 128 * 1024], &mut output).unwrap();
        let plaintext = vec![7; length];
        let before = counter.load(Ordering::Relaxed);
        for _ in 0..RECORDS {
            output.clear();
            server.encrypt(&plaintext, &mut output).unwrap();
        }
        let counted = counter.load(Ordering::Relaxed) - before;
        println!("{counted} for {RECORDS} records of {length} bytes sent");
        assert!(counted <= 2 * RECORDS, "{counted}");
    }

    for length in [100, 16_384] {
        let mut counted = 0;
        let mut wire = Vec::new();
        for _ in 0..RECORDS {
            client.writer().write_all(&vec![7; length]).unwrap();
            wire.clear();
            client.write_tls(&mut wire).unwrap();
            let start = server.headroom();
            buffer[start..start + wire.len()].copy_from_slice(&wire);
            let before = counter.load(Ordering::Relaxed);
            let plaintext = server.receive(&mut buffer, start..start + wire.len(), &mut output);
            counted += counter.load(Ordering::Relaxed) - before;
            assert_eq!(plaintext.len(), length);
        }
        println!("{counted} for {RECORDS} records of {length} bytes received");
        assert!(counted <= 2 * RECORDS, "{counted}");
    }
}

fn shake(client: &mut ClientConnection, server: &mut Session, buffer: &mut [u8]) {
    while client.wants_write() || client.is_handshaking() {
        let (mut wire, mut output) = (Vec::new(), Output::default());
        client.write_tls(&mut wire).unwrap();
        let start = server.headroom();
        buffer[start..start + wire.len()].copy_from_slice(&wire);
        let _ = server.receive(buffer, start..start + wire.len(), &mut output);
        let mut rest = &output[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    assert_eq!(server.state(), State::Open);
}

/// A client and a session before the handshake.
fn pair() -> (ClientConnection, Session) {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = Identity::parse(certificate.as_bytes(), key.as_bytes()).unwrap();
    let server = Server::new(&ServerSettings {
        identities: &[identity],
        protocols: &[],
        client_authorities: None,
        min_version: Version::Tls12,
        ticket_keys: &Arc::new(TicketKeys::random()),
        scope: "",
    });
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(NAME).unwrap();
    let client = ClientConnection::new(Arc::new(client), name).unwrap();
    (client, server.unwrap().session().unwrap())
}

type Client = StreamOwned<ClientConnection, TcpStream>;

/// One allocation for a record each way: rustls decrypts into a `Vec` of its own, and encrypts into
/// one.
#[test]
fn a_round_trip_over_tls_costs_two_allocations() {
    for driver in DRIVERS {
        let (files, settings) = certificate_files();
        let rule = ended(files.path(), "tls", "cluster = \"c\"\n");
        let worker = Worker::start(driver.name, &rule);
        let mut client = connect(&worker, &settings);
        let mut ask = || {
            client.write_all(&[7; MESSAGE]).unwrap();
            client.read_exact(&mut [0; MESSAGE]).unwrap();
        };
        (0..100).for_each(|_| ask());
        let counted = worker.count(|| (0..MANY).for_each(|_| ask()));
        println!("{}: {counted} for {MANY} round trips over TLS", driver.name);
        assert!(counted.total <= 2 * MANY + counted.wheel_turns(), "{counted}");
    }
}

/// A WebSocket in TLS, both ended here: frames are coded in the buffer in which TLS has decrypted.
#[test]
fn a_frame_over_tls_costs_no_allocation_of_its_own() {
    for driver in DRIVERS {
        let (files, settings) = certificate_files();
        let route = "[[listener.host]]\nroute = [{ path = \"/stream\", upgrade = \"websocket\", \
                     tunnel = \"terminate\", cluster = \"c\" }]\n";
        let worker = Worker::start(driver.name, &ended(files.path(), "http", route));
        let mut client = connect(&worker, &settings);
        upgrade(&mut client);
        let mut ask = || {
            // A binary frame that is masked with zeros, and one that is not masked.
            client
                .write_all(&[&[0x82, 0x80 | MESSAGE as u8, 0, 0, 0, 0], &[7; MESSAGE][..]].concat())
                .unwrap();
            client.read_exact(&mut [0; 2 + MESSAGE]).unwrap();
        };
        (0..100).for_each(|_| ask());
        let counted = worker.count(|| (0..MANY).for_each(|_| ask()));
        println!("{}: {counted} for {MANY} round trips of frames over TLS", driver.name);
        assert!(counted.total <= 2 * MANY + counted.wheel_turns(), "{counted}");
    }
}

/// A certificate in files, and a client that trusts it.
fn certificate_files() -> (tempfile::TempDir, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("pem"), made.cert.pem()).unwrap();
    std::fs::write(files.path().join("key"), made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let settings = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (files, Arc::new(settings))
}

/// A listener that ends TLS in front of a server that sends everything back.
fn ended(files: &Path, protocol: &str, more: &str) -> String {
    let (cluster, rest) = if protocol == "tls" { (more, "") } else { ("", more) };
    format!(
        "[[listener]]\nname = \"tls\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"{protocol}\"\n\
         [[listener.tls]]\ncertificate = {:?}\nkey = {:?}\n{cluster}{rest}\
         [cluster.c]\nendpoints = [\"{}\"]\n",
        files.join("pem"),
        files.join("key"),
        echo()
    )
}

fn connect(worker: &Worker, settings: &Arc<ClientConfig>) -> Client {
    let name = ServerName::try_from(NAME).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(settings), name).unwrap(), worker.connect())
}

fn upgrade(client: &mut Client) {
    let head = format!(
        "GET /stream HTTP/1.1\r\nHost: {NAME}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    client.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
}
