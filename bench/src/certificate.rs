//! The certificate of the benchmark: made for one run, and never kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::load::tls::Certificate;
use crate::while_doing;

/// The host that all rows with TLS name.
pub(crate) const HOST: &str = "live.example.com";
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// A certificate and its key.
pub(crate) struct Made {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: rcgen::KeyPair,
}

/// Makes a certificate that is its own issuer: clients pin it, and so no chain is needed.
pub(crate) fn make(algorithm: &'static rcgen::SignatureAlgorithm) -> io::Result<Made> {
    let key = rcgen::KeyPair::generate_for(algorithm).map_err(io::Error::other)?;
    let mut parameters =
        rcgen::CertificateParams::new([HOST.to_string()]).map_err(io::Error::other)?;
    let name = &mut parameters.distinguished_name;
    name.push(rcgen::DnType::CommonName, HOST);
    let now = SystemTime::now();
    parameters.not_before = (now - Duration::from_secs(3600)).into();
    parameters.not_after = (now + LIFETIME).into();
    let certificate = parameters.self_signed(&key).map_err(io::Error::other)?;
    Ok(Made { certificate, key })
}

/// Where the certificate of a run is, as PEM.
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Certificate and key in one file, as HAProxy reads them.
    pub(crate) both: PathBuf,
    /// What clients pin.
    pub(crate) pinned: Certificate,
}

/// Makes the certificate of a run, with a P-256 key, and writes it into a directory.
pub(crate) fn write(directory: &Path) -> io::Result<Files> {
    let Made { certificate, key } = make(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let (certificate_pem, key_pem) = (certificate.pem(), key.serialize_pem());
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).map_err(while_doing(path.display()))?;
        Ok::<PathBuf, io::Error>(path)
    };
    Ok(Files {
        both: file("both.pem", &(certificate_pem.clone() + &key_pem))?,
        certificate: file("certificate.pem", &certificate_pem)?,
        key: file("key.pem", &key_pem)?,
        pinned: Certificate::from_der(certificate.der().to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn what_is_written_is_read_again_and_no_two_runs_share_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = write(directory.path()).unwrap();
        let read = |path: &Path| Certificate::read(path.to_str().unwrap()).unwrap();
        assert_eq!(read(&first.certificate), first.pinned);
        assert_eq!(read(&first.both), first.pinned);
        let key = PrivateKeyDer::from_pem_file(&first.both).unwrap();
        assert_eq!(key, PrivateKeyDer::from_pem_file(&first.key).unwrap());
        assert_ne!(write(directory.path()).unwrap().pinned, first.pinned);
    }
}
