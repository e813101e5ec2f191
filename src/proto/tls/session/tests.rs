//! Sessions against a client of rustls in memory.

use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::ResolvesServerCertUsingSni;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};

use super::*;

const NAME: &str = "site.example.test";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

struct Configs {
    server: Arc<ServerConfig>,
    /// For TLS 1.2 and 1.3.
    clients: [Arc<ClientConfig>; 2],
}

fn configs() -> &'static Configs {
    static CONFIGS: OnceLock<Configs> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
        let certificate = made.cert.der().clone();
        let key = CertifiedKey::from_der(vec![certificate.clone()], key, &provider).unwrap();
        let mut resolver = ResolvesServerCertUsingSni::new();
        resolver.add(NAME, key).unwrap();
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let clients = VERSIONS.map(|version| {
            let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            client.resumption = rustls::client::Resumption::disabled();
            Arc::new(client)
        });
        Configs { server: Arc::new(server), clients }
    })
}

/// A session and its client.
struct Pair {
    client: ClientConnection,
    server: Session,
    /// Lengths of the reads of the session, used in turn.
    cuts: Vec<usize>,
    next_cut: usize,
}

impl Pair {
    fn new(version: usize, name: &'static str, cuts: &[usize]) -> Pair {
        let name = ServerName::try_from(name).unwrap();
        let mut client =
            ClientConnection::new(Arc::clone(&configs().clients[version]), name).unwrap();
        client.set_buffer_limit(None);
        let server = Session::new(Arc::clone(&configs().server)).unwrap();
        Pair { client, server, cuts: cuts.to_vec(), next_cut: 0 }
    }

    /// A pair that has finished its handshake.
    fn open(version: usize, cuts: &[usize]) -> Pair {
        let mut pair = Pair::new(version, NAME, cuts);
        pair.shake();
        assert_eq!(pair.server.state(), State::Open);
        assert!(!pair.client.is_handshaking());
        pair
    }

    /// Takes turns until neither side sends. Returns the error of the client.
    fn shake(&mut self) -> Option<rustls::Error> {
        loop {
            let wire = self.sent_by_client();
            if wire.is_empty() {
                return None;
            }
            let (plaintext, output) = self.serve(&wire);
            assert!(plaintext.is_empty());
            if let Err(error) = self.deliver(&output) {
                return Some(error);
            }
        }
    }

    fn sent_by_client(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut wire).unwrap();
        }
        wire
    }

    /// Gives bytes to the session in pieces. Returns its plaintext and its output.
    fn serve(&mut self, mut wire: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut plaintext, mut output) = (Vec::new(), Vec::new());
        while !wire.is_empty() {
            let length = match self.cuts.get(self.next_cut % self.cuts.len().max(1)) {
                Some(&cut) => cut.clamp(1, wire.len()),
                None => wire.len(),
            };
            self.next_cut += 1;
            let (piece, rest) = wire.split_at(length);
            let headroom = self.server.headroom();
            let mut buffer = [&vec![0; headroom], piece, b"behind"].concat();
            let end = headroom + length;
            let range = self.server.receive(&mut buffer, headroom..end, &mut output);
            assert!(buffer[end..] == *b"behind" && self.server.kept() <= MAX_KEPT);
            plaintext.extend_from_slice(&buffer[range]);
            wire = rest;
        }
        (plaintext, output)
    }

    /// Gives bytes to the client. Returns its plaintext.
    fn deliver(&mut self, mut wire: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut plaintext = Vec::new();
        while !wire.is_empty() {
            self.client.read_tls(&mut wire).unwrap();
            self.client.process_new_packets()?;
            // After a close_notify this reads 0, before it the error is that nothing is there.
            let _ = self.client.reader().read_to_end(&mut plaintext);
        }
        Ok(plaintext)
    }

    /// What the client sends for this plaintext.
    fn encrypted_by_client(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.client.writer().write_all(plaintext).unwrap();
        self.sent_by_client()
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251) as u8 ^ at as u8).collect()
}

/// The lengths of the records in bytes of the wire, headers included.
fn record_lengths(wire: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut at = 0;
    while at < wire.len() {
        let length = 5 + usize::from(u16::from_be_bytes([wire[at + 3], wire[at + 4]]));
        lengths.push(length);
        at += length;
    }
    lengths
}

#[test]
fn a_handshake_tells_what_was_agreed_on() {
    for (version, word) in [(0, "1.2"), (1, "1.3")] {
        let pair = Pair::open(version, &[]);
        assert_eq!(pair.server.version(), Some(word));
        assert!(pair.server.suite().unwrap().starts_with("TLS"));
        assert_eq!(pair.server.server_name(), Some(NAME));
        assert_eq!(pair.server.protocol(), Some(&b"http/1.1"[..]));
        assert!(!pair.server.is_resumed());
        assert_eq!(pair.server.kept.capacity(), 0);
    }
}

#[test]
fn a_session_can_be_resumed() {
    for version in 0..2 {
        let mut config = (*configs().clients[version]).clone();
        config.resumption = rustls::client::Resumption::in_memory_sessions(4);
        let config = Arc::new(config);
        for resumed in [false, true] {
            let mut pair = Pair::new(version, NAME, &[]);
            let name = ServerName::try_from(NAME).unwrap();
            pair.client = ClientConnection::new(Arc::clone(&config), name).unwrap();
            assert_eq!(pair.shake(), None);
            assert_eq!((pair.server.state(), pair.server.is_resumed()), (State::Open, resumed));
        }
    }
}

#[test]
fn an_end_within_the_handshake_or_a_record_cuts_the_stream_off() {
    for version in 0..2 {
        let mut pair = Pair::new(version, NAME, &[]);
        let wire = pair.sent_by_client();
        pair.serve(&wire[..wire.len() - 1]);
        assert!(pair.server.state() == State::Handshake && pair.server.is_truncated_by_end());

        let mut pair = Pair::open(version, &[]);
        let wire = pair.encrypted_by_client(b"data");
        assert_eq!(pair.serve(&wire[..wire.len() - 1]).0, b"");
        assert!(pair.server.kept() > 0 && pair.server.is_truncated_by_end());
        // A reply while an incomplete record waits.
        let mut output = Vec::new();
        pair.server.encrypt(b"reply", &mut output).unwrap();
        assert_eq!(pair.deliver(&output).unwrap(), b"reply");
        assert_eq!(pair.serve(&wire[wire.len() - 1..]).0, b"data");
    }
}

#[test]
fn data_may_follow_the_handshake_in_one_read() {
    let mut pair = Pair::new(1, NAME, &[]);
    let hello = pair.sent_by_client();
    let (_, output) = pair.serve(&hello);
    pair.deliver(&output).unwrap();
    let data = bytes(2 * MAX_HANDSHAKE);
    let wire = pair.encrypted_by_client(&data);
    assert!(pair.serve(&wire).0 == data);
    assert_eq!(pair.server.state(), State::Open);
}

#[test]
fn a_name_without_a_certificate_is_answered_by_an_alert() {
    for version in 0..2 {
        let mut pair = Pair::new(version, "other.example.test", &[]);
        let error = pair.shake();
        assert!(matches!(error, Some(rustls::Error::AlertReceived(_))), "{error:?}");
        assert_eq!(pair.server.state(), State::Failed(Error::NoCertificate));
        assert_eq!(pair.server.server_name(), Some("other.example.test"));
    }
}

#[test]
fn bytes_that_are_no_hello_are_answered_by_an_alert() {
    let mut pair = Pair::new(1, NAME, &[]);
    let (_, output) = pair.serve(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(output, DECODE_ERROR);
    assert_eq!(pair.server.state(), State::Failed(Error::Hello));
}

#[test]
fn both_sides_close() {
    for version in 0..2 {
        let mut pair = Pair::open(version, &[]);
        assert!(pair.server.is_truncated_by_end());
        pair.client.writer().write_all(b"last").unwrap();
        pair.client.send_close_notify();
        let wire = pair.sent_by_client();
        assert_eq!(pair.serve(&wire).0, b"last");
        assert_eq!(pair.server.state(), State::PeerClosed);
        assert!(!pair.server.is_truncated_by_end());

        let mut output = Vec::new();
        pair.server.encrypt(b"answer", &mut output).unwrap();
        pair.server.close(&mut output);
        pair.server.close(&mut output);
        assert_eq!(record_lengths(&output).len(), 2);
        assert_eq!(pair.deliver(&output).unwrap(), b"answer");
        assert_eq!(pair.client.reader().read(&mut [0]).unwrap(), 0);
        assert_eq!(pair.server.encrypt(b"more", &mut output), Err(Error::Closed));
    }
}

#[test]
fn data_can_be_received_after_the_session_has_closed() {
    for version in 0..2 {
        let mut pair = Pair::open(version, &[]);
        let mut output = Vec::new();
        pair.server.close(&mut output);
        pair.deliver(&output).unwrap();
        let wire = pair.encrypted_by_client(b"late");
        assert_eq!((pair.serve(&wire).0, pair.server.state()), (b"late".to_vec(), State::Open));
    }
}

#[test]
fn a_corrupted_record_after_the_session_has_closed_is_not_decrypted() {
    for version in 0..2 {
        let mut pair = Pair::open(version, &[]);
        pair.server.close(&mut Vec::new());
        let mut wire = pair.encrypted_by_client(b"late");
        *wire.last_mut().unwrap() ^= 1;
        assert_eq!(pair.serve(&wire), (vec![], vec![]));
        assert_eq!(pair.server.state(), State::Failed(Error::Decrypt));
    }
}

#[test]
fn records_are_small_at_the_beginning() {
    for version in 0..2 {
        let mut pair = Pair::open(version, &[]);
        let (plaintext, mut output) = (bytes(SMALL_UNTIL + 2 * MAX_PLAINTEXT), Vec::new());
        pair.server.encrypt(&plaintext, &mut output).unwrap();
        let lengths = record_lengths(&output);
        assert_eq!(lengths.len(), SMALL_UNTIL / SMALL_RECORD + 2);
        assert!(lengths[..16].iter().all(|length| *length <= SMALL_RECORD + OVERHEAD));
        assert!(pair.deliver(&output).unwrap() == plaintext);
    }
}

#[test]
fn keys_are_updated_when_the_client_asks() {
    let mut pair = Pair::open(1, &[]);
    for _ in 0..20 {
        pair.client.refresh_traffic_keys().unwrap();
        let wire = pair.encrypted_by_client(b"to");
        let (plaintext, mut output) = pair.serve(&wire);
        assert_eq!(plaintext, b"to");
        pair.server.encrypt(b"from", &mut output).unwrap();
        assert_eq!(pair.deliver(&output).unwrap(), b"from");
    }
}

#[test]
fn key_updates_without_data_are_limited() {
    let mut pair = Pair::open(1, &[]);
    for _ in 0..100 {
        pair.client.refresh_traffic_keys().unwrap();
        let wire = pair.sent_by_client();
        pair.serve(&wire);
    }
    assert_eq!(pair.server.state(), State::Failed(Error::Misbehaved));
}

#[test]
fn replayed_and_reordered_records_are_not_decrypted() {
    for version in 0..2 {
        for order in [[0, 0], [1, 0]] {
            let mut pair = Pair::open(version, &[]);
            let records = [pair.encrypted_by_client(b"one"), pair.encrypted_by_client(b"two")];
            let wire = order.map(|at| &records[at][..]).concat();
            let (plaintext, output) = pair.serve(&wire);
            let first: &[u8] = if order[0] == 0 { b"one" } else { b"" };
            assert_eq!(plaintext, first);
            assert_eq!(pair.server.state(), State::Failed(Error::Decrypt));
            assert!(matches!(pair.deliver(&output), Err(rustls::Error::AlertReceived(_))));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_cut_gives_the_same_plaintext(
        version in 0usize..2,
        cuts in proptest::collection::vec(prop_oneof![1usize..20, 1usize..40_000], 1..20),
        messages in proptest::collection::vec(prop_oneof![1usize..300, 16_000usize..50_000], 1..6),
    ) {
        let mut pair = Pair::open(version, &cuts);
        for length in messages {
            let message = bytes(length);
            let wire = pair.encrypted_by_client(&message);
            let (plaintext, mut output) = pair.serve(&wire);
            prop_assert!(plaintext == message && output.is_empty());
            prop_assert_eq!(pair.server.kept.capacity(), 0);
            pair.server.encrypt(&message, &mut output).unwrap();
            prop_assert!(pair.deliver(&output).unwrap() == message);
        }
    }

    #[test]
    fn a_corrupted_record_ends_with_an_alert(
        version in 0usize..2,
        cuts in proptest::collection::vec(1usize..500, 1..5),
        at in 5usize..300,
        bit in 0u8..8,
    ) {
        let mut pair = Pair::open(version, &cuts);
        let mut wire = pair.encrypted_by_client(&bytes(300));
        wire[at] ^= 1 << bit;
        let (plaintext, output) = pair.serve(&wire);
        prop_assert!(plaintext.is_empty());
        prop_assert_eq!(pair.server.state(), State::Failed(Error::Decrypt));
        let error = pair.deliver(&output);
        prop_assert!(matches!(error, Err(rustls::Error::AlertReceived(_))), "{:?}", error);
    }

    #[test]
    fn any_bytes_are_handled(
        first in any::<Vec<u8>>(),
        cuts in proptest::collection::vec(1usize..50, 0..5),
    ) {
        let mut pair = Pair::new(1, NAME, &cuts);
        let (plaintext, _) = pair.serve(&first);
        prop_assert!(plaintext.is_empty());
    }
}
