//! What the workers answer while an authority checks that names lead to this machine.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use instant_acme::KeyAuthorization;
use rcgen::{Certificate, CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use tokio::sync::oneshot;

use super::failure::Failure;
use super::names::Names;
use crate::proto::tls::Identity;

/// How the authority checks that a name leads to this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeKind {
    /// A request to port 80 (RFC 8555 section 8.3).
    Http01,
    /// A TLS handshake on port 443 (RFC 8737).
    TlsAlpn01,
}

impl fmt::Display for ChallengeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChallengeKind::Http01 => "http-01",
            ChallengeKind::TlsAlpn01 => "tls-alpn-01",
        })
    }
}

/// All challenges that must be answered at present. Only those of one order are open at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenges {
    /// http-01: for the last segment of `/.well-known/acme-challenge/TOKEN` the body of the
    /// response.
    pub http: HashMap<Box<str>, Box<str>>,
    /// tls-alpn-01: for the server name, in lower case, the certificate of a handshake that agrees
    /// on the protocol `acme-tls/1`.
    pub tls: HashMap<Box<str>, Identity>,
}

/// What ACME tells the rest of the control plane.
#[derive(Debug)]
pub enum Event {
    /// The challenges have changed.
    Challenges {
        /// All that must be answered from now on.
        challenges: Arc<Challenges>,
        /// Answered when every worker has them: the authority asks at once.
        published: oneshot::Sender<()>,
    },
    /// There is a new certificate.
    Issued {
        /// Its names, as they were ordered.
        names: Names,
        /// The certificate with its key.
        identity: Identity,
    },
}

impl Challenges {
    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.http.is_empty() && self.tls.is_empty()
    }

    /// Adds the answer to a challenge for a name.
    pub(super) fn add(
        &mut self,
        kind: ChallengeKind,
        name: &str,
        token: &str,
        authorization: &KeyAuthorization,
    ) -> Result<(), Failure> {
        match kind {
            ChallengeKind::Http01 => {
                if !is_token(token) {
                    return Err(Failure::new("the token of a challenge is malformed"));
                }
                self.http.insert(token.into(), authorization.as_str().into());
            }
            ChallengeKind::TlsAlpn01 => {
                let name = name.to_ascii_lowercase();
                let identity = identity(&name, authorization.digest().as_ref())?;
                self.tls.insert(name.into(), identity);
            }
        }
        Ok(())
    }
}

/// Returns true for characters of base64url (RFC 8555 section 8.3). A token is compared with a part
/// of a path.
fn is_token(token: &str) -> bool {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !token.is_empty() && token.bytes().all(is_base64url)
}

fn identity(name: &str, digest: &[u8]) -> Result<Identity, Failure> {
    let fail = |error: rcgen::Error| Failure::new(format!("cannot make a certificate: {error}"));
    let (certificate, key) = certificate(name, digest).map_err(fail)?;
    let identity = Identity::parse(certificate.pem().as_bytes(), key.serialize_pem().as_bytes());
    identity.map_err(|error| Failure::new(format!("cannot use the certificate: {error:?}")))
}

/// Makes the certificate of a tls-alpn-01 challenge: self-signed, with the name alone and the
/// digest of the key authorization in a critical extension (RFC 8737 section 3).
fn certificate(name: &str, digest: &[u8]) -> Result<(Certificate, KeyPair), rcgen::Error> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?, key))
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    /// The extension id-pe-acmeIdentifier (RFC 8737 section 6.1).
    const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";

    #[test]
    fn tokens_are_base64url() {
        assert!(is_token("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA"));
        for bad in ["", "a/b", "..", "a b", "a=", "a\n", "ä", "a+b"] {
            assert!(!is_token(bad), "{bad}");
        }
    }

    #[test]
    fn the_certificate_of_a_challenge_has_the_name_and_the_digest() {
        let digest = [7; 32];
        let (certificate, _) = certificate("a.test", &digest).unwrap();
        let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
        let mut extensions = parsed.extensions().iter();
        let acme = extensions.find(|found| found.oid.to_id_string() == ACME_IDENTIFIER).unwrap();
        assert!(acme.critical);
        // An OCTET STRING of 32 bytes.
        assert_eq!(acme.value[..2], [0x04, 32]);
        assert_eq!(acme.value[2..], digest);
        assert_eq!(identity("a.test", &digest).unwrap().names(), ["a.test"]);
    }
}
