//! The fields of a record by name, for templates and for JSON. This is the only module that reads
//! the single values of a [`Record`]. The names are those in the configuration's documentation. A
//! new field must be added here, to the two built-in formats and to the documentation.

use std::time::Duration;

use super::record::Record;
use super::value::Value;

/// A field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Start,
    Listener,
    Protocol,
    Client,
    Method,
    Host,
    Path,
    Status,
    Route,
    Cluster,
    Endpoint,
    DurationMs,
    ConnectMs,
    BytesUp,
    BytesDown,
    Relay,
    End,
    Attempts,
    FailedEndpoints,
    Reason,
    TlsVersion,
    TlsCipher,
    Sni,
    Alpn,
    TlsResumed,
    HandshakeMs,
    TlsError,
}

/// Every field with its name, in the order of the documentation.
const FIELDS: [(&str, Field); 27] = [
    ("start", Field::Start),
    ("listener", Field::Listener),
    ("protocol", Field::Protocol),
    ("client", Field::Client),
    ("method", Field::Method),
    ("host", Field::Host),
    ("path", Field::Path),
    ("status", Field::Status),
    ("route", Field::Route),
    ("cluster", Field::Cluster),
    ("endpoint", Field::Endpoint),
    ("duration_ms", Field::DurationMs),
    ("connect_ms", Field::ConnectMs),
    ("bytes_up", Field::BytesUp),
    ("bytes_down", Field::BytesDown),
    ("relay", Field::Relay),
    ("end", Field::End),
    ("attempts", Field::Attempts),
    ("failed_endpoints", Field::FailedEndpoints),
    ("reason", Field::Reason),
    ("tls_version", Field::TlsVersion),
    ("tls_cipher", Field::TlsCipher),
    ("sni", Field::Sni),
    ("alpn", Field::Alpn),
    ("tls_resumed", Field::TlsResumed),
    ("handshake_ms", Field::HandshakeMs),
    ("tls_error", Field::TlsError),
];

/// The names of all fields.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FIELDS.iter().map(|(name, _)| *name)
}

impl Field {
    /// The field with this name.
    pub(super) fn named(name: &str) -> Option<Field> {
        FIELDS.iter().find(|(known, _)| *known == name).map(|(_, field)| *field)
    }

    /// Always inlined: for a constant field the compiler removes the whole match.
    #[inline(always)]
    pub(super) fn value<'a>(self, record: &Record<'a>) -> Value<'a> {
        match self {
            Field::Start => Value::Time(record.start),
            Field::Listener => Value::Text(record.listener),
            Field::Protocol => Value::Text(record.protocol),
            Field::Client => Value::Address(record.client),
            Field::Method => record.method.map_or(Value::Missing, Value::Text),
            Field::Host => record.host.map_or(Value::Missing, Value::Text),
            Field::Path => record.path.map_or(Value::Missing, Value::Text),
            Field::Status => match record.status {
                Some(status) => Value::Number(status.into()),
                None => Value::Missing,
            },
            Field::Route => record.route.map_or(Value::Missing, Value::Text),
            Field::Cluster => record.cluster.map_or(Value::Missing, Value::Text),
            Field::Endpoint => record.endpoint.map_or(Value::Missing, Value::Address),
            Field::DurationMs => Value::Number(millis(record.duration)),
            Field::ConnectMs => match record.connect {
                Some(connect) => Value::Number(millis(connect)),
                None => Value::Missing,
            },
            Field::BytesUp => Value::Number(record.bytes_up),
            Field::BytesDown => Value::Number(record.bytes_down),
            Field::Relay => Value::Word(record.relay.as_str()),
            Field::End => Value::Word(record.end.as_str()),
            Field::Attempts => match record.attempts {
                Some(attempts) => Value::Number(attempts.into()),
                None => Value::Missing,
            },
            Field::FailedEndpoints => Value::Addresses(record.failed_endpoints),
            Field::Reason => record.reason.map_or(Value::Missing, Value::Word),
            _ => self.value_of_tls(record),
        }
    }

    #[inline(always)]
    fn value_of_tls<'a>(self, record: &Record<'a>) -> Value<'a> {
        let Some(tls) = &record.tls else { return Value::Missing };
        match self {
            Field::TlsVersion => tls.version.map_or(Value::Missing, Value::Word),
            Field::TlsCipher => tls.cipher.map_or(Value::Missing, Value::Word),
            Field::Sni => tls.server_name.map_or(Value::Missing, Value::Text),
            Field::Alpn => tls.protocol.map_or(Value::Missing, Value::Text),
            Field::TlsResumed => tls.is_resumed.map_or(Value::Missing, Value::Bool),
            Field::HandshakeMs => match tls.handshake {
                Some(handshake) => Value::Number(millis(handshake)),
                None => Value::Missing,
            },
            Field::TlsError => tls.error.map_or(Value::Missing, Value::Word),
            _ => Value::Missing,
        }
    }
}

/// Whole milliseconds, without the 128-bit division of `as_millis`.
fn millis(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1000).saturating_add(duration.subsec_millis().into())
}
