//! How the client's side makes a handshake: authorities, its own certificate, protocols, sessions
//! that it resumes.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::server::provider;
use super::verifier::Verifier;
use super::{Authorities, Error, Identity, Output, Session, Version};

/// The most tickets that a client keeps: 8 for each of 32 server names. A ticket has about 2 KiB,
/// above all the chain of the server.
const TICKETS: usize = 8 * 32;

/// Makes the sessions of one cluster. Clones share it, and the tickets that servers have sent.
///
/// A lock guards these tickets. Each worker makes a client of its own, so that none waits for it.
#[derive(Clone, Debug)]
pub struct Client(Arc<ClientConfig>);

/// What a [`Client`] is made from.
#[derive(Clone, Copy, Debug)]
pub struct ClientSettings<'a> {
    /// The server must show a certificate that comes from one of these, or is one of them, and is
    /// for its name. `None`:
    /// any certificate is accepted. Then the connection is encrypted, but an attacker on its path
    /// can read and change it.
    pub authorities: Option<&'a Authorities>,
    /// The certificate that is shown to servers that ask for one.
    pub identity: Option<&'a Identity>,
    /// The protocols that are offered (RFC 7301), the preferred one first. Empty: none.
    pub protocols: &'a [String],
    /// The oldest version that is accepted.
    pub min_version: Version,
}

impl Client {
    /// Makes the client of a cluster.
    ///
    /// # Errors
    /// If rustls refuses the configuration.
    pub fn new(settings: &ClientSettings<'_>) -> Result<Client, Error> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(settings.min_version.and_later())?;
        let builder = match settings.authorities {
            Some(authorities) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Verifier::new(authorities, provider)?)),
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(NoVerification(provider))),
        };
        let mut config = match settings.identity {
            Some(identity) => {
                let key = Arc::clone(identity.certified_key());
                builder.with_client_cert_resolver(Arc::new(OwnCertificate(key)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols =
            settings.protocols.iter().map(|name| name.clone().into_bytes()).collect();
        config.resumption = Resumption::in_memory_sessions(TICKETS);
        // Early data can be replayed (RFC 8446 section 8).
        config.enable_early_data = false;
        Ok(Client(Arc::new(config)))
    }

    /// Begins a session and appends its ClientHello to `output`. `name` is a DNS name or an IP
    /// address; a DNS name is sent as the server name (RFC 6066 section 3).
    ///
    /// # Errors
    /// The name is neither, or rustls refuses the configuration.
    pub fn session(&self, name: &str, output: &mut Vec<u8>) -> Result<Session, Error> {
        let name = ServerName::try_from(name).map_err(|_| Error::ServerName)?.to_owned();
        let mut hello = Output::default();
        let session = Session::client(Arc::clone(&self.0), name, &mut hello)?;
        output.extend_from_slice(&hello);
        Ok(session)
    }
}

/// Returns true if a certificate can be for this name: it is a DNS name or an IP address.
pub fn is_server_name(name: &str) -> bool {
    ServerName::try_from(name).is_ok()
}

/// Accepts every certificate.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    // A signature by the key of an unverified certificate proves nothing. To check it would only
    // refuse certificates that webpki cannot parse.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Shows one certificate, whichever authorities the server names: the server refuses a wrong one by
/// an alert that says so.
#[derive(Debug)]
struct OwnCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
