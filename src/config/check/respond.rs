//! Checks `respond = { … }`: a status, a type, and a body that is read once.

use std::sync::Arc;

use super::super::input::{self, Accept};
use super::super::report::{Fault, quoted};
use super::super::types::At;
use super::super::{Respond, keys};
use super::Check;

/// The largest body in bytes. A body is held in memory and written in one piece.
const LARGEST_BODY: usize = 1 << 20;

impl Check<'_> {
    pub(super) fn respond(&self, typed: &keys::Respond) -> Option<Respond> {
        if let (Some(_), Some(span)) = (typed.body.key, typed.file.key) {
            let note = "remove one of them";
            self.report.error(span, "a response has `body` or `file`, not both", note);
        }
        let status = typed.status.get();
        if matches!(status, 204 | 205 | 304)
            && let Some(span) = typed.body.key.or(typed.file.key)
        {
            let what = format!("a response with status {status} has no body");
            let note = "remove the body, or write another status";
            self.report.error(span, what, note);
        }
        if let Some(content_type) = &typed.content_type.value {
            self.content_type(content_type);
        }
        let content_type = typed.content_type.get();
        let body = self.body(typed);
        Some(Respond {
            status: u16::try_from(status).expect("599 at most"),
            content_type,
            body: body?,
        })
    }

    /// Checks the content type. It becomes a header field, and a line feed in it would start
    /// another field.
    fn content_type(&self, at: &At<String>) {
        let text = at.value.as_str();
        let printable = |c: char| c.is_ascii_graphic() || c == ' ';
        if text.chars().all(printable) && text.trim() == text && text.contains('/') {
            return;
        }
        let what = format!("{} is not a content type", quoted(text));
        let note = if text.chars().all(printable) {
            "write a type and a subtype: \"text/html; charset=utf-8\""
        } else {
            "the value becomes a header field, which has only printable ASCII characters"
        };
        self.report.error(at.span, what, note);
    }

    /// Returns `None` if an error was reported.
    fn body(&self, typed: &keys::Respond) -> Option<Arc<[u8]>> {
        if let Some(body) = &typed.body.value {
            if body.value.len() > LARGEST_BODY {
                self.report.error(body.span, "`body` is longer than 1 MiB", TOO_LARGE);
            }
            return Some(Arc::from(body.value.as_bytes()));
        }
        match &typed.file.value {
            Some(file) => self.page(file),
            None => Some(Arc::from([])),
        }
    }

    /// Reads the file of a page. Returns `None` if an error was reported.
    pub(super) fn page(&self, file: &At<String>) -> Option<Arc<[u8]>> {
        let At { value: path, span } = file;
        let full = self.base.join(path);
        match input::read(&full, Accept::Files, LARGEST_BODY) {
            Ok(body) => Some(Arc::from(body)),
            Err(cause) => {
                let what = format!("the file {} cannot be read", quoted(path));
                let note = if path.starts_with('/') {
                    "the file is read once, together with the configuration"
                } else {
                    "relative paths start at the directory of this configuration"
                };
                self.report.unreadable(*span, Fault::new(what, note), cause);
                None
            }
        }
    }
}

const TOO_LARGE: &str = "responses are held in memory: use a file server for large files";
