//! Finds the end of a head in bytes that arrive in pieces. Each byte is examined once.

use memchr::memchr;

/// The state of the search; a new one is needed for each head. Each idle connection has one, so
/// positions have 32 bits. The bytes of a head fit a buffer, which is far smaller than 4 GiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    /// Start of the line whose end has not arrived.
    line_start: u32,
    /// The number of bytes already searched for a line end.
    searched: u32,
    /// Start of the head, after the empty lines before it (RFC 9112 section 2.2 asks servers to
    /// ignore them).
    head_start: u32,
    /// Whether a line that is not empty has been seen.
    has_started: bool,
}

/// The result of [`HeadScan::advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// More bytes are needed.
    Incomplete,
    /// The head is `bytes[start..end]`. Only empty lines come before it.
    Complete {
        /// First byte of the first line.
        start: usize,
        /// One past the end of the empty line that ends the head.
        end: usize,
    },
    /// A line ends in LF without CR. Servers disagree here: some treat the LF as a line end, some
    /// as a part of the line.
    BareLineFeed,
}

impl HeadScan {
    /// Continues the search. `bytes` begins with all the bytes of the previous calls.
    pub fn advance(&mut self, bytes: &[u8]) -> Scan {
        let mut line_start = self.line_start as usize;
        let mut searched = self.searched as usize;
        while let Some(position) = memchr(b'\n', &bytes[searched..]) {
            let line_feed = searched + position;
            if line_feed == line_start || bytes[line_feed - 1] != b'\r' {
                return Scan::BareLineFeed;
            }
            let is_empty = line_feed == line_start + 1;
            line_start = line_feed + 1;
            searched = line_start;
            if !is_empty {
                self.has_started = true;
            } else if self.has_started {
                return Scan::Complete { start: self.start(), end: line_start };
            } else {
                self.head_start = line_start as u32;
            }
        }
        (self.line_start, self.searched) = (line_start as u32, bytes.len() as u32);
        Scan::Incomplete
    }

    /// The position of the head in the bytes searched so far: after the empty lines before it.
    pub fn start(&self) -> usize {
        self.head_start as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(bytes: &[u8]) -> Scan {
        HeadScan::default().advance(bytes)
    }

    #[test]
    fn a_head_ends_with_the_empty_line() {
        assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest"), complete(0, 27));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r\n\r"), Scan::Incomplete);
        assert_eq!(scan(b""), Scan::Incomplete);
    }

    #[test]
    fn empty_lines_before_it_are_not_part_of_it() {
        assert_eq!(scan(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"), complete(4, 22));
        assert_eq!(scan(b"\r\n\r\n"), Scan::Incomplete);
    }

    #[test]
    fn the_start_is_known_before_the_end() {
        for (bytes, start) in [(&b""[..], 0), (b"\r", 0), (b"\r\n\r", 2), (b"\r\nGET /\r\nA", 2)] {
            let mut search = HeadScan::default();
            assert_eq!(search.advance(bytes), Scan::Incomplete);
            assert_eq!(search.start(), start, "{bytes:?}");
        }
    }

    #[test]
    fn a_line_feed_alone_ends_nothing() {
        for bytes in [&b"GET / HTTP/1.1\nHost: a\n\n"[..], b"\n", b"\r\n\n", b"GET /\r\nA: b\n\r\n"]
        {
            assert_eq!(scan(bytes), Scan::BareLineFeed);
        }
    }

    fn complete(start: usize, end: usize) -> Scan {
        Scan::Complete { start, end }
    }

    proptest! {
        #[test]
        fn cuts_do_not_change_what_is_found(bytes in "[\r\n a]{0,60}", cut in 0usize..60) {
            let bytes = bytes.as_bytes();
            let whole = scan(bytes);
            let mut pieces = HeadScan::default();
            let first = pieces.advance(&bytes[..cut.min(bytes.len())]);
            let result = if first == Scan::Incomplete { pieces.advance(bytes) } else { first };
            prop_assert_eq!(result, whole);
        }
    }
}
