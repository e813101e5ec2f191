//! Clients and servers against each other in memory.

use std::sync::{Arc, OnceLock};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, SignatureAlgorithm,
};

use rustls::client::ResolvesClientCert;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, SignatureScheme, SupportedProtocolVersion, version};

use super::server::provider;
use super::*;

mod client;
mod resumption;
mod server;

const NAME: &str = "site.example.test";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// An authority of its own name.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn certificates(&self) -> Authorities {
        Authorities::parse(self.0.pem().as_bytes()).unwrap()
    }

    fn issue(&self, names: &[&str], algorithm: &'static SignatureAlgorithm) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.issue_with(CertificateParams::new(names).unwrap(), algorithm)
    }

    fn issue_with(
        &self,
        params: CertificateParams,
        algorithm: &'static SignatureAlgorithm,
    ) -> Identity {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity::parse(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }
}

/// What most tests use.
struct Site {
    authority: Authority,
    authorities: Authorities,
    ecdsa: Identity,
    rsa: Identity,
    keys: Arc<TicketKeys>,
}

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| {
        let authority = Authority::new();
        Site {
            authorities: authority.certificates(),
            ecdsa: authority.issue(&[NAME, "*.example.test"], &PKCS_ECDSA_P256_SHA256),
            rsa: authority.issue(&[NAME], &PKCS_RSA_SHA256),
            keys: Arc::new(TicketKeys::random()),
            authority,
        }
    })
}

fn server_settings() -> ServerSettings<'static> {
    let site = site();
    ServerSettings {
        identities: std::slice::from_ref(&site.ecdsa),
        protocols: &[],
        client_authorities: None,
        min_version: Version::Tls12,
        ticket_keys: &site.keys,
        scope: "rule",
    }
}

fn client_settings() -> ClientSettings<'static> {
    ClientSettings {
        authorities: Some(&site().authorities),
        identity: None,
        protocols: &[],
        min_version: Version::Tls12,
    }
}

fn server() -> Server {
    Server::new(&server_settings()).unwrap()
}

fn client() -> Client {
    Client::new(&client_settings()).unwrap()
}

/// A client of one version, which accepts the signature schemes that `accepts` selects, and shows
/// the certificate of `identity`.
fn raw_client(
    version: &'static SupportedProtocolVersion,
    accepts: impl Fn(SignatureScheme) -> bool,
    identity: Option<&Identity>,
) -> Arc<ClientConfig> {
    let mut provider = (*provider()).clone();
    let WebPkiSupportedAlgorithms { all, mapping } = provider.signature_verification_algorithms;
    let mapping: Vec<_> = mapping.iter().copied().filter(|(scheme, _)| accepts(*scheme)).collect();
    provider.signature_verification_algorithms =
        WebPkiSupportedAlgorithms { all, mapping: mapping.leak() };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(Arc::clone(site().authorities.roots()));
    let own = identity.map(|identity| identity.certified_key());
    Arc::new(match own {
        Some(own) => {
            let resolver = rustls::sign::SingleCertAndKey::from((**own).clone());
            builder.with_client_cert_resolver(Arc::new(resolver) as Arc<dyn ResolvesClientCert>)
        }
        None => builder.with_no_client_auth(),
    })
}

fn connect_raw(client: &Arc<ClientConfig>, server: &Server) -> Pair {
    let mut hello = Output::default();
    let name = ServerName::try_from(NAME).unwrap();
    let client = Session::client(Arc::clone(client), name, &mut hello).unwrap();
    shake(client, hello.to_vec(), server.session().unwrap())
}

/// The two sides of a connection after the attempt of a handshake.
struct Pair {
    client: Session,
    server: Session,
}

impl Pair {
    fn states(&self) -> (State, State) {
        (self.client.state(), self.server.state())
    }

    /// Returns true if both sides agree that an earlier session was resumed. The handshake must
    /// have succeeded.
    fn is_resumed(&self) -> bool {
        assert_eq!(self.states(), (State::Open, State::Open));
        assert_eq!(self.client.is_resumed(), self.server.is_resumed());
        self.client.is_resumed()
    }
}

fn connect(client: &Client, server: &Server) -> Pair {
    connect_to(client, server, NAME)
}

fn connect_to(client: &Client, server: &Server, name: &str) -> Pair {
    let mut hello = Vec::new();
    let client = client.session(name, &mut hello).unwrap();
    shake(client, hello, server.session().unwrap())
}

/// Takes turns until neither side sends.
fn shake(mut client: Session, hello: Vec<u8>, mut server: Session) -> Pair {
    let mut from_client = hello;
    while !from_client.is_empty() {
        let from_server = give(&mut server, &from_client);
        from_client = give(&mut client, &from_server);
    }
    Pair { client, server }
}

/// Gives bytes of the wire to a session. Returns what it sends.
fn give(session: &mut Session, wire: &[u8]) -> Vec<u8> {
    let mut output = Output::default();
    let start = session.headroom();
    let mut buffer = [&vec![0; start], wire].concat();
    let end = buffer.len();
    let plaintext = session.receive(&mut buffer, start..end, &mut output);
    assert!(plaintext.is_empty());
    output.to_vec()
}
