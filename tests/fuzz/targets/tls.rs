//! TLS sessions of both sides against a peer of rustls, whose records are cut, reordered, repeated,
//! dropped and changed. Only what the peer has sent arrives, in its order and without gaps.
#![no_main]

use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use ringgate::proto::tls::{
    Authorities, Client, ClientSettings, Identity, MAX_KEPT, Output, Server, ServerSettings,
    Session, State, TicketKeys, Version,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion, version,
};

const NAME: &str = "site.example.test";
/// More than any flight of a handshake here.
const MAX_OUTPUT: usize = 8 * 1024;

struct Site {
    identity: Identity,
    authorities: Authorities,
    keys: Arc<TicketKeys>,
    /// Peers of TLS 1.2 and 1.3.
    servers: [Arc<ServerConfig>; 2],
    clients: [Arc<ClientConfig>; 2],
}

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
        let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let versions: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];
        let servers = versions.map(|version| {
            let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
            let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[version])
                .expect("a version")
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key.into());
            Arc::new(server.expect("a server"))
        });
        let clients = versions.map(|version| {
            let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[version])
                .expect("a version")
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            Arc::new(client)
        });
        Site {
            identity: Identity::parse(pem.as_bytes(), key.as_bytes()).expect("an identity"),
            authorities: Authorities::parse(pem.as_bytes()).expect("authorities"),
            keys: Arc::new(TicketKeys::random()),
            servers,
            clients,
        }
    })
}

/// A session and its peer, with what is on the way between them.
struct Wire {
    session: Session,
    peer: Connection,
    /// Records of the peer that the session has not got yet.
    records: Vec<Vec<u8>>,
    /// Plaintext that was sent, and how much of it has arrived.
    by_peer: (Vec<u8>, usize),
    by_session: (Vec<u8>, usize),
    /// Records are as the peer has sent them.
    is_honest: bool,
    is_peer_closed: bool,
    key_updates: usize,
}

impl Wire {
    /// Bit 0: the session is a client. Bit 1: TLS 1.3.
    fn new(kind: u8) -> Wire {
        let (site, version) = (site(), usize::from(kind >> 1 & 1));
        let mut hello = Vec::new();
        let (session, mut peer): (_, Connection) = if kind & 1 == 0 {
            let server = Server::new(&ServerSettings {
                identities: std::slice::from_ref(&site.identity),
                protocols: &[],
                client_authorities: None,
                min_version: Version::Tls12,
                ticket_keys: &site.keys,
                scope: "",
            });
            let name = ServerName::try_from(NAME).expect("a name");
            let peer = ClientConnection::new(Arc::clone(&site.clients[version]), name);
            let session = server.expect("a server").session();
            (session.expect("a session"), peer.expect("a peer").into())
        } else {
            let client = Client::new(&ClientSettings {
                authorities: Some(&site.authorities),
                identity: None,
                protocols: &[],
                min_version: Version::Tls12,
            });
            let session = client.expect("a client").session(NAME, &mut hello);
            let peer = ServerConnection::new(Arc::clone(&site.servers[version]));
            (session.expect("a session"), peer.expect("a peer").into())
        };
        peer.set_buffer_limit(None);
        let mut wire = Wire {
            session,
            peer,
            records: Vec::new(),
            by_peer: (Vec::new(), 0),
            by_session: (Vec::new(), 0),
            is_honest: true,
            is_peer_closed: false,
            key_updates: 0,
        };
        wire.deliver(&hello);
        wire
    }

    /// Gives bytes to the session, and to the peer what the session answers.
    fn receive(&mut self, bytes: &[u8]) {
        let before = self.session.state();
        let headroom = self.session.headroom();
        let mut buffer = [&vec![0; headroom], bytes].concat();
        let end = buffer.len();
        let mut output = Output::default();
        let plaintext = self.session.receive(&mut buffer, headroom..end, &mut output);
        let (sent, arrived) = &mut self.by_peer;
        assert!(sent[*arrived..].starts_with(&buffer[plaintext.clone()]), "not what was sent");
        *arrived += plaintext.len();
        assert!(output.len() <= MAX_OUTPUT && self.session.kept() <= MAX_KEPT);
        if matches!(before, State::Failed(_) | State::PeerClosed) {
            assert!(plaintext.is_empty() && output.is_empty() && self.session.state() == before);
        }
        assert!(!self.is_honest || !matches!(self.session.state(), State::Failed(_)));
        self.deliver(&output);
    }

    /// Gives bytes to the peer, and collects its records.
    fn deliver(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let read = self.peer.read_tls(&mut bytes).expect("memory can be read");
            let result = self.peer.process_new_packets();
            assert!(!self.is_honest || result.is_ok(), "{result:?}");
            let mut plaintext = Vec::new();
            let _ = self.peer.reader().read_to_end(&mut plaintext);
            let (sent, arrived) = &mut self.by_session;
            assert!(sent[*arrived..].starts_with(&plaintext), "not what was sent");
            *arrived += plaintext.len();
            if read == 0 || result.is_err() {
                break;
            }
        }
        self.collect();
    }

    fn collect(&mut self) {
        let mut wire = Vec::new();
        while self.peer.wants_write() {
            self.peer.write_tls(&mut wire).expect("memory can be written");
        }
        while let [_, _, _, high, low, ..] = wire[..] {
            let rest = wire.split_off(5 + usize::from(u16::from_be_bytes([high, low])));
            self.records.push(std::mem::replace(&mut wire, rest));
        }
    }

    fn first(&mut self) -> Vec<u8> {
        if self.records.is_empty() { Vec::new() } else { self.records.remove(0) }
    }

    /// Does one thing. The arguments come from `more`.
    fn step(&mut self, action: u8, more: &mut impl FnMut() -> u8) {
        let is_tampered = match action % 16 {
            0..=2 => {
                let record = self.first();
                self.receive(&record);
                false
            }
            3 => {
                let (mut record, length) = (self.first(), usize::from(more()) * 8);
                if record.len() > length {
                    let rest = record.split_off(length);
                    self.records.insert(0, rest);
                }
                self.receive(&record);
                false
            }
            4 => {
                let all = std::mem::take(&mut self.records).concat();
                self.receive(&all);
                false
            }
            5 | 6 => {
                if !self.is_peer_closed {
                    let length = usize::from(more()) * 80;
                    let data = pattern(self.by_peer.0.len(), length);
                    // A peer that has failed takes none.
                    if self.peer.writer().write_all(&data).is_ok() {
                        self.by_peer.0.extend_from_slice(&data);
                        self.key_updates = 0;
                    }
                }
                false
            }
            7 | 8 => {
                let length = usize::from(more()) * 80;
                let data = pattern(self.by_session.0.len(), length);
                let mut output = Output::default();
                if self.session.encrypt(&data, &mut output).is_ok() {
                    self.by_session.0.extend_from_slice(&data);
                    assert!(output.len() <= data.len() + data.len() / 40 + 200);
                }
                self.deliver(&output);
                false
            }
            9 => {
                // More than 32 without data are a fault of the peer.
                if self.key_updates < 32 && self.peer.refresh_traffic_keys().is_ok() {
                    self.key_updates += 1;
                }
                false
            }
            10 => {
                self.peer.send_close_notify();
                self.is_peer_closed = true;
                // It may close before the end of the handshake.
                self.session.state() == State::Handshake || self.peer.is_handshaking()
            }
            11 => {
                let mut output = Output::default();
                self.session.close(&mut output);
                self.deliver(&output);
                // The answers of the peer to a close are its own.
                true
            }
            12 => {
                let record = self.first();
                self.records.extend([record.clone(), record]);
                true
            }
            13 => {
                let at = usize::from(more()) % self.records.len().max(1);
                if at < self.records.len() {
                    self.records.remove(at);
                }
                true
            }
            14 => {
                let (at, mask) = (usize::from(more()), more());
                if let Some(record) = self.records.first_mut() {
                    let at = at % record.len().max(1);
                    record.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= mask);
                }
                true
            }
            _ => {
                let junk: Vec<u8> = (0..more() % 32).map(|_| more()).collect();
                let at = usize::from(more()) % (self.records.len() + 1);
                self.records.insert(at, junk);
                true
            }
        };
        self.is_honest &= !is_tampered;
        self.collect();
    }
}

fn pattern(start: usize, length: usize) -> Vec<u8> {
    (start..start + length).map(|at| (at / 251) as u8 ^ at as u8).collect()
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, script)) = data.split_first() else { return };
    let mut wire = Wire::new(kind);
    // Most scripts begin with data, behind the handshake.
    for _ in 0..kind >> 2 & 7 {
        wire.step(4, &mut || 0);
    }
    // Each step costs up to 20 KiB on the wire.
    let mut bytes = script.iter().copied().take(400);
    while let Some(action) = bytes.next() {
        wire.step(action, &mut || bytes.next().unwrap_or_default());
    }
    if wire.is_honest {
        while !wire.records.is_empty() {
            wire.step(4, &mut || 0);
        }
        let is_open = matches!(wire.session.state(), State::Open | State::PeerClosed);
        assert!(is_open && wire.by_peer.0.len() == wire.by_peer.1);
        assert_eq!(wire.by_session.0.len(), wire.by_session.1);
    }
});
