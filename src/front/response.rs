//! A response as an exchange returns it, and its bytes. All responses that ringgate makes itself
//! are written here, apart from the 101 of a tunnel that is terminated here.

use std::ops::Range;
use std::sync::Arc;

use crate::config::{ErrorPages, FieldRules};
use crate::files;
use crate::observe::outcome::End;
use crate::proto::http::response_head::{self, Content, Persistence};
use crate::proto::http::{Reject, Version};
use crate::route::Location;

/// Bodies up to this size are copied behind their head; larger ones are sent without a copy.
const SMALL_BODY: usize = 4 * 1024;

/// One response. It borrows from the configuration and from the request, so that making one
/// allocates nothing.
pub(super) struct Response<'a> {
    pub(super) status: u16,
    pub(super) fields: Fields<'a>,
    pub(super) body: Body<'a>,
    /// Why the request was refused, in one word, for its record.
    pub(super) reason: Option<&'static str>,
}

/// The fields of a response, apart from those about its length and its connection.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) content_type: Option<&'a str>,
    pub(super) location: Option<Location<'a>>,
    pub(super) allow: Option<Allow>,
    pub(super) file: Option<FileFields<'a>>,
}

/// The fields of a response with a file.
pub(super) struct FileFields<'a> {
    pub(super) found: &'a files::Response,
    pub(super) cache_control: Option<&'a str>,
    /// The path of a directory without the slash at its end, and the query behind it.
    pub(super) moved: Option<(&'a str, Option<&'a str>)>,
}

/// The value of `Allow`.
#[derive(Clone, Copy)]
pub(super) enum Allow {
    /// The methods of the site.
    Site,
    /// No method: the target does not accept any (RFC 9110 section 10.2.1).
    Nothing,
}

/// The content of a response.
pub(super) enum Body<'a> {
    /// None, and no length either: 204 and 304 (RFC 9110 section 15).
    None,
    /// An empty one.
    Empty,
    /// One line of text. Its line feed is added.
    Line(&'static str),
    /// Bytes of the configuration.
    Bytes(&'a Arc<[u8]>),
    /// Bytes of a small file.
    Part(&'a files::Bytes, Range<usize>),
    /// This many bytes, which the caller sends, or which are only announced.
    Length(u64),
}

const PLAIN: &str = "text/plain; charset=utf-8";

impl<'a> Response<'a> {
    /// A response with a line of text.
    pub(super) fn text(status: u16, line: &'static str) -> Response<'a> {
        // A 405 must have this field (RFC 9110 section 15.5.6).
        let allow = (status == 405).then_some(Allow::Site);
        let fields = Fields { content_type: Some(PLAIN), allow, ..Fields::default() };
        Response { status, fields, body: Body::Line(line), reason: None }
    }

    /// The response to a challenge of a certificate authority (RFC 8555 section 8.3).
    pub(super) fn challenge(content: &'a Arc<[u8]>) -> Response<'a> {
        let content_type = Some("application/octet-stream");
        let fields = Fields { content_type, ..Fields::default() };
        Response { status: 200, fields, body: Body::Bytes(content), reason: None }
    }

    /// The response to a request that is refused.
    pub(super) fn reject(reject: Reject) -> Response<'a> {
        Response { reason: Some(reject.reason), ..Response::text(reject.status, reject.text) }
    }

    /// Replaces a body that says no more than the status by the page of that status, if there is
    /// one. A configured body stays.
    pub(super) fn with_page(mut self, pages: &'a ErrorPages) -> Response<'a> {
        let is_plain = match self.body {
            Body::Line(_) | Body::Empty => true,
            Body::Bytes(bytes) => bytes.is_empty(),
            Body::None | Body::Part(..) | Body::Length(_) => false,
        };
        if self.status >= 400
            && is_plain
            && let Some(page) = pages.get(self.status)
        {
            self.fields.content_type = Some(&page.content_type);
            self.body = Body::Bytes(&page.body);
        }
        self
    }

    /// The number of bytes of the body that are sent, apart from those that the caller sends.
    pub(super) fn content_length(&self, content: Content) -> usize {
        match self.body {
            _ if content == Content::Announced => 0,
            Body::Length(_) => 0,
            _ => self.body.length().unwrap_or(0),
        }
    }

    /// Appends the response. The fields that `rules` are about replace those of the response.
    /// Returns a large body, which is to be sent after `out`.
    pub(super) fn write(
        &self,
        rules: &FieldRules,
        content: Content,
        date: &[u8],
        connection: Persistence,
        out: &mut Vec<u8>,
    ) -> Option<Arc<[u8]>> {
        let is_kept = |name| !rules.drops(name);
        response_head::begin(out, self.status, is_kept("date").then_some(date));
        out.extend_from_slice(rules.lines());
        if let Some(allow) = self.fields.allow
            && is_kept("allow")
        {
            response_head::append_allow(out, matches!(allow, Allow::Site));
        }
        if let Some(location) = &self.fields.location
            && is_kept("location")
        {
            out.extend_from_slice(b"Location: ");
            location.write(out);
            out.extend_from_slice(b"\r\n");
        }
        if let Some(content_type) = self.fields.content_type
            && is_kept("content-type")
        {
            out.extend_from_slice(b"Content-Type: ");
            out.extend_from_slice(content_type.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if let Some(file) = &self.fields.file {
            file.write(rules, out);
        }
        response_head::finish(out, self.body.length(), connection);
        if content == Content::Announced {
            return None;
        }
        match &self.body {
            Body::None | Body::Empty | Body::Length(_) => {}
            Body::Part(bytes, range) => out.extend_from_slice(&bytes[range.clone()]),
            Body::Line(line) => {
                out.extend_from_slice(line.as_bytes());
                out.push(b'\n');
            }
            Body::Bytes(bytes) if bytes.len() > SMALL_BODY => return Some(Arc::clone(bytes)),
            Body::Bytes(bytes) => out.extend_from_slice(bytes),
        }
        None
    }
}

impl FileFields<'_> {
    fn write(&self, rules: &FieldRules, out: &mut Vec<u8>) {
        let mut field = |name: &str, value: &[u8]| {
            if rules.drops(name) {
                return;
            }
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        };
        self.found.for_each_field(&mut field);
        if let Some(value) = self.cache_control {
            field("Cache-Control", value.as_bytes());
        }
        // A browser must not guess another type from the bytes.
        if !matches!(self.found.content, files::Content::Error) {
            field("X-Content-Type-Options", b"nosniff");
        }
        if let Some((path, query)) = self.moved
            && !rules.drops("location")
        {
            out.extend_from_slice(b"Location: ");
            out.extend_from_slice(path.as_bytes());
            out.push(b'/');
            if let Some(query) = query {
                out.push(b'?');
                out.extend_from_slice(query.as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl Body<'_> {
    /// The length for `Content-Length`; `None` if there is no such field.
    fn length(&self) -> Option<usize> {
        match self {
            Body::None => None,
            Body::Empty => Some(0),
            Body::Line(line) => Some(line.len() + 1),
            Body::Bytes(bytes) => Some(bytes.len()),
            Body::Part(_, range) => Some(range.len()),
            Body::Length(length) => usize::try_from(*length).ok(),
        }
    }
}

/// How records name a version.
pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
    }
}

/// The status that a client gets in place of an upstream's response. `None` if the client has left.
pub(super) fn status_for(end: End) -> Option<u16> {
    match end {
        End::Client | End::ClientReset | End::TlsFailed | End::AdminClosed => None,
        End::NoEndpoint | End::Overflow | End::Drain => Some(503),
        End::ConnectTimeout | End::ResponseTimeout => Some(504),
        _ => Some(502),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FieldName, FieldValue};

    const DATE: &[u8] = b"Thu, 01 Jan 1970 00:00:00 GMT";

    fn rules(set: &[(&str, &str)], remove: &[&str]) -> FieldRules {
        let name = |text: &&str| FieldName::new(text).unwrap();
        let set = set.iter().map(|(one, value)| (name(one), FieldValue::new(value).unwrap()));
        FieldRules::new(set.collect(), remove.iter().map(name).collect())
    }

    fn written(response: &Response<'_>, rules: &FieldRules, content: Content) -> String {
        let mut out = Vec::new();
        let large = response.write(rules, content, DATE, Persistence::Close, &mut out);
        out.extend_from_slice(&large.unwrap_or_default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_response_without_rules_has_its_own_fields() {
        let expected = "HTTP/1.1 405 Method Not Allowed\r\n\
            Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
            Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n\
            Content-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\
            Connection: close\r\n\r\n";
        let response = Response::text(405, "no");
        let none = FieldRules::default();
        assert_eq!(written(&response, &none, Content::Sent), format!("{expected}no\n"));
        assert_eq!(written(&response, &none, Content::Announced), expected);
        assert_eq!(response.content_length(Content::Sent), 3);
        assert_eq!(response.content_length(Content::Announced), 0);
        let by_caller = Response { body: Body::Length(9), ..Response::text(200, "") };
        assert_eq!(by_caller.content_length(Content::Sent), 0);
    }

    #[test]
    fn rules_replace_and_remove_its_own_fields() {
        let rules = rules(&[("allow", "GET"), ("server", "s"), ("content-type", "a/b")], &["date"]);
        let expected = "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Type: a/b\r\n\
            Server: s\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n";
        assert_eq!(written(&Response::text(405, "no"), &rules, Content::Sent), expected);
    }

    #[test]
    fn bodies_without_a_status_of_an_error_have_no_page() {
        let page: Arc<[u8]> = Arc::from(&b"page"[..]);
        let own: Arc<[u8]> = Arc::from(&b"own"[..]);
        let none: Arc<[u8]> = Arc::from(&b""[..]);
        let pages = ErrorPages::new([404, 399].map(|status| (status, "a/b".into(), page.clone())));
        let body = |status, body| {
            let response = Response { body, ..Response::text(status, "line") };
            let text = written(&response.with_page(&pages), &FieldRules::default(), Content::Sent);
            text.split_once("\r\n\r\n").unwrap().1.to_owned()
        };
        assert_eq!(body(404, Body::Line("line")), "page");
        assert_eq!(body(404, Body::Empty), "page");
        assert_eq!(body(404, Body::Bytes(&none)), "page");
        assert_eq!(body(404, Body::Bytes(&own)), "own");
        assert_eq!(body(399, Body::Line("line")), "line\n");
        assert_eq!(body(503, Body::Line("line")), "line\n");
    }
}
