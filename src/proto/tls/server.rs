//! How the server's side makes a handshake: certificates, protocols, client certificates, tickets.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SignatureAlgorithm, SupportedProtocolVersion};

use super::tickets::Tickets;
use super::{Authorities, Error, Identity, Session, TicketKeys, Version};

/// The tickets of a handshake of TLS 1.3. A client of a tunnel opens one connection after the
/// other, and each resumed one brings the next ticket. More would cost bytes and encryption in
/// every handshake, and clients that are written in Go keep none by default.
const TLS13_TICKETS: usize = 1;

/// Makes the sessions of one rule. Clones share it.
#[derive(Clone, Debug)]
pub struct Server(Arc<ServerConfig>);

/// What a [`Server`] is made from.
#[derive(Clone, Copy, Debug)]
pub struct ServerSettings<'a> {
    /// The certificates. A client gets the first one whose signatures it accepts; ECDSA is tried
    /// before RSA, because it costs a quarter.
    pub identities: &'a [Identity],
    /// The protocols that are offered (RFC 7301), the preferred one first. If the client offers
    /// protocols, but none of these, the handshake fails. Empty: none is agreed on.
    pub protocols: &'a [String],
    /// Clients must show a certificate that comes from one of these.
    pub client_authorities: Option<&'a Authorities>,
    /// The oldest version that is accepted.
    pub min_version: Version,
    /// The keys of tickets.
    pub ticket_keys: &'a Arc<TicketKeys>,
    /// Where tickets are accepted: a name of the rule, which no other rule has. A server that
    /// demands certificates of its clients has no tickets.
    pub scope: &'a str,
}

impl Server {
    /// Makes the server of a rule.
    ///
    /// # Errors
    /// There is no certificate, or the authorities of clients are empty.
    pub fn new(settings: &ServerSettings<'_>) -> Result<Server, Error> {
        if settings.identities.is_empty() {
            return Err(Error::NoCertificate);
        }
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(settings.min_version.and_later())?;
        let builder = match settings.client_authorities {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let roots = Arc::clone(authorities.roots());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|_| Error::Other)?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Resolver::new(settings.identities)));
        config.alpn_protocols =
            settings.protocols.iter().map(|name| name.clone().into_bytes()).collect();
        // The server keeps no session: the ticket is the whole state. Without early data, because
        // it can be replayed (RFC 8446 section 8).
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // A resumption does not check the certificate of the client again, and each one brings a
        // new ticket. So a certificate that has expired would be accepted without end (RFC 8446
        // section 4.6.1).
        let has_tickets = settings.client_authorities.is_none();
        if has_tickets {
            config.ticketer = Arc::new(Tickets::new(settings.ticket_keys, settings.scope));
        }
        config.max_early_data_size = 0;
        config.send_tls13_tickets = if has_tickets { TLS13_TICKETS } else { 0 };
        Ok(Server(Arc::new(config)))
    }

    /// Makes the server for a challenge by tls-alpn-01 (RFC 8737 section 3).
    ///
    /// # Errors
    /// If rustls refuses the configuration.
    pub fn for_challenge(identity: &Identity) -> Result<Server, Error> {
        let resolver = Resolver(vec![Arc::clone(identity.certified_key())]);
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(Version::Tls12.and_later())?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Server(Arc::new(config)))
    }

    /// Begins a session, which waits for a ClientHello.
    ///
    /// # Errors
    /// If rustls refuses the configuration.
    pub fn session(&self) -> Result<Session, Error> {
        Session::server(Arc::clone(&self.0))
    }
}

impl Version {
    /// This version and those after it.
    pub(super) fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match self {
            Version::Tls12 => &ALL,
            Version::Tls13 => &ALL[..1],
        }
    }
}

/// The algorithms: those of rustls by default, X25519MLKEM768 among them.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Chooses among the certificates of a rule. The rule was chosen by the server name before.
#[derive(Debug)]
struct Resolver(Vec<Arc<CertifiedKey>>);

impl Resolver {
    fn new(identities: &[Identity]) -> Resolver {
        let mut sorted: Vec<_> = identities.iter().collect();
        sorted.sort_by_key(|identity| match identity.algorithm() {
            SignatureAlgorithm::ECDSA => 0,
            SignatureAlgorithm::ED25519 => 1,
            _ => 2,
        });
        Resolver(sorted.into_iter().map(|identity| Arc::clone(identity.certified_key())).collect())
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let accepted =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        // Without one that the client accepts, rustls finds that nothing is in common, and says so
        // in its alert.
        self.0.iter().find(accepted).or(self.0.first()).cloned()
    }
}
