//! `error_pages` of a listener: bodies of responses with an error status.

use std::sync::Arc;

/// The pages by status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorPages(pub(super) Vec<(u16, ErrorPage)>);

/// The body of responses with one status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// The value of the Content-Type field.
    pub content_type: String,
    /// At most 1 MiB, read when the configuration is read.
    pub body: Arc<[u8]>,
}

impl ErrorPages {
    /// Makes pages of statuses, content types and bodies.
    pub fn new(pages: impl IntoIterator<Item = (u16, String, Arc<[u8]>)>) -> ErrorPages {
        let page = |(status, content_type, body)| (status, ErrorPage { content_type, body });
        let mut pages: Vec<_> = pages.into_iter().map(page).collect();
        pages.sort_unstable_by_key(|(status, _)| *status);
        ErrorPages(pages)
    }

    /// The page of a status.
    pub fn get(&self, status: u16) -> Option<&ErrorPage> {
        let at = self.0.binary_search_by_key(&status, |(status, _)| *status).ok()?;
        Some(&self.0[at].1)
    }

    /// Returns true if there are no pages.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
