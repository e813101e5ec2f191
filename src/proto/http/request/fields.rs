//! The fields of a request that decide about framing, routing and upgrades (RFC 9112 sections 6 and
//! 9). A field that could be read in two ways is refused.

use super::{Reject, Version, bad_request};
use crate::proto::http::UpgradeList;
use crate::proto::websocket::Keys;

/// The fields that matter for framing and routing.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) host: Option<&'a [u8]>,
    pub(super) content_length: Option<u64>,
    pub(super) is_chunked: bool,
    pub(super) upgrade: UpgradeList,
    /// Whether `Connection` has the token `upgrade`.
    pub(super) has_connection_upgrade: bool,
    pub(super) websocket: Keys<'a>,
    /// Whether `Connection` has the token `close`.
    pub(super) has_close: bool,
    /// Whether `Connection` has the token `keep-alive`.
    pub(super) has_keep_alive: bool,
    /// Whether `Expect` names 100-continue.
    expects_continue: bool,
    /// Whether `Expect` names anything else.
    expects_other: bool,
    /// The smallest number in `Max-Forwards` lines.
    pub(super) max_forwards: Option<u64>,
}

impl<'a> Fields<'a> {
    pub(super) fn collect(headers: &[httparse::Header<'a>]) -> Result<Self, Reject> {
        let mut fields = Fields::default();
        for header in headers {
            fields.add(header.name, header.value)?;
        }
        if fields.is_chunked && fields.content_length.is_some() {
            return Err(bad_request("two_framings", "both Transfer-Encoding and Content-Length"));
        }
        Ok(fields)
    }

    fn add(&mut self, name: &str, value: &'a [u8]) -> Result<(), Reject> {
        // Comparing lengths first is cheap, and most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") && self.host.replace(value).is_some() => {
                return Err(bad_request("two_hosts", "more than one Host"));
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                let length = parse_digits(value)
                    .ok_or(bad_request("bad_length", "Content-Length is not a number"))?;
                if self.content_length.replace(length).is_some() {
                    return Err(bad_request("two_lengths", "more than one Content-Length"));
                }
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(bad_request("bad_coding", "unknown Transfer-Encoding"));
                }
                self.is_chunked = true;
            }
            7 if name.eq_ignore_ascii_case("upgrade") => self.upgrade.add(value),
            10 if name.eq_ignore_ascii_case("connection") => {
                for token in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    self.has_connection_upgrade |= token.eq_ignore_ascii_case(b"upgrade");
                    self.has_close |= token.eq_ignore_ascii_case(b"close");
                    self.has_keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            17 if name.eq_ignore_ascii_case("sec-websocket-key") => self.websocket.key.add(value),
            21 if name.eq_ignore_ascii_case("sec-websocket-version") => {
                self.websocket.version.add(value);
            }
            22 if name.eq_ignore_ascii_case("sec-websocket-protocol") => {
                self.websocket.protocol.add(value);
            }
            6 if name.eq_ignore_ascii_case("expect") => self.add_expectations(value),
            12 if name.eq_ignore_ascii_case("max-forwards") => {
                let hops = [self.max_forwards, parse_digits(value)];
                self.max_forwards = hops.into_iter().flatten().min();
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds a list of expectations.
    fn add_expectations(&mut self, value: &[u8]) {
        let words = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        for word in words.filter(|word| !word.is_empty()) {
            let is_continue = word.eq_ignore_ascii_case(b"100-continue");
            self.expects_continue |= is_continue;
            self.expects_other |= !is_continue;
        }
    }

    /// Returns true if the client waits for a 100. There is no other expectation, and in HTTP/1.0
    /// there is none at all (RFC 9110 section 10.1.1).
    pub(super) fn expects_continue(&self, version: Version) -> Result<bool, Reject> {
        if version == Version::Http10 {
            return Ok(false);
        }
        if self.expects_other {
            let text = "no expectation but 100-continue can be met";
            return Err(Reject { status: 417, reason: "bad_expectation", text });
        }
        Ok(self.expects_continue)
    }
}

/// Parses a number that has digits only (RFC 9110 section 8.6). The limit of 18 digits guarantees
/// that it fits in a u64.
pub(in crate::proto::http) fn parse_digits(value: &[u8]) -> Option<u64> {
    let digits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits)?;
    text.parse().ok()
}
