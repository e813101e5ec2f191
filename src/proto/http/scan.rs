//! Finds the end of a head in bytes that arrive in pieces. Each byte is examined once.

use memchr::memchr;

/// The state of the search; a new one is needed for each head.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    /// Start of the current line, whose end has not arrived.
    line: usize,
    /// The number of bytes already searched for a line end.
    seen: usize,
    /// Whether a line that is not empty has been seen.
    started: bool,
    /// Length of the empty lines before the head (RFC 9112 section 2.2 asks servers to ignore
    /// them).
    leading: usize,
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
        while let Some(position) = memchr(b'\n', &bytes[self.seen..]) {
            let line_feed = self.seen + position;
            if line_feed == self.line || bytes[line_feed - 1] != b'\r' {
                return Scan::BareLineFeed;
            }
            let empty = line_feed == self.line + 1;
            self.line = line_feed + 1;
            self.seen = self.line;
            match (empty, self.started) {
                (true, true) => return Scan::Complete { start: self.leading, end: self.line },
                (true, false) => self.leading = self.line,
                (false, _) => self.started = true,
            }
        }
        self.seen = bytes.len();
        Scan::Incomplete
    }

    /// The position of the head in the bytes searched so far: after the empty lines before it.
    pub fn start(&self) -> usize {
        self.leading
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
