//! Heads that are passed on: a response to the client, a request to a backend.
//!
//! Fields keep their order. Those that are hop by hop are dropped, and the rules of the
//! configuration are applied. The framing is written anew, so that exactly one field says where the
//! message ends. Heads that come in were parsed before; nothing here allocates but the output.
//!
//! | file | what it writes |
//! | --- | --- |
//! | `response` | the head of a backend's response, as HTTP/1.1 or as fields for another version |
//! | `request` | the head of a client's request, for a backend |

mod request;
mod response;
#[cfg(test)]
mod tests;

pub use request::{Client, Request, write_request};
pub use response::{Response, pass_fields, write_response};

use super::fields::{is, is_hop_by_hop, write_title_case};

/// How a message that is passed on says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By no field: there is no body, or it ends when the connection closes.
    None,
    /// By `Content-Length`, or this is the length that the body would have in response to GET.
    Length(u64),
    /// By `Transfer-Encoding: chunked`.
    Chunked,
}

/// Takes the parts of a head in their order.
pub trait Sink {
    /// Takes the status and the reason phrase. It is called once, before any field.
    fn status(&mut self, status: u16, reason: &[u8]);

    /// Takes one field. The name is in any case: HTTP/2 needs it in lower case.
    fn field(&mut self, name: &[u8], value: &[u8]);
}

/// Appends a head of HTTP/1.1 to a buffer. It does not write the empty line.
pub struct Lines<'a>(pub &'a mut Vec<u8>);

impl Sink for Lines<'_> {
    fn status(&mut self, status: u16, reason: &[u8]) {
        self.0.extend_from_slice(b"HTTP/1.1 ");
        self.0.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        self.0.push(b' ');
        self.0.extend_from_slice(reason);
        self.0.extend_from_slice(b"\r\n");
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        write_title_case(name, self.0);
        self.0.extend_from_slice(b": ");
        self.0.extend_from_slice(value);
        self.0.extend_from_slice(b"\r\n");
    }
}

/// Changes of the fields that an operator has configured. Names are in any case. Rules about the
/// framing, `Host` and fields that are hop by hop have no effect.
pub struct Rules<'a, N, V> {
    /// Fields that replace all of the same name.
    pub set: &'a [(N, V)],
    /// Names of fields that are dropped.
    pub remove: &'a [N],
}

impl<N, V> Clone for Rules<'_, N, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N, V> Copy for Rules<'_, N, V> {}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> Rules<'_, N, V> {
    /// Returns true for a field that is set or dropped.
    fn replaces(&self, name: &[u8]) -> bool {
        let is_same = |other: &N| other.as_ref().eq_ignore_ascii_case(name);
        self.remove.iter().any(is_same) || self.set.iter().any(|(set, _)| is_same(set))
    }

    /// Returns true if one of several rules sets or drops this field.
    fn any_replaces(rules: &[Self], name: &[u8]) -> bool {
        rules.iter().any(|rules| rules.replaces(name))
    }

    /// Adds the fields that are set. If several rules are about one name, the first one counts.
    fn write_set(rules: &[Self], sink: &mut impl Sink) {
        for (index, own) in rules.iter().enumerate() {
            for (name, value) in own.set {
                let name = name.as_ref();
                let may_be_set = !is_written_by_us(name) && !is_hop_by_hop(name);
                if may_be_set && !Self::any_replaces(&rules[..index], name) {
                    sink.field(name, value.as_ref());
                }
            }
        }
    }
}

/// Returns true for a field that decides about framing or routing. Neither the peer nor a rule
/// writes it.
fn is_written_by_us(name: &[u8]) -> bool {
    is(name, "content-length") || is(name, "host")
}

/// Appends `Content-Length`.
fn write_length(length: u64, sink: &mut impl Sink) {
    sink.field(b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
}
