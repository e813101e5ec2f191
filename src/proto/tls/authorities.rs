//! The certificates of authorities that a peer's certificate must come from.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::identity::{PemFault, certificates};

/// This machine has no authorities, for this reason if one is known.
#[derive(Debug)]
pub struct SystemError(Option<rustls_native_certs::Error>);

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

    /// Reads the authorities of this machine, from the places that OpenSSL uses. It blocks: a file
    /// of some hundred kilobytes is read.
    ///
    /// # Errors
    /// The machine has none, or none that can be used.
    pub fn system() -> Result<Authorities, SystemError> {
        let mut found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // One certificate that is malformed does not take away the others.
        found.certs.retain(|certificate| roots.add(certificate.clone()).is_ok());
        if found.certs.is_empty() {
            return Err(SystemError(found.errors.into_iter().next()));
        }
        Ok(Authorities(Arc::new(Parts { certificates: found.certs, roots: Arc::new(roots) })))
    }

    /// Returns true if both are the same object, and not only equal.
    pub fn is_same(&self, other: &Authorities) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0.certificates
    }

    pub(super) fn roots(&self) -> &Arc<RootCertStore> {
        &self.0.roots
    }
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this machine has no certificates of authorities")
    }
}

impl Error for SystemError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let cause = self.0.as_ref()?;
        Some(cause)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_certificates_and_nothing_else() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let one = params.self_signed(&key).unwrap().pem();
        let two = format!("{one}{}", params.self_signed(&key).unwrap().pem());
        let parse = |pem: &str| Authorities::parse(pem.as_bytes());
        assert_eq!(parse(&two).unwrap().certificates().len(), 2);
        assert_eq!(parse(&one).unwrap(), parse(&one).unwrap());
        assert_ne!(parse(&one).unwrap(), parse(&two).unwrap());
        assert_eq!(parse("").unwrap_err(), PemFault::Blank);
        assert_eq!(parse(&key.serialize_pem()).unwrap_err(), PemFault::HasKeyOnly);
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let fault = parse(&format!("{one}{garbage}")).unwrap_err();
        assert_eq!(fault, PemFault::MalformedCertificate(2));
    }
}
