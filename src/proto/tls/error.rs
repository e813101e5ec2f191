//! Why a session has failed, as one word for the record of the connection.

use rustls::InvalidMessage;

/// The reason why a session has failed. No byte is decrypted or encrypted after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The first bytes are no ClientHello, or one that exceeds a limit.
    Hello,
    /// The handshake has more bytes than [`super::MAX_HANDSHAKE`].
    HandshakeTooLong,
    /// A record is longer than TLS allows.
    RecordTooLong,
    /// A record cannot be decrypted: it is corrupted, or another one is missing before it.
    Decrypt,
    /// The client has no version, suite, group or protocol in common with the configuration.
    Incompatible,
    /// The configuration has no certificate for the server name.
    NoCertificate,
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
