//! Codecs for chunked bodies (RFC 9112 section 7.1): [`Rechunk`] passes a chunked body on in its
//! canonical form, [`Dechunk`] takes the payload out, [`Enchunk`] makes a chunked body of one.
//!
//! All three work in the buffer where the bytes were read. What is passed on has no extensions, no
//! trailers and one spelling for each size, so that the next reader cannot read it in another way.
//! Chunks keep their boundaries: data is passed on as it arrives, and none of it is stored.

use std::ops::Range;

use super::body::{Chunked, Part};
use crate::proto::codec::{Codec, State};

const LINE_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// The longest size line: 15 digits, as many as are accepted, and its end.
const MAX_SIZE_LINE: usize = 17;

/// Chunked in, canonical chunked out. A source that ends while the state is `Open` has not sent the
/// whole body.
#[derive(Default)]
pub struct Rechunk(Reader);

/// Chunked in, payload out. A source that ends while the state is `Open` has not sent the whole
/// body.
#[derive(Default)]
pub struct Dechunk(Reader);

/// Payload in, chunked out. Each input becomes a chunk. [`Codec::finish`] returns the last chunk.
#[derive(Default)]
pub struct Enchunk {
    payload: Payload,
    state: State,
}

impl Rechunk {
    /// Allows at most this many bytes of payload.
    pub fn with_limit(limit: u64) -> Rechunk {
        Rechunk(Reader::with_limit(limit))
    }
}

impl Dechunk {
    /// Allows at most this many bytes of payload.
    pub fn with_limit(limit: u64) -> Dechunk {
        Dechunk(Reader::with_limit(limit))
    }
}

impl Enchunk {
    /// Allows at most this many bytes of payload.
    pub fn with_limit(limit: u64) -> Enchunk {
        Enchunk { payload: Payload::with_limit(limit), ..Enchunk::default() }
    }
}

impl Codec for Rechunk {
    fn headroom(&self, _size: usize) -> usize {
        // A line is written when its last byte arrives. The other bytes may have come earlier.
        MAX_SIZE_LINE - 1
    }

    fn code(&mut self, buffer: &mut [u8], input: Range<usize>) -> Range<usize> {
        self.0.read(buffer, input, true)
    }

    fn state(&self) -> State {
        self.0.state
    }

    fn unused(&self) -> usize {
        self.0.unused
    }

    fn is_too_long(&self) -> bool {
        self.0.payload.is_too_long
    }
}

impl Codec for Dechunk {
    fn code(&mut self, buffer: &mut [u8], input: Range<usize>) -> Range<usize> {
        self.0.read(buffer, input, false)
    }

    fn state(&self) -> State {
        self.0.state
    }

    fn unused(&self) -> usize {
        self.0.unused
    }

    fn is_too_long(&self) -> bool {
        self.0.payload.is_too_long
    }
}

impl Codec for Enchunk {
    fn headroom(&self, size: usize) -> usize {
        LINE_END.len() + SizeLine::new(size as u64).as_bytes().len()
    }

    fn code(&mut self, buffer: &mut [u8], input: Range<usize>) -> Range<usize> {
        // An empty chunk would be the last one.
        if self.state != State::Open || input.is_empty() {
            return input.start..input.start;
        }
        if !self.payload.add(input.len() as u64) {
            self.state = State::Broken;
            return input.start..input.start;
        }
        // There is no room behind the data, so that it makes some. A line end that came with the
        // next chunk would be late: clients may wait for it before they use the chunk.
        let data = input.start - LINE_END.len()..input.end - LINE_END.len();
        buffer.copy_within(input.clone(), data.start);
        buffer[data.end..input.end].copy_from_slice(LINE_END);
        let line = SizeLine::new(input.len() as u64);
        let start = data.start - line.as_bytes().len();
        buffer[start..data.start].copy_from_slice(line.as_bytes());
        start..input.end
    }

    fn state(&self) -> State {
        self.state
    }

    fn finish(&mut self) -> &'static [u8] {
        // A body that is too long must not look complete.
        if self.state != State::Open {
            return b"";
        }
        self.state = State::Ended;
        LAST_CHUNK
    }

    fn is_too_long(&self) -> bool {
        self.payload.is_too_long
    }
}

/// Reads a chunked body.
struct Reader {
    position: Chunked,
    payload: Payload,
    state: State,
    /// Bytes of the last input that are behind the end of the body.
    unused: usize,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader::with_limit(u64::MAX)
    }
}

impl Reader {
    fn with_limit(limit: u64) -> Reader {
        let payload = Payload::with_limit(limit);
        Reader { position: Chunked::START, payload, state: State::Open, unused: 0 }
    }

    /// Reads `input` and leaves the payload in the buffer, with canonical framing if `is_framed`.
    /// Returns its range.
    fn read(&mut self, buffer: &mut [u8], input: Range<usize>, is_framed: bool) -> Range<usize> {
        let mut output = input.start..input.start;
        let mut at = input.start;
        while self.state == State::Open {
            let (read, part) = self.position.next(&buffer[at..input.end]);
            let data = at..at + read;
            at += read;
            match part {
                Part::Incomplete => break,
                Part::Data => keep(buffer, &mut output, data),
                // The whole chunk is refused, before any of its data is passed on.
                Part::Size(size) if !self.payload.add(size) => self.state = State::Broken,
                Part::Size(size) if is_framed => {
                    put(buffer, &mut output, at, SizeLine::new(size).as_bytes());
                }
                Part::DataEnd if is_framed => put(buffer, &mut output, at, LINE_END),
                Part::Size(_) | Part::DataEnd => {}
                Part::End => {
                    if is_framed {
                        put(buffer, &mut output, at, LAST_CHUNK);
                    }
                    self.state = State::Ended;
                }
                Part::Malformed => self.state = State::Broken,
            }
        }
        self.unused = if self.state == State::Ended { input.end - at } else { 0 };
        output
    }
}

/// Appends bytes of the input to the output. The first ones stay where they are.
fn keep(buffer: &mut [u8], output: &mut Range<usize>, bytes: Range<usize>) {
    if output.start == output.end {
        *output = bytes;
        return;
    }
    let end = output.end + bytes.len();
    if output.end != bytes.start {
        buffer.copy_within(bytes, output.end);
    }
    output.end = end;
}

/// Appends bytes to the output in place of a part that was read up to `end`. They are no longer
/// than this part. If it began in an earlier input, nothing precedes it in this one, and the bytes
/// may begin in the headroom.
fn put(buffer: &mut [u8], output: &mut Range<usize>, end: usize, bytes: &[u8]) {
    if output.start == output.end {
        *output = end - bytes.len()..end - bytes.len();
    }
    let start = output.end;
    output.end += bytes.len();
    debug_assert!(output.end <= end, "the part is shorter than its canonical form");
    buffer[start..output.end].copy_from_slice(bytes);
}

/// Counts payload against a limit.
struct Payload {
    left: u64,
    is_too_long: bool,
}

impl Default for Payload {
    fn default() -> Payload {
        Payload::with_limit(u64::MAX)
    }
}

impl Payload {
    fn with_limit(limit: u64) -> Payload {
        Payload { left: limit, is_too_long: false }
    }

    /// Counts more payload. Returns false if it exceeds the limit.
    fn add(&mut self, size: u64) -> bool {
        match self.left.checked_sub(size) {
            Some(left) => self.left = left,
            None => self.is_too_long = true,
        }
        !self.is_too_long
    }
}

/// A size line in its canonical form: lower-case digits without leading zeros.
struct SizeLine {
    bytes: [u8; 18],
    start: usize,
}

impl SizeLine {
    fn new(size: u64) -> SizeLine {
        let mut line = SizeLine { bytes: [0; 18], start: 16 };
        line.bytes[16..].copy_from_slice(LINE_END);
        let mut rest = size;
        loop {
            line.start -= 1;
            line.bytes[line.start] = b"0123456789abcdef"[(rest % 16) as usize];
            rest /= 16;
            if rest == 0 {
                return line;
            }
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests;
