//! Certificates that are made while a test runs, in files of its own.

use std::cell::Cell;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

/// An authority that signs certificates; the files are gone with it.
pub(crate) struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    made: Cell<usize>,
}

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// The certificate without PEM around it: what a peer shows.
    pub(crate) der: CertificateDer<'static>,
}

/// What a certificate is like, besides its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ecdsa,
    Rsa,
    /// With an ECDSA key; it expired in the year 2000.
    Expired,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let made = params.self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), made.pem()).unwrap();
        let certificate = made.der().clone();
        Authority { dir, issuer: Issuer::new(params, key), certificate, made: Cell::new(0) }
    }

    /// The file with its own certificate, which clients are to trust.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Signs a certificate for these names with an ECDSA key, for servers and for clients.
    pub(crate) fn signs(&self, names: &[&str]) -> Pair {
        self.signs_as(Kind::Ecdsa, names)
    }

    pub(crate) fn signs_as(&self, kind: Kind, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let common_name = names[0].clone();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if kind == Kind::Expired {
            params.not_after = date_time_ymd(2000, 1, 1);
        }
        let key = match kind {
            Kind::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            Kind::Ecdsa | Kind::Expired => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        };
        let key = key.unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();

        let count = self.made.get();
        self.made.set(count + 1);
        let pair = Pair {
            certificate: self.dir.path().join(format!("{count}.pem")),
            key: self.dir.path().join(format!("{count}.key")),
            der: made.der().clone(),
        };
        fs::write(&pair.certificate, made.pem()).unwrap();
        write_private(&pair.key, key.serialize_pem());
        pair
    }
}

impl Pair {
    /// The keys of a rule that ends TLS with it.
    pub(crate) fn lines(&self) -> String {
        format!("certificate = {:?}\nkey = {:?}", self.certificate, self.key)
    }

    /// A rule that ends TLS with it for these names; `more` is more lines of the rule.
    pub(crate) fn rule(&self, names: &[&str], more: &str) -> String {
        let names = if names.is_empty() { String::new() } else { format!("names = {names:?}\n") };
        format!("[[listener.tls]]\n{names}{}\n{more}\n", self.lines())
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(file: &Path, content: impl AsRef<[u8]>) {
    fs::write(file, content).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
}
