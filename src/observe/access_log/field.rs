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
    UpstreamStatus,
    FirstByteMs,
    Reused,
    Retries,
    RelayReason,
    BodyBytes,
    Referer,
    UserAgent,
}

/// Every field with its name, in the order of the documentation.
const FIELDS: [(&str, Field); 35] = [
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
    ("upstream_status", Field::UpstreamStatus),
    ("first_byte_ms", Field::FirstByteMs),
    ("reused", Field::Reused),
    ("retries", Field::Retries),
    ("relay_reason", Field::RelayReason),
    ("body_bytes", Field::BodyBytes),
    ("referer", Field::Referer),
    ("user_agent", Field::UserAgent),
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
            Field::UpstreamStatus => number(record.upstream_status),
            Field::FirstByteMs => number(record.first_byte.map(millis)),
            Field::Reused => record.is_reused.map_or(Value::Missing, Value::Bool),
            Field::Retries => number(record.retries),
            Field::RelayReason => match record.copied {
                Some(why) => Value::Word(why.as_str()),
                None => Value::Missing,
            },
            Field::BodyBytes => Value::Number(record.body_bytes),
            Field::Referer => record.referer.map_or(Value::Missing, Value::Bytes),
            Field::UserAgent => record.user_agent.map_or(Value::Missing, Value::Bytes),
            _ => self.value_of_tls(record),
        }
    }

    /// Returns true for what requests tell about their clients.
    pub(super) fn is_of_visitor(self) -> bool {
        matches!(self, Field::Referer | Field::UserAgent)
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

/// A number that may be missing.
#[inline(always)]
fn number<'a>(value: Option<impl Into<u64>>) -> Value<'a> {
    value.map_or(Value::Missing, |value| Value::Number(value.into()))
}

/// Whole milliseconds, without the 128-bit division of `as_millis`.
fn millis(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1000).saturating_add(duration.subsec_millis().into())
}
