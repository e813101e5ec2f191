//! A certificate chain with its private key, read from PEM (RFC 7468).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::SignatureAlgorithm;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// A certificate chain and the private key of its first certificate. Clones share both.
#[derive(Clone)]
pub struct Identity(Arc<Parts>);

struct Parts {
    certified: Arc<CertifiedKey>,
    names: Vec<String>,
    not_before: SystemTime,
    not_after: SystemTime,
    key: KeyKind,
}

/// The kind of a certificate's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with this many bits.
    Rsa(usize),
    /// ECDSA on a NIST curve.
    Ecdsa,
    /// Ed25519.
    Ed25519,
}

/// RSA keys with fewer bits are refused, here and by current clients.
pub(super) const FEWEST_BITS: usize = 2048;

/// Why there is no identity in two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// A fault in the file of the certificate.
    Certificate(PemFault),
    /// A fault in the file of the key.
    Key(PemFault),
    /// The key does not belong to the first certificate.
    Mismatch,
    /// The key of the first certificate is of a kind that ringgate does not use.
    UnsupportedCertificate,
    /// The key of the first certificate is RSA with this many bits, fewer than [`FEWEST_BITS`].
    SmallRsa(usize),
    /// Each certificate must certify the one before it.
    Order {
        /// The position of the one that does not, from 1.
        position: usize,
    },
}

/// What is wrong with a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PemFault {
    /// There is neither a certificate nor a key.
    Empty,
    /// There is nothing at all.
    Blank,
    /// There is the request for a certificate.
    Request,
    /// It is binary: DER or PKCS #12.
    Binary,
    /// It begins with a byte order mark, which hides the first section.
    ByteOrderMark,
    /// The end of a section is missing.
    Cut,
    /// A certificate file with a key and no certificate.
    HasKeyOnly,
    /// A key file with certificates and no key.
    HasCertificateOnly,
    /// The key is encrypted with a passphrase.
    Encrypted,
    /// The PEM text is malformed.
    Malformed,
    /// The certificate at this position, from 1, is malformed.
    MalformedCertificate(usize),
    /// The key is malformed or of a kind that ringgate does not use.
    UnsupportedKey,
}

impl Identity {
    /// Reads an identity. The certificates are in the order of TLS: the server's own one first.
    ///
    /// # Errors
    /// A file holds something else, or the two do not belong together.
    pub fn parse(chain_pem: &[u8], key_pem: &[u8]) -> Result<Identity, IdentityError> {
        let chain = certificates(chain_pem).map_err(IdentityError::Certificate)?;
        let parsed: Vec<_> = chain
            .iter()
            .enumerate()
            .map(|(at, der)| {
                let fault = IdentityError::Certificate(PemFault::MalformedCertificate(at + 1));
                X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|_| fault)
            })
            .collect::<Result<_, _>>()?;
        for (at, pair) in parsed.windows(2).enumerate() {
            if pair[0].issuer().as_raw() != pair[1].subject().as_raw() {
                return Err(IdentityError::Order { position: at + 2 });
            }
        }
        let leaf = &parsed[0];
        let kind = key_kind(leaf).ok_or(IdentityError::UnsupportedCertificate)?;
        if let KeyKind::Rsa(bits) = kind
            && bits < FEWEST_BITS
        {
            return Err(IdentityError::SmallRsa(bits));
        }
        let (not_before, not_after) = (
            time(leaf.validity().not_before.timestamp()),
            time(leaf.validity().not_after.timestamp()),
        );
        let names = names(leaf);
        let public_key = leaf.public_key().raw.to_vec();
        drop(parsed);
        let key = private_key(key_pem).map_err(IdentityError::Key)?;
        let key =
            any_supported_type(&key).map_err(|_| IdentityError::Key(PemFault::UnsupportedKey))?;
        // A key whose public part cannot be had is refused, too: all kinds that are used have one.
        // `CertifiedKey::keys_match` would refuse any certificate with a critical extension that
        // rustls does not know, and that of a tls-alpn-01 challenge has one (RFC 8737 section 3).
        if key.public_key().is_none_or(|own| own.as_ref() != public_key) {
            return Err(IdentityError::Mismatch);
        }
        let certified = Arc::new(CertifiedKey::new(chain, key));
        Ok(Identity(Arc::new(Parts { certified, names, not_before, not_after, key: kind })))
    }

    /// The DNS names of the certificate (subjectAltName, RFC 5280 section 4.2.1.6), in lower case;
    /// IP addresses in their text form.
    pub fn names(&self) -> &[String] {
        &self.0.names
    }

    /// Returns true if the certificate is for this DNS name: it has the name, or a wildcard for its
    /// first label (RFC 9525 section 6.3).
    pub fn covers(&self, name: &str) -> bool {
        self.0.names.iter().any(|own| {
            own.eq_ignore_ascii_case(name)
                || own.strip_prefix('*').is_some_and(|suffix| {
                    name.find('.').is_some_and(|dot| name[dot..].eq_ignore_ascii_case(suffix))
                })
        })
    }

    /// The first moment at which the certificate is valid.
    pub fn not_before(&self) -> SystemTime {
        self.0.not_before
    }

    /// The last moment at which the certificate is valid.
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// The kind of the key.
    pub fn key(&self) -> KeyKind {
        self.0.key
    }

    /// What rustls signs with.
    pub(super) fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.0.certified
    }

    /// The signature algorithm of the key.
    pub(super) fn algorithm(&self) -> SignatureAlgorithm {
        self.0.certified.key.algorithm()
    }
}

/// Two identities are equal if their certificates are: a certificate has one key.
impl PartialEq for Identity {
    fn eq(&self, other: &Identity) -> bool {
        self.0.certified.cert == other.0.certified.cert
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("names", &self.0.names).finish_non_exhaustive()
    }
}

/// The certificates of a PEM text; at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemFault> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Err(_) => Err(form_fault(pem).unwrap_or(PemFault::Malformed)),
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => {
            let is_key = is_encrypted(pem) || PrivateKeyDer::from_pem_slice(pem).is_ok();
            let other = if is_key { PemFault::HasKeyOnly } else { PemFault::Empty };
            Err(form_fault(pem).unwrap_or(other))
        }
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemFault> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Ok(key),
        Err(_) if is_encrypted(pem) => Err(PemFault::Encrypted),
        Err(PemError::NoItemsFound) => {
            let is_certificate = CertificateDer::from_pem_slice(pem).is_ok();
            let other = if is_certificate { PemFault::HasCertificateOnly } else { PemFault::Empty };
            Err(form_fault(pem).unwrap_or(other))
        }
        Err(_) => Err(form_fault(pem).unwrap_or(PemFault::Malformed)),
    }
}

/// What a file is that holds no usable section, if it is something that operators confuse with it.
fn form_fault(pem: &[u8]) -> Option<PemFault> {
    let titles = |start: &[u8]| {
        let lines = pem.split(|byte| *byte == b'\n').filter(|line| line.starts_with(start));
        lines.map(|line| line[start.len()..].trim_ascii().to_vec()).collect::<Vec<_>>()
    };
    let begun = titles(b"-----BEGIN ");
    let is_request = |title: &Vec<u8>| title.ends_with(b"CERTIFICATE REQUEST-----");
    if pem.trim_ascii().is_empty() {
        Some(PemFault::Blank)
    } else if pem.starts_with(b"\xef\xbb\xbf") {
        Some(PemFault::ByteOrderMark)
    } else if pem[0] == 0x30 && pem.get(1).is_some_and(|length| length & 0x80 != 0) {
        // A SEQUENCE of more than 127 bytes (X.690 section 8.1.3.5).
        Some(PemFault::Binary)
    } else if begun.iter().any(is_request) {
        Some(PemFault::Request)
    } else if begun.len() > titles(b"-----END ").len() {
        Some(PemFault::Cut)
    } else {
        None
    }
}

/// Returns true for a key with a passphrase: as PKCS #8 (RFC 7468 section 11), or with the fields
/// of RFC 1421 that older programs write.
fn is_encrypted(pem: &[u8]) -> bool {
    let marks: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED"];
    let mut lines = pem.split(|byte| *byte == b'\n');
    lines.any(|line| marks.contains(&line.trim_ascii()))
}

fn key_kind(certificate: &X509Certificate<'_>) -> Option<KeyKind> {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => Some(KeyKind::Rsa(key.key_size())),
        Ok(PublicKey::EC(_)) => Some(KeyKind::Ecdsa),
        // Id-Ed25519 (RFC 8410 section 3).
        _ if certificate.public_key().algorithm.algorithm.to_id_string() == "1.3.101.112" => {
            Some(KeyKind::Ed25519)
        }
        _ => None,
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(core::net::Ipv4Addr::new(a, b, c, d).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|ip| core::net::Ipv6Addr::from(ip).to_string()),
        },
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

/// A time of a certificate. Times before 1970 count as 1970.
fn time(timestamp: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or_default())
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::Certificate(fault) | IdentityError::Key(fault) => fault.fmt(f),
            IdentityError::Mismatch => f.write_str("the key does not belong to the certificate"),
            IdentityError::UnsupportedCertificate => {
                f.write_str("the certificate has a kind of key that is not supported")
            }
            IdentityError::SmallRsa(bits) => write!(f, "the RSA key has only {bits} bits"),
            IdentityError::Order { position } => {
                write!(f, "certificate {position} did not issue the one before it")
            }
        }
    }
}

impl fmt::Display for PemFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PemFault::Empty => {
                f.write_str("it holds neither a certificate nor a private key in the form of PEM")
            }
            PemFault::Blank => f.write_str("it is empty"),
            PemFault::Request => {
                f.write_str("it holds the request for a certificate (CSR), and no certificate")
            }
            PemFault::Binary => f.write_str("it is binary (DER or PKCS #12), and not PEM"),
            PemFault::ByteOrderMark => f.write_str("it begins with a byte order mark"),
            PemFault::Cut => f.write_str("its last section has no end"),
            PemFault::HasKeyOnly => f.write_str("it holds a private key and no certificate"),
            PemFault::HasCertificateOnly => {
                f.write_str("it holds a certificate and no private key")
            }
            PemFault::Encrypted => f.write_str("the private key is encrypted with a passphrase"),
            PemFault::Malformed => f.write_str("a PEM section in it is malformed"),
            PemFault::MalformedCertificate(position) => {
                write!(f, "certificate {position} in it is malformed")
            }
            PemFault::UnsupportedKey => {
                f.write_str("the private key is malformed or of a kind that is not supported")
            }
        }
    }
}

#[cfg(test)]
mod tests;
