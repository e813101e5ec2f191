//! Reads files with secrets and certificates: certificates with their keys, authorities, keys of
//! tickets, the token of the admin endpoint.
//!
//! The check of a configuration reads them, and the control plane reads them again when they
//! change. Faults are values, because the first shows them at a key and the second logs them.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::input::{self, Accept, ReadError};
use super::{HostName, Token};
use crate::proto::tls::{Authorities, Identity, IdentityError, KeysFault, PemFault, TicketKeys};

/// The most bytes of one file. A chain with its key has some kilobytes, all public authorities
/// together have some hundred.
const LARGEST: usize = 1 << 20;

/// Why a file, or a pair of files, cannot be used.
#[derive(Debug)]
pub struct FileFault {
    /// The file.
    pub path: PathBuf,
    /// Whether it is the file of a key, where there are two files.
    pub is_key: bool,
    /// What is wrong, to be put behind the name of the file.
    pub what: String,
    /// How to mend it.
    pub advice: &'static str,
    /// Why it cannot be read.
    pub(super) cause: Option<ReadError>,
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the file {} {}", self.path.display(), self.what)
    }
}

impl Error for FileFault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let cause = self.cause.as_ref()?;
        Some(cause)
    }
}

impl FileFault {
    fn new(path: &Path, what: impl Into<String>, advice: &'static str) -> FileFault {
        FileFault { path: path.to_owned(), is_key: false, what: what.into(), advice, cause: None }
    }

    fn of_key(self) -> FileFault {
        FileFault { is_key: true, ..self }
    }

    fn pem(path: &Path, fault: &PemFault) -> FileFault {
        let advice = match fault {
            PemFault::Empty | PemFault::Malformed => {
                "it must be a PEM file: lines between -----BEGIN … and -----END …"
            }
            PemFault::Blank => "look at the program that writes it",
            PemFault::Request => {
                "an authority makes a certificate of the request: name that certificate"
            }
            PemFault::Binary => {
                "convert it to PEM: openssl x509 -inform der -in OLD -out NEW, for a key openssl \
                 pkey, for PKCS #12 openssl pkcs12 -nodes"
            }
            PemFault::ByteOrderMark => "save it as UTF-8 without a byte order mark",
            PemFault::Cut => "the file may be incomplete: copy it again",
            PemFault::HasKeyOnly => "`certificate` and `key` may be swapped",
            PemFault::HasCertificateOnly => "`certificate` and `key` may be swapped",
            PemFault::Encrypted => {
                "remove the passphrase: openssl pkey -in OLD -out NEW; protect NEW by its mode"
            }
            PemFault::MalformedCertificate(_) => "`openssl x509 -in FILE -text` shows what it is",
            PemFault::UnsupportedKey => {
                "use an ECDSA key on P-256 or P-384, an RSA key of 2048 bits or more, or Ed25519"
            }
        };
        FileFault::new(path, format!("cannot be used: {fault}"), advice)
    }
}

/// Reads a certificate and its key.
///
/// # Errors
/// A file cannot be read, holds something else, or the two do not belong together. There are two
/// faults if neither file can be read.
pub fn read_identity(certificate: &Path, key: &Path) -> Result<Identity, Vec<FileFault>> {
    match (read(certificate), read(key).map_err(FileFault::of_key)) {
        (Ok(chain), Ok(key_pem)) => Identity::parse(&chain, &key_pem)
            .map_err(|error| vec![identity_fault(certificate, key, error)]),
        (chain, key_pem) => Err(chain.err().into_iter().chain(key_pem.err()).collect()),
    }
}

fn identity_fault(certificate: &Path, key: &Path, error: IdentityError) -> FileFault {
    match error {
        IdentityError::Certificate(fault) => FileFault::pem(certificate, &fault),
        IdentityError::Key(fault) => FileFault::pem(key, &fault).of_key(),
        IdentityError::Mismatch => FileFault::new(
            key,
            "has a key that does not belong to the certificate",
            "take the key that the certificate was issued for; in the file of the certificate its \
             own one comes first, before those of authorities",
        )
        .of_key(),
        IdentityError::UnsupportedCertificate => FileFault::new(
            certificate,
            "has a certificate with a kind of key that is not supported",
            "use an ECDSA key on P-256 or P-384, an RSA key of 2048 bits or more, or Ed25519",
        ),
        IdentityError::SmallRsa(bits) => FileFault::new(
            certificate,
            format!("has an RSA key of {bits} bits"),
            "clients refuse it, and so does ringgate: use ECDSA, or RSA with 2048 bits or more",
        ),
        IdentityError::Order { position } => FileFault::new(
            certificate,
            format!(
                "has certificates in the wrong order: number {position} did not issue the one \
                 before it"
            ),
            "the certificate of the key comes first, then the one that issued it, and so on",
        ),
    }
}

/// The names that a certificate is not for, as a certificate would have them. Clients that ask for
/// one of them refuse it.
pub fn uncovered<'n>(
    names: impl IntoIterator<Item = &'n HostName>,
    identity: &Identity,
) -> impl Iterator<Item = String> {
    names.into_iter().filter_map(|name| {
        let (text, is_covered) = match name {
            HostName::Exact(exact) => {
                (exact.clone(), identity.covers(exact.trim_matches(['[', ']'])))
            }
            HostName::Suffix(suffix) => {
                let wildcard = format!("*{suffix}");
                let is_covered = identity.names().contains(&wildcard);
                (wildcard, is_covered)
            }
            // No certificate has such a name; each client sees whether its own is in it.
            HostName::Prefix(_) => return None,
        };
        (!is_covered).then_some(text)
    })
}

/// Reads certificates of authorities.
///
/// # Errors
/// The file cannot be read or holds something else.
pub fn read_authorities(path: &Path) -> Result<Authorities, FileFault> {
    Authorities::parse(&read(path)?).map_err(|fault| match fault {
        PemFault::HasKeyOnly => FileFault {
            advice: "name the file with the certificates of the authorities",
            ..FileFault::pem(path, &fault)
        },
        _ => FileFault::pem(path, &fault),
    })
}

/// Reads the keys of tickets.
///
/// # Errors
/// The file cannot be read or holds something else.
pub fn read_ticket_keys(path: &Path) -> Result<TicketKeys, FileFault> {
    let advice = "each line is the base64 of 32 random bytes: openssl rand -base64 32";
    let bytes = read(path)?;
    let keys =
        std::str::from_utf8(&bytes).map_err(|_| KeysFault::Line(1)).and_then(TicketKeys::parse);
    keys.map_err(|fault| match fault {
        KeysFault::Empty => FileFault::new(path, "has no key", advice),
        KeysFault::TooMany => {
            FileFault::new(path, "has more than 16 keys", "remove those that are older than a day")
        }
        KeysFault::Line(line) => {
            FileFault::new(path, format!("has something else than a key in line {line}"), advice)
        }
    })
}

/// Reads the token of the admin endpoint.
///
/// # Errors
/// The file cannot be read or holds something else.
pub(super) fn read_token(path: &Path) -> Result<Token, FileFault> {
    let bytes = read(path)?;
    let token = std::str::from_utf8(&bytes).ok().and_then(|text| Token::new(path.into(), text));
    token.ok_or_else(|| {
        let what = "holds no token of 16 to 1024 visible ASCII characters";
        FileFault::new(path, what, "make one: openssl rand -hex 32")
    })
}

fn read(path: &Path) -> Result<Vec<u8>, FileFault> {
    input::read(path, Accept::Files, LARGEST).map_err(|cause| {
        let kind = match &cause {
            ReadError::System(error) => error.kind(),
            _ => ErrorKind::Other,
        };
        let advice = match (&cause, kind) {
            (_, ErrorKind::NotFound) => "put the file there, or the one that a link leads to",
            (_, ErrorKind::IsADirectory) => "name a file in this directory",
            (ReadError::WrongType(_) | ReadError::PipeTimeout, _) => "name a regular file",
            (ReadError::TooLong(_), _) => "check the name of the file",
            (ReadError::System(_), _) => {
                "the user that runs ringgate must be allowed to read the file and to enter its \
                 directories"
            }
        };
        FileFault { cause: Some(cause), ..FileFault::new(path, "cannot be read", advice) }
    })
}

/// How to mend a file with a secret that every user can read.
pub const CLOSE_FILE: &str =
    "it holds a secret: chmod o-rwx, and let ringgate's user or group read it";

/// Returns true if every user can read the file.
pub fn is_open(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o004 != 0)
}

/// Something about an identity that clients do not accept, now or soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oddity {
    /// What is unusual, to be put behind the name of the certificate's file.
    pub what: String,
    /// How to mend it.
    pub advice: &'static str,
}

/// How long before its end a certificate is warned of.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// Returns what is odd about a certificate at this time.
pub fn oddities(identity: &Identity, now: SystemTime) -> Vec<Oddity> {
    let mut found = Vec::new();
    let mut add = |what, time, advice| {
        let what = format!("{what} {}", httpdate::fmt_http_date(time));
        found.push(Oddity { what, advice });
    };
    let (start, end) = (identity.not_before(), identity.not_after());
    if end < now {
        add("has expired on", end, "clients refuse it: renew the certificate");
    } else if start > now {
        let advice = "clients refuse it until then: check the clock of this machine";
        add("is not valid before", start, advice);
    } else if end < now + SOON {
        add("expires on", end, "renew the certificate");
    }
    found
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn a_certificate_is_odd_outside_of_its_time_and_near_its_end() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(2030, 1, 1), date_time_ymd(2030, 3, 1));
        let pem = params.self_signed(&key).unwrap().pem();
        let identity = Identity::parse(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let (start, end) = (identity.not_before(), identity.not_after());
        let second = Duration::from_secs(1);
        let found = |now| {
            let found = oddities(&identity, now);
            assert!(found.len() <= 1, "{found:?}");
            found.into_iter().next().map(|one| one.what)
        };
        let before = "is not valid before Tue, 01 Jan 2030 00:00:00 GMT";
        assert_eq!(found(start - second).as_deref(), Some(before));
        assert_eq!(found(start), None);
        assert_eq!(found(end - SOON), None);
        let soon = Some("expires on Fri, 01 Mar 2030 00:00:00 GMT");
        assert_eq!(found(end - SOON + second).as_deref(), soon);
        assert_eq!(found(end).as_deref(), soon);
        let expired = Some("has expired on Fri, 01 Mar 2030 00:00:00 GMT");
        assert_eq!(found(end + second).as_deref(), expired);
    }
}
