//! Sessions against a peer of rustls in memory.

use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};

use rustls::Side::{self, Client, Server};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::ResolvesServerCertUsingSni;
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConnection,
    SupportedProtocolVersion, version,
};

use super::*;

mod data;
mod forged;
mod handshake;

const NAME: &str = "site.example.test";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// Which side the session is, and the version of TLS.
type Case = (Side, usize);
const CASES: [Case; 4] = [(Server, 0), (Server, 1), (Client, 0), (Client, 1)];
const TLS13: Case = (Server, 1);

/// For TLS 1.2 and 1.3.
struct Configs {
    servers: [Arc<ServerConfig>; 2],
    clients: [Arc<ClientConfig>; 2],
    certified: CertifiedKey,
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
        resolver.add(NAME, key.clone()).unwrap();
        let resolver = Arc::new(resolver);
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let servers = VERSIONS.map(|version| {
            let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::clone(&resolver) as _);
            server.alpn_protocols = vec![b"http/1.1".to_vec()];
            server.enable_secret_extraction = true;
            Arc::new(server)
        });
        let clients = VERSIONS.map(|version| {
            let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            client.enable_secret_extraction = true;
            client.resumption = rustls::client::Resumption::disabled();
            Arc::new(client)
        });
        Configs { servers, clients, certified: key }
    })
}

/// A session and its peer.
struct Pair {
    peer: Connection,
    session: Session,
    /// What the session has sent first.
    hello: Vec<u8>,
    /// Lengths of the reads of the session, used in turn.
    cuts: Vec<usize>,
    next_cut: usize,
}

impl Pair {
    fn new(case: Case, cuts: &[usize]) -> Pair {
        Pair::with(case.0, &configs().servers[case.1], &configs().clients[case.1], NAME, cuts)
    }

    fn with(
        side: Side,
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
        name: &'static str,
        cuts: &[usize],
    ) -> Pair {
        let (server, client) = (Arc::clone(server), Arc::clone(client));
        let name = ServerName::try_from(name).unwrap();
        let mut hello = Output::default();
        let (mut peer, session): (Connection, _) = match side {
            Server => (
                ClientConnection::new(client, name).unwrap().into(),
                Session::server(server).unwrap(),
            ),
            Client => (
                ServerConnection::new(server).unwrap().into(),
                Session::client(client, name, &mut hello).unwrap(),
            ),
        };
        peer.set_buffer_limit(None);
        Pair { peer, session, hello: hello.to_vec(), cuts: cuts.to_vec(), next_cut: 0 }
    }

    /// A pair that has finished its handshake.
    fn open(case: Case, cuts: &[usize]) -> Pair {
        let mut pair = Pair::new(case, cuts);
        assert_eq!(pair.shake(), None);
        assert_eq!(pair.session.state(), State::Open);
        assert!(!pair.peer.is_handshaking());
        pair
    }

    /// Takes turns until neither side sends. Returns the error of the peer.
    fn shake(&mut self) -> Option<rustls::Error> {
        let mut output = std::mem::take(&mut self.hello);
        loop {
            let result = self.deliver(&output);
            let wire = self.sent_by_peer();
            if let Err(error) = result {
                self.receive(&wire);
                return Some(error);
            }
            if wire.is_empty() {
                return None;
            }
            let plaintext;
            (plaintext, output) = self.receive(&wire);
            assert!(plaintext.is_empty());
        }
    }

    fn sent_by_peer(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.peer.wants_write() {
            self.peer.write_tls(&mut wire).unwrap();
        }
        wire
    }

    /// Gives bytes to the session in pieces. Returns its plaintext and its output.
    fn receive(&mut self, mut wire: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut plaintext, mut output) = (Vec::new(), Output::default());
        while !wire.is_empty() {
            let length = match self.cuts.get(self.next_cut % self.cuts.len().max(1)) {
                Some(&cut) => cut.clamp(1, wire.len()),
                None => wire.len(),
            };
            self.next_cut += 1;
            let (piece, rest) = wire.split_at(length);
            let headroom = self.session.headroom();
            let mut buffer = [&vec![0; headroom], piece, b"behind"].concat();
            let end = headroom + length;
            let range = self.session.receive(&mut buffer, headroom..end, &mut output);
            assert!(buffer[end..] == *b"behind" && self.session.kept() <= MAX_KEPT);
            plaintext.extend_from_slice(&buffer[range]);
            wire = rest;
        }
        (plaintext, output.to_vec())
    }

    /// Gives bytes to the peer. Returns its plaintext.
    fn deliver(&mut self, mut wire: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut plaintext = Vec::new();
        while !wire.is_empty() {
            self.peer.read_tls(&mut wire).unwrap();
            self.peer.process_new_packets()?;
            // After a close_notify this reads 0, before it the error is that nothing is there.
            let _ = self.peer.reader().read_to_end(&mut plaintext);
        }
        Ok(plaintext)
    }

    /// What the session sends for this plaintext.
    fn encrypt(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut output = Output::default();
        self.session.encrypt(plaintext, &mut output).unwrap();
        output.to_vec()
    }

    /// What the peer sends for this plaintext.
    fn encrypted_by_peer(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.peer.writer().write_all(plaintext).unwrap();
        self.sent_by_peer()
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
