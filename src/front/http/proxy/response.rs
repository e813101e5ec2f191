//! What the client gets of a response: its head, its framing, and what it says of the connection.

use std::rc::Rc;

use super::request::{Proxied, rules};
use crate::config::FieldRules;
use crate::proto::codec::Stack;
use crate::proto::http::forward::{self, Framing, Sink, pass_fields, write_response};
use crate::proto::http::response_head::Persistence;
use crate::proto::http::{Body, Dechunk, Enchunk, Hop, Rechunk, RequestKind, Response, Version};
use crate::relay::{Flow, Pool};

/// How the body of a response is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// There is none.
    Nothing,
    /// As many bytes as were announced, unchanged.
    Length(u64),
    /// Chunks in their canonical form.
    Rechunk,
    /// Chunks become a body that ends with the connection, for HTTP/1.0.
    Dechunk,
    /// What ends with the upstream's connection becomes chunks.
    Enchunk,
    /// Both end with their connections.
    UntilClose,
}

/// The form in which a client gets a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) transfer: Transfer,
    framing: Framing,
    pub(super) persistence: Persistence,
}

impl Form {
    /// Chooses the form. `may_persist` is false if the connection is closed in any case.
    pub(super) fn of(response: &Response, request: &Proxied, may_persist: bool) -> Form {
        let speaks_chunks = request.asked.version() == Version::Http11;
        let (transfer, framing) = match response.body {
            Body::Length(0) => (Transfer::Nothing, no_body(response, request.kind)),
            Body::Length(length) => (Transfer::Length(length), Framing::Length(length)),
            Body::Chunked(_) if speaks_chunks => (Transfer::Rechunk, Framing::Chunked),
            Body::Chunked(_) => (Transfer::Dechunk, Framing::None),
            Body::UntilClose if speaks_chunks => (Transfer::Enchunk, Framing::Chunked),
            Body::UntilClose => (Transfer::UntilClose, Framing::None),
        };
        let ends_by_close = matches!(transfer, Transfer::Dechunk | Transfer::UntilClose);
        let persistence = match request.asked.version() {
            _ if ends_by_close || !may_persist => Persistence::Close,
            Version::Http11 => Persistence::Persistent,
            Version::Http10 => Persistence::KeepAlive,
        };
        Form { transfer, framing, persistence }
    }

    /// Makes the flow of the body, without its first bytes.
    pub(super) fn flow(self, pool: &Rc<Pool>) -> Flow {
        let mut flow = match self.transfer {
            Transfer::Rechunk => Flow::coded(pool, Stack::new(Rechunk::default())),
            Transfer::Dechunk => Flow::coded(pool, Stack::new(Dechunk::default())),
            Transfer::Enchunk => Flow::coded(pool, Stack::new(Enchunk::default())),
            Transfer::Nothing | Transfer::Length(_) | Transfer::UntilClose => {
                Flow::new(pool, Vec::new())
            }
        };
        flow.keep_open();
        flow
    }

    /// Returns true if nothing but the end of its source ends the body.
    pub(super) fn ends_with_source(self) -> bool {
        matches!(self.transfer, Transfer::Enchunk | Transfer::UntilClose)
    }

    /// Returns true if the body has been passed on to its end by this flow, after its source has
    /// ended or the allowed bytes were read.
    pub(super) fn is_complete(self, down: &Flow) -> bool {
        match self.transfer {
            Transfer::Nothing => true,
            Transfer::Length(_) => down.allowed() == 0,
            Transfer::Rechunk | Transfer::Dechunk | Transfer::Enchunk => down.is_complete(),
            Transfer::UntilClose => down.ended(),
        }
    }
}

/// The framing of a response without a body. The length of what GET would get is announced in
/// response to HEAD and in a 304. A 204 never has one (RFC 9110 section 8.6).
fn no_body(response: &Response, kind: RequestKind) -> Framing {
    match response.status {
        100..=199 | 204 => Framing::None,
        304 => response.length.map_or(Framing::None, Framing::Length),
        _ if kind == RequestKind::Head => response.length.map_or(Framing::None, Framing::Length),
        _ => Framing::Length(0),
    }
}

/// Appends the head that the client gets. `None` if the upstream's head names too many fields in
/// `Connection`.
pub(super) fn write_head(
    head: &[u8],
    form: Form,
    request: &Proxied,
    date: &[u8],
    out: &mut Vec<u8>,
) -> Option<()> {
    let hop = Hop::of(head)?;
    // They contain those of the listener.
    let fields = &request.route().response_fields;
    let response = forward::Response {
        hop: &hop,
        rules: &[rules(&fields.set, &fields.remove)],
        framing: form.framing,
        date: Some(date),
    };
    write_response(head, &response, form.persistence, false, out);
    Some(())
}

/// Gives the fields of a response to HTTP/2, which has a framing of its own. `None` as in
/// [`write_head`].
pub(in crate::front) fn response_fields(
    head: &[u8],
    response: &Response,
    request: &Proxied,
    date: &[u8],
    sink: &mut impl Sink,
) -> Option<()> {
    let hop = Hop::of(head)?;
    let framing = match response.body {
        Body::Length(0) => no_body(response, request.kind),
        Body::Length(length) => Framing::Length(length),
        Body::Chunked(_) | Body::UntilClose => Framing::None,
    };
    let fields = &request.route().response_fields;
    let response = forward::Response {
        hop: &hop,
        rules: &[rules(&fields.set, &fields.remove)],
        framing,
        date: Some(date),
    };
    pass_fields(head, &response, sink);
    Some(())
}

/// Gives the fields of an interim head to a sink. No rules apply to them. `None` as in
/// [`write_head`].
pub(in crate::front) fn pass_interim(head: &[u8], sink: &mut impl Sink) -> Option<()> {
    let hop = Hop::of(head)?;
    let none = FieldRules::default();
    let response = forward::Response {
        hop: &hop,
        rules: &[rules(&none.set, &none.remove)],
        framing: Framing::None,
        date: None,
    };
    pass_fields(head, &response, sink);
    Some(())
}
