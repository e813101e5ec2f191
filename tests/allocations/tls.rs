//! What a TLS session allocates for a record.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringgate::proto::tls::{
    Identity, Output, Server, ServerSettings, Session, State, TicketKeys, Version,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::counter::count_into;

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
