//! The response to a request for a file, as a value: which status, which fields, which bytes.
//!
//! The connection adds what concerns itself (the status line, the date, the length, persistence),
//! and makes the content of an error.

use std::time::{SystemTime, UNIX_EPOCH};

use super::body::Body;
use super::cache::Bytes;
use super::rules::FoundFile;
use crate::proto::http::{ByteRange, Coding, Conditions, Etag, Validators, Verdict};

/// A request for a file.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The path without the query, as sent. All of it is looked up below the root.
    pub path: &'a str,
    /// The fields about conditions, ranges and codings.
    pub conditions: &'a Conditions<'a>,
}

/// The response to a request for a file.
#[derive(Debug)]
pub struct Response {
    /// 200, 206, 301, 304, 404, 405, 412, 416 or 503. With 301 the client is to ask for the same
    /// path with a slash at its end.
    pub status: u16,
    /// The content.
    pub content: Content,
    /// The file, if there is one.
    info: Option<Info>,
    part: Option<ByteRange>,
    /// Whether another `Accept-Encoding` may get another response.
    varies: bool,
}

/// The content of a response.
#[derive(Debug)]
pub enum Content {
    /// None, and no length either: a 304.
    None,
    /// The caller makes it, if it has one for this status.
    Error,
    /// The response to a HEAD: only this length is sent.
    Announced(u64),
    /// These bytes, from the start to the end of the range.
    Bytes(Bytes, std::ops::Range<usize>),
    /// Bytes of a file.
    File(Box<Body>),
}

/// What is known of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    media_type: &'static str,
    pub(super) coding: Option<Coding>,
    validators: Validators,
    last_modified: Option<[u8; 29]>,
    /// The length of the whole in bytes.
    pub(super) length: u64,
}

impl Info {
    pub(super) fn of(found: &FoundFile) -> Info {
        let metadata = &found.metadata;
        // Times before 1970 are as good as any other for the tag.
        let modified = metadata.modified as u64;
        let etag = Etag::of_file(modified, metadata.size, metadata.inode, found.coding);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let seconds = u64::try_from(metadata.modified / 1_000_000_000).ok();
        let validators = Validators { etag, last_modified: seconds.filter(|&time| time <= now) };
        Info {
            media_type: found.media_type,
            coding: found.coding,
            last_modified: validators.last_modified_text(),
            validators,
            length: metadata.size,
        }
    }

    /// What the conditions of a request lead to.
    pub(super) fn verdict(&self, request: &Request<'_>) -> Verdict {
        let is_get = request.method == "GET";
        request.conditions.evaluate(&self.validators, self.length, is_get)
    }
}

impl Response {
    /// A response without a file.
    pub(super) fn error(status: u16) -> Response {
        Response { status, content: Content::Error, info: None, part: None, varies: false }
    }

    /// The response to a request for a file that is not there. Another `Accept-Encoding` may find a
    /// copy of it in a coding if `varies` is true.
    pub(super) fn missing(varies: bool) -> Response {
        Response { varies, ..Response::error(404) }
    }

    /// The response with a file. `content` makes the content of its bytes in this range.
    pub(super) fn file(
        info: Info,
        verdict: Verdict,
        varies: bool,
        content: impl FnOnce(ByteRange) -> Content,
    ) -> Response {
        let whole = ByteRange { start: 0, end: info.length };
        let (status, part, content) = match verdict {
            Verdict::Whole => (200, None, content(whole)),
            Verdict::Part(range) => (206, Some(range), content(range)),
            Verdict::NotModified => (304, None, Content::None),
            Verdict::PreconditionFailed => (412, None, Content::Error),
            Verdict::NotSatisfiable => (416, None, Content::Error),
        };
        Response { status, content, info: Some(info), part, varies }
    }

    /// The length of the content for `Content-Length`. `None` if there is no such field, or if the
    /// caller makes the content.
    pub fn length(&self) -> Option<u64> {
        match &self.content {
            Content::None | Content::Error => None,
            Content::Announced(length) => Some(*length),
            Content::Bytes(_, range) => Some(range.len() as u64),
            Content::File(body) => Some(body.left()),
        }
    }

    /// Gives each field of the response to `add`, apart from its length and those of the route
    /// (`Cache-Control`). A 301 lacks its `Location`.
    pub fn for_each_field(&self, mut add: impl FnMut(&'static str, &[u8])) {
        if self.status == 405 {
            add("Allow", b"GET, HEAD");
        }
        if self.varies {
            add("Vary", b"Accept-Encoding");
        }
        let Some(info) = &self.info else { return };
        if self.status == 416 {
            let mut value = Vec::with_capacity(32);
            ByteRange::write_unsatisfied(info.length, &mut value);
            add("Content-Range", &value);
        }
        if matches!(self.status, 412 | 416) {
            return;
        }
        if self.status != 304 {
            add("Content-Type", info.media_type.as_bytes());
            if let Some(coding) = info.coding {
                add("Content-Encoding", coding.name().as_bytes());
            }
        }
        // The page of a 404 is not the file that the path names.
        if self.status == 404 {
            return;
        }
        if let Some(date) = &info.last_modified {
            add("Last-Modified", date);
        }
        add("ETag", info.validators.etag.as_bytes());
        if self.status == 304 {
            return;
        }
        add("Accept-Ranges", b"bytes");
        if let Some(part) = self.part {
            let mut value = Vec::with_capacity(64);
            part.write(info.length, &mut value);
            add("Content-Range", &value);
        }
    }
}
