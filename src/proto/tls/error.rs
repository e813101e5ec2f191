//! Why a session has failed, as one word for the record of the connection.

use rustls::{CertificateError, InvalidMessage};

/// The reason why a session has failed. No byte is decrypted or encrypted after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The first bytes are no ClientHello, or one that exceeds a limit.
    Hello,
    /// The handshake has more bytes than [`super::MAX_HANDSHAKE`], or a message after it has too
    /// many records.
    HandshakeTooLong,
    /// A record is longer than TLS allows.
    RecordTooLong,
    /// A record cannot be decrypted: it is corrupted, or another one is missing before it.
    Decrypt,
    /// The peer has no version, suite, group or protocol in common with the configuration.
    Incompatible,
    /// The configuration has no certificate for the server name.
    NoCertificate,
    /// The name of the server is neither a DNS name nor an IP address.
    ServerName,
    /// The peer has shown no certificate.
    CertificateMissing,
    /// The certificate of the peer has expired, or is not valid yet.
    CertificateExpired,
    /// The certificate of the peer comes from none of the authorities.
    CertificateIssuer,
    /// The certificate of the peer is for other names.
    CertificateName,
    /// The certificate of the peer is not acceptable for another reason.
    CertificateInvalid,
    /// A message is malformed.
    Malformed,
    /// A message is not allowed at this point, or too many messages carry no data.
    Misbehaved,
    /// The peer has sent an alert, above all because it does not accept the certificate.
    Alert,
    /// The keys of the session have protected as many bytes as they may.
    Exhausted,
    /// The session was closed, so that nothing can be encrypted.
    Closed,
    /// rustls reports an error of another kind.
    Other,
}

impl Error {
    /// The word for this reason.
    pub fn reason(self) -> &'static str {
        match self {
            Error::Hello => "hello",
            Error::HandshakeTooLong => "handshake_too_long",
            Error::RecordTooLong => "record_too_long",
            Error::Decrypt => "decrypt",
            Error::Incompatible => "incompatible",
            Error::NoCertificate => "no_certificate",
            Error::ServerName => "server_name",
            Error::CertificateMissing => "certificate_missing",
            Error::CertificateExpired => "certificate_expired",
            Error::CertificateIssuer => "certificate_issuer",
            Error::CertificateName => "certificate_name",
            Error::CertificateInvalid => "certificate_invalid",
            Error::Malformed => "malformed",
            Error::Misbehaved => "misbehaved",
            Error::Alert => "alert",
            Error::Exhausted => "exhausted",
            Error::Closed => "closed",
            Error::Other => "other",
        }
    }
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Error {
        use rustls::Error as Rustls;
        match error {
            Rustls::DecryptError => Error::Decrypt,
            Rustls::PeerIncompatible(_) | Rustls::NoApplicationProtocol => Error::Incompatible,
            // rustls reports a resolver without a certificate by this text alone.
            Rustls::General(text) if text.contains("no server certificate") => Error::NoCertificate,
            Rustls::NoCertificatesPresented => Error::CertificateMissing,
            Rustls::InvalidCertificate(error) => certificate(&error),
            Rustls::PeerSentOversizedRecord
            | Rustls::InvalidMessage(InvalidMessage::MessageTooLarge) => Error::RecordTooLong,
            Rustls::InvalidMessage(_) => Error::Malformed,
            Rustls::PeerMisbehaved(_)
            | Rustls::InappropriateMessage { .. }
            | Rustls::InappropriateHandshakeMessage { .. } => Error::Misbehaved,
            Rustls::AlertReceived(_) => Error::Alert,
            Rustls::EncryptError => Error::Exhausted,
            _ => Error::Other,
        }
    }
}

fn certificate(error: &CertificateError) -> Error {
    use CertificateError as Rustls;
    match error {
        Rustls::Expired
        | Rustls::ExpiredContext { .. }
        | Rustls::NotValidYet
        | Rustls::NotValidYetContext { .. } => Error::CertificateExpired,
        // An authority may have the name of the issuer, but another key.
        Rustls::UnknownIssuer | Rustls::BadSignature => Error::CertificateIssuer,
        Rustls::NotValidForName | Rustls::NotValidForNameContext { .. } => Error::CertificateName,
        _ => Error::CertificateInvalid,
    }
}
