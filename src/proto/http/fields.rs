//! The fields of a head that was parsed already: one after the other, which of them are hop by hop,
//! and how their names are written in HTTP/1.1.

use memchr::memchr;

/// The fields of a valid head in their order, as names and values. Values have no white space
/// around them.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields behind the first line of a head that was parsed.
    pub fn of(head: &'a [u8]) -> Fields<'a> {
        let end = memchr(b'\n', head).map_or(head.len(), |position| position + 1);
        Fields { rest: &head[end..] }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let end = memchr(b'\n', self.rest)?;
        let (line, rest) = self.rest.split_at(end);
        // The empty line has no colon.
        let colon = memchr(b':', line)?;
        self.rest = &rest[1..];
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    }
}

/// Names that are hop by hop in every message (RFC 9110 section 7.6.1). They are for the receiver
/// of the message alone and are not passed on. `Transfer-Encoding` describes the framing, which
/// each hop writes anew. `TE` goes as well, because trailers are dropped.
const HOP_BY_HOP: [&str; 7] = [
    "te",
    "trailer",
    "upgrade",
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
];

/// Names that a `Connection` field cannot make hop by hop, because the receiver relies on them: for
/// the meaning of the message, for who sent it, or for what caches may do with it. A client that
/// names them tries to remove what a proxy in front of this one has set. RFC 9110 section 7.6.1
/// forbids senders to name such fields.
const END_TO_END: [&str; 20] = [
    "age",
    "via",
    "date",
    "etag",
    "host",
    "vary",
    "cookie",
    "expect",
    "origin",
    "expires",
    "location",
    "forwarded",
    "x-real-ip",
    "set-cookie",
    "max-forwards",
    "x-request-id",
    "authorization",
    "cache-control",
    "www-authenticate",
    "strict-transport-security",
];

/// The same for every name with one of these prefixes.
const END_TO_END_PREFIXES: [&str; 3] = ["sec-", "content-", "x-forwarded-"];

/// The largest number of names that `Connection` can make hop by hop in addition to
/// [`HOP_BY_HOP`]. Real messages have one or two.
const MAX_LISTED: usize = 16;

/// The names that are hop by hop in one message.
#[derive(Clone, Debug)]
pub struct Hop<'a> {
    /// Names from the `Connection` fields, as sent.
    listed: [&'a [u8]; MAX_LISTED],
    count: usize,
}

impl<'a> Hop<'a> {
    /// Reads the `Connection` fields of a head. Returns `None` if they name too many fields; such a
    /// message is refused, because it only costs time.
    pub fn of(head: &'a [u8]) -> Option<Hop<'a>> {
        let mut hop = Hop { listed: [b""; MAX_LISTED], count: 0 };
        for (_, value) in Fields::of(head).filter(|(name, _)| is(name, "connection")) {
            for name in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                let names_field = !name.is_empty() && !is(name, "close");
                if names_field && !is_hop_by_hop(name) && !is_end_to_end(name) {
                    *hop.listed.get_mut(hop.count)? = name;
                    hop.count += 1;
                }
            }
        }
        Some(hop)
    }

    /// Returns true for a field that is not passed on.
    pub fn contains(&self, name: &[u8]) -> bool {
        is_hop_by_hop(name)
            || self.listed[..self.count].iter().any(|listed| listed.eq_ignore_ascii_case(name))
    }
}

/// Compares a name with one in lower case.
pub(super) fn is(name: &[u8], lower: &str) -> bool {
    name.eq_ignore_ascii_case(lower.as_bytes())
}

pub(super) fn has_prefix(name: &[u8], lower: &str) -> bool {
    name.get(..lower.len()).is_some_and(|start| is(start, lower))
}

/// Returns true for a name that is hop by hop in every message.
pub(super) fn is_hop_by_hop(name: &[u8]) -> bool {
    HOP_BY_HOP.iter().any(|lower| is(name, lower))
}

fn is_end_to_end(name: &[u8]) -> bool {
    END_TO_END.iter().any(|lower| is(name, lower))
        || END_TO_END_PREFIXES.iter().any(|prefix| has_prefix(name, prefix))
}

/// Names whose usual form is not Title-Case.
const USUAL: [&str; 21] = [
    "Accept-CH",
    "Content-MD5",
    "DNT",
    "DPR",
    "ECT",
    "ETag",
    "Expect-CT",
    "HTTP2-Settings",
    "NEL",
    "RTT",
    "Sec-GPC",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
    "SourceMap",
    "TE",
    "WWW-Authenticate",
    "X-UA-Compatible",
    "X-XSS-Protection",
];

/// The lengths of the names in [`USUAL`], as bits: most names have another one.
const USUAL_LENGTHS: u32 = {
    let mut lengths = 0;
    let mut index = 0;
    while index < USUAL.len() {
        lengths |= 1 << USUAL[index].len();
        index += 1;
    }
    lengths
};

/// Appends a name as HTTP/1.1 messages usually spell it: `X-Forwarded-For`, `ETag`. Letters that
/// are upper case already stay so.
pub fn write_title_case(name: &[u8], out: &mut Vec<u8>) {
    if name.len() < 32 && USUAL_LENGTHS & 1 << name.len() != 0 {
        let usual = USUAL.iter().find(|usual| name.eq_ignore_ascii_case(usual.as_bytes()));
        if let Some(usual) = usual {
            return out.extend_from_slice(usual.as_bytes());
        }
    }
    let start = out.len();
    out.extend_from_slice(name);
    let mut begins_word = true;
    for byte in &mut out[start..] {
        if begins_word {
            byte.make_ascii_uppercase();
        }
        begins_word = *byte == b'-';
    }
}

#[cfg(test)]
mod tests;
