//! Recognises the handshake of an upgrade request and computes the value that accepts it (RFC 6455
//! section 4.2).

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest, Sha1};

/// The request fields that decide which handshake an upgrade is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keys<'a> {
    /// `Sec-WebSocket-Key`
    pub key: Field<'a>,
    /// `Sec-WebSocket-Version`
    pub version: Field<'a>,
    /// `Sec-WebSocket-Protocol`
    pub protocol: Field<'a>,
}

/// How often a field occurs. Its value counts only if it occurs once.
#[derive(Clone, Copy, Debug, Default)]
pub enum Field<'a> {
    /// The head does not have the field.
    #[default]
    Missing,
    /// The head has the field once.
    Once(&'a [u8]),
    /// The head has the field more than once.
    Again,
}

impl<'a> Field<'a> {
    /// Adds one occurrence.
    pub fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Field::Missing => Field::Once(value),
            Field::Once(_) | Field::Again => Field::Again,
        };
    }
}

/// A handshake that can be answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake<'a> {
    /// simple-obfs in its http mode. It sends no version, and the bytes after the head are payload.
    Obfs {
        /// 16 bytes in base64, in the standard or the URL-safe alphabet.
        key: &'a str,
    },
    /// WebSocket (RFC 6455).
    WebSocket {
        /// 16 bytes in base64.
        key: &'a str,
        /// `Sec-WebSocket-Protocol`, if its value is payload (v2ray's early data) and not a list of
        /// protocols.
        early_data: Option<&'a str>,
    },
}

impl<'a> Handshake<'a> {
    /// Recognises the handshake of an upgrade request; `has_body` tells whether the request has a
    /// body. Returns `None` if no client of these protocols would send it.
    pub fn of(keys: &Keys<'a>, has_body: bool) -> Option<Handshake<'a>> {
        let Field::Once(key) = keys.key else { return None };
        let key = std::str::from_utf8(key).ok()?;
        match (keys.version, keys.protocol) {
            (Field::Missing, Field::Missing) if is_key(key, &[STANDARD, URL_SAFE]) => {
                Some(Handshake::Obfs { key })
            }
            (Field::Once(b"13"), protocol) if !has_body && is_key(key, &[STANDARD]) => {
                let early_data = match protocol {
                    Field::Once(protocol) => {
                        let text = std::str::from_utf8(protocol).ok();
                        text.filter(|text| early_data(text).is_some())
                    }
                    Field::Missing | Field::Again => None,
                };
                Some(Handshake::WebSocket { key, early_data })
            }
            _ => None,
        }
    }
}

/// Returns true for 16 bytes in base64, as a conforming client sends them.
fn is_key(key: &str, engines: &[GeneralPurpose]) -> bool {
    key.len() == 24
        && engines.iter().any(|engine| engine.decode(key).is_ok_and(|key| key.len() == 16))
}

/// The shortest start of a Shadowsocks stream: a salt of 16 bytes, a length of 2 bytes and its
/// authentication tag of 16 bytes. The first packet of a client has at least this length.
const MIN_EARLY_DATA: usize = 34;

/// Decodes the payload in a `Sec-WebSocket-Protocol`. It is base64 in the URL-safe alphabet or,
/// from older clients, in the alphabet of RFC 4648 section 4, mostly without padding. Returns
/// `None` if the value is not early data. The names of real protocols (`chat`, `mqtt`) are valid
/// base64, too, but decode to fewer bytes than the start of a Shadowsocks stream.
pub fn early_data(protocol: &str) -> Option<Vec<u8>> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const ENGINES: [GeneralPurpose; 2] = [
        GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG),
        GeneralPurpose::new(&alphabet::STANDARD, CONFIG),
    ];
    let data = ENGINES.iter().find_map(|engine| engine.decode(protocol).ok());
    data.filter(|data| data.len() >= MIN_EARLY_DATA)
}

/// The value of `Sec-WebSocket-Accept` for a key.
pub fn accept_value(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    /// The example of RFC 6455 section 1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn keys<'a>(key: &'a str, version: &'a str, protocol: &'a str) -> Keys<'a> {
        let field = |value: &'a str| match value {
            "" => Field::Missing,
            value => Field::Once(value.as_bytes()),
        };
        Keys { key: field(key), version: field(version), protocol: field(protocol) }
    }

    fn websocket<'a>(early_data: Option<&'a str>) -> Option<Handshake<'a>> {
        Some(Handshake::WebSocket { key: KEY, early_data })
    }

    #[test]
    fn the_key_of_the_rfc_has_the_value_of_the_rfc() {
        assert_eq!(accept_value(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn early_data_may_come_in_either_alphabet() {
        let payload = [0xfb; 40];
        let text = STANDARD.encode(payload);
        assert!(text.contains('+'));
        assert_eq!(early_data(&text).as_deref(), Some(&payload[..]));
        assert_eq!(early_data(text.trim_end_matches('=')).as_deref(), Some(&payload[..]));
        assert_eq!(early_data(&URL_SAFE_NO_PAD.encode(payload)).as_deref(), Some(&payload[..]));
    }

    #[test]
    fn the_version_tells_websocket_from_obfs() {
        let of = |keys: &Keys<'static>| Handshake::of(keys, false);
        assert_eq!(of(&keys(KEY, "13", "")), websocket(None));
        assert_eq!(of(&keys(KEY, "", "")), Some(Handshake::Obfs { key: KEY }));
        let url = "__79-ywqLyotLi8wMTIzNA==";
        assert_eq!(of(&keys(url, "", "")), Some(Handshake::Obfs { key: url }));
        assert_eq!(Handshake::of(&keys(KEY, "", ""), true), Some(Handshake::Obfs { key: KEY }));
    }

    #[test]
    fn what_no_client_sends_is_no_handshake() {
        let none = |keys: &Keys<'_>| assert_eq!(Handshake::of(keys, false), None, "{keys:?}");
        none(&keys("", "13", ""));
        none(&keys("", "", ""));
        none(&keys(KEY, "8", ""));
        none(&keys(KEY, "13, 8", ""));
        none(&keys("dGhlIHNhbXBsZSBub25jZQ", "13", ""));
        none(&keys("dGhlIHNhbXBsZSBub25jZT==", "13", ""));
        none(&keys("dGhlIHNhbXBsZSBub25jZSE=", "13", ""));
        none(&keys("not base64 of anything!!", "", ""));
        none(&keys("__79-ywqLyotLi8wMTIzNA==", "13", ""));
        none(&keys(KEY, "", "aGVsbG8"));
        none(&Keys { key: Field::Again, ..keys("", "13", "") });
        none(&Keys { version: Field::Again, ..keys(KEY, "", "") });
        assert_eq!(Handshake::of(&keys(KEY, "13", ""), true), None, "a body");
    }

    #[test]
    fn early_data_is_told_from_a_list_of_protocols() {
        let of = |protocol: &'static str| Handshake::of(&keys(KEY, "13", protocol), false);
        let payload = b"\xff\xe8ello ello ello ello ello ello el";
        let encoded = "_-hlbGxvIGVsbG8gZWxsbyBlbGxvIGVsbG8gZWxsbyBlbA";
        assert_eq!(payload.len(), MIN_EARLY_DATA);
        assert_eq!(early_data(encoded).as_deref(), Some(&payload[..]));
        assert_eq!(early_data(&format!("{encoded}==")).as_deref(), Some(&payload[..]));
        assert_eq!(of(encoded), websocket(Some(encoded)));
        for name in ["chat", "mqtt", "graphql-ws", "aGk=", "", "chat, superchat", "ocpp1.6"] {
            assert_eq!(of(name), websocket(None), "{name}");
        }
        let again = Keys { protocol: Field::Again, ..keys(KEY, "13", "") };
        assert_eq!(Handshake::of(&again, false), websocket(None));
    }

    proptest! {
        #[test]
        fn every_payload_that_is_long_enough_is_early_data(
            payload in proptest::collection::vec(any::<u8>(), 0..80), padded in any::<bool>(),
        ) {
            let engine = if padded { URL_SAFE } else { URL_SAFE_NO_PAD };
            let encoded = engine.encode(&payload);
            let expected = (payload.len() >= MIN_EARLY_DATA).then_some(payload);
            prop_assert_eq!(early_data(&encoded), expected);
        }

        #[test]
        fn a_protocol_in_any_bytes_is_judged(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let keys = Keys { protocol: Field::Once(&bytes), ..keys(KEY, "13", "") };
            let text = std::str::from_utf8(&bytes).ok().filter(|text| early_data(text).is_some());
            prop_assert_eq!(Handshake::of(&keys, false), websocket(text));
        }
    }
}
