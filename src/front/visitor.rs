//! What a request tells about its client, `Referer` and `User-Agent`, for records that name it.

use crate::observe::access_log::Record;
use crate::proto::http::Fields;

/// The values in the head of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Visitor<'a> {
    referer: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
}

impl<'a> Visitor<'a> {
    /// Finds the values in a head that was parsed. Of several lines with one name the first counts.
    pub(super) fn of(head: &'a [u8]) -> Visitor<'a> {
        let mut visitor = Visitor::default();
        for (name, value) in Fields::of(head) {
            if name.eq_ignore_ascii_case(b"referer") {
                visitor.referer = visitor.referer.or(Some(value));
            } else if name.eq_ignore_ascii_case(b"user-agent") {
                visitor.user_agent = visitor.user_agent.or(Some(value));
            }
        }
        visitor
    }

    /// Says it in a record.
    pub(super) fn describe(self, record: &mut Record<'a>) {
        (record.referer, record.user_agent) = (self.referer, self.user_agent);
    }
}

/// A copy of the values, for a record that is written after the head is gone.
#[derive(Debug)]
pub(super) struct Kept {
    referer: Option<Box<[u8]>>,
    user_agent: Option<Box<[u8]>>,
}

impl Kept {
    /// Copies the values of a head if it has any, and if records name them.
    pub(super) fn of(head: &[u8], is_named: bool) -> Option<Box<Kept>> {
        if !is_named {
            return None;
        }
        let Visitor { referer, user_agent } = Visitor::of(head);
        let is_given = referer.is_some() || user_agent.is_some();
        let (referer, user_agent) = (referer.map(Box::from), user_agent.map(Box::from));
        is_given.then(|| Box::new(Kept { referer, user_agent }))
    }

    /// The values.
    pub(super) fn visitor(&self) -> Visitor<'_> {
        Visitor { referer: self.referer.as_deref(), user_agent: self.user_agent.as_deref() }
    }

    /// The number of bytes that are kept.
    pub(super) fn length(&self) -> usize {
        [&self.referer, &self.user_agent].into_iter().flatten().map(|value| value.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nUSER-AGENT:  one \r\nX: y\r\nReferer: \xe9\r\n\
        user-agent: two\r\n\r\n";

    #[test]
    fn the_first_line_of_a_name_counts() {
        let visitor = Visitor::of(HEAD);
        assert_eq!((visitor.referer, visitor.user_agent), (Some(&b"\xe9"[..]), Some(&b"one"[..])));
        assert_eq!(Visitor::of(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Visitor::default());
    }

    #[test]
    fn a_copy_is_made_only_where_it_is_needed() {
        let kept = Kept::of(HEAD, true).expect("both");
        assert_eq!((kept.visitor(), kept.length()), (Visitor::of(HEAD), 4));
        assert!(Kept::of(HEAD, false).is_none());
        assert!(Kept::of(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true).is_none());
    }
}
