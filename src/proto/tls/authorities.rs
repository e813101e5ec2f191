//! The certificates of authorities that a peer's certificate must come from.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::identity::{PemFault, certificates};

/// Certificates of authorities. Clones share them.
#[derive(Clone)]
pub struct Authorities(Arc<Parts>);

struct Parts {
    certificates: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
}

impl Authorities {
    /// Reads the certificates of a PEM text.
    ///
    /// # Errors
    /// The text holds no certificate, or a malformed one.
    pub fn parse(pem: &[u8]) -> Result<Authorities, PemFault> {
        let certificates = certificates(pem)?;
        let mut roots = RootCertStore::empty();
        for (at, certificate) in certificates.iter().enumerate() {
            let fault = PemFault::MalformedCertificate(at + 1);
            roots.add(certificate.clone()).map_err(|_| fault)?;
        }
        Ok(Authorities(Arc::new(Parts { certificates, roots: Arc::new(roots) })))
    }

    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0.certificates
    }

    pub(super) fn roots(&self) -> &Arc<RootCertStore> {
        &self.0.roots
    }
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Authorities) -> bool {
        self.0.certificates == other.0.certificates
    }
}

impl Eq for Authorities {}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.0.certificates.len())
    }
}
