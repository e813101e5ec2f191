//! Finds the end of a message body without storing the body (RFC 9112 section 6).

/// How a body is delimited, and how far it has been followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// The number of bytes that are left; 0 at the end.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked(Chunked),
    /// A response body that ends when the connection closes.
    UntilClose,
}

/// A position inside a chunked body (RFC 9112 section 7.1). Trailers and extensions are read over:
/// what they say is dropped, so only their length is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunked {
    at: At,
    /// The digits of the size, the bytes of the extension, or the bytes of all trailers so far.
    count: u16,
    /// The size of the chunk, then the number of bytes of its data that are left.
    size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the chunk size.
    Size,
    /// After the size, in a chunk extension.
    Extension,
    /// After the CR of the size line.
    SizeLf,
    Data,
    /// Before the CR that ends the data.
    DataCr,
    /// Before the LF that ends the data.
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends the body.
    Trailer,
    /// Inside a trailer line.
    TrailerLine,
    /// After the CR of a trailer line.
    TrailerLf,
    /// After the CR of the empty line that ends the body.
    EndLf,
    End,
}

/// A part of a chunked body that has been read by [`Chunked::next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The bytes end inside of a part other than data.
    Incomplete,
    /// The size line of a chunk with this many bytes; never 0.
    Size(u64),
    /// Data of a chunk: all of the bytes that were read.
    Data,
    /// The line end behind the data of a chunk.
    DataEnd,
    /// The last chunk with the trailers and the empty line. The body ends here.
    End,
    /// A byte that is not allowed here, or too many bytes.
    Malformed,
}

/// 15 digits cannot overflow, and no real chunk is longer.
const MAX_DIGITS: u16 = 15;
/// Bytes of the extension of one chunk, with the CR behind it.
const MAX_EXTENSION: u16 = 4 * 1024;
/// Bytes of all trailers, with their line ends.
const MAX_TRAILERS: u16 = 16 * 1024;

/// The result of [`Body::follow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// All bytes belong to the body, and it is not complete.
    NotYet,
    /// The body ends before this position. The remaining bytes are not part of it.
    At(usize),
    /// The chunked coding is malformed.
    Malformed,
}

impl Body {
    /// A message without a body.
    pub const NONE: Body = Body::Length(0);

    /// The start of a chunked body.
    pub const CHUNKED: Body = Body::Chunked(Chunked::START);

    /// Returns true when the end is reached.
    pub fn is_done(self) -> bool {
        matches!(self, Body::Length(0) | Body::Chunked(Chunked { at: At::End, .. }))
    }

    /// Advances through the next bytes of the connection.
    pub fn follow(&mut self, bytes: &[u8]) -> BodyEnd {
        match self {
            Body::UntilClose => BodyEnd::NotYet,
            Body::Length(left) => {
                if *left > bytes.len() as u64 {
                    *left -= bytes.len() as u64;
                    return BodyEnd::NotYet;
                }
                // The cast is safe: `left` is at most the length of the slice.
                let end = *left as usize;
                *left = 0;
                BodyEnd::At(end)
            }
            Body::Chunked(chunked) => follow_chunks(chunked, bytes),
        }
    }
}

fn follow_chunks(chunked: &mut Chunked, bytes: &[u8]) -> BodyEnd {
    let mut position = 0;
    loop {
        let (read, part) = chunked.next(&bytes[position..]);
        position += read;
        match part {
            Part::Size(_) | Part::Data | Part::DataEnd => {}
            Part::Incomplete => return BodyEnd::NotYet,
            Part::End => return BodyEnd::At(position),
            Part::Malformed => return BodyEnd::Malformed,
        }
    }
}

impl Chunked {
    pub(super) const START: Chunked = Chunked { at: At::Size, count: 0, size: 0 };

    /// Advances to the end of the next part, or through all of the bytes. Returns the number of
    /// bytes that were read and the part that they complete.
    pub(super) fn next(&mut self, bytes: &[u8]) -> (usize, Part) {
        match self.at {
            At::End => return (0, Part::End),
            At::Data if !bytes.is_empty() => {
                // The cast is safe: the number is at most the length of the slice.
                let read = self.size.min(bytes.len() as u64) as usize;
                self.size -= read as u64;
                if self.size == 0 {
                    self.at = At::DataCr;
                }
                return (read, Part::Data);
            }
            _ => {}
        }
        for (index, &byte) in bytes.iter().enumerate() {
            match self.step(byte) {
                Part::Incomplete => {}
                part => return (index + 1, part),
            }
        }
        (bytes.len(), Part::Incomplete)
    }

    /// Advances by one byte outside of the chunk data.
    fn step(&mut self, byte: u8) -> Part {
        use At::*;
        let max = match self.at {
            Extension => MAX_EXTENSION,
            Trailer | TrailerLine | TrailerLf => MAX_TRAILERS,
            _ => u16::MAX,
        };
        if self.count == max {
            return Part::Malformed;
        }
        let has_digits = self.count > 0;
        self.count += 1;
        self.at = match (self.at, byte) {
            (Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.count <= MAX_DIGITS => {
                let digit = (byte as char).to_digit(16).map_or(0, u64::from);
                self.size = self.size * 16 + digit;
                Size
            }
            (Size, b'\r') if has_digits => SizeLf,
            // The grammar allows white space before the semicolon, but only malicious senders use
            // it, so it is refused.
            (Size, b';') if has_digits => {
                self.count = 0;
                Extension
            }
            (Extension | Trailer | TrailerLine, b'\n') => return Part::Malformed,
            (Extension, b'\r') => SizeLf,
            (Extension, _) => Extension,
            (SizeLf, b'\n') if self.size == 0 => {
                self.count = 0;
                Trailer
            }
            (SizeLf, b'\n') => {
                self.at = Data;
                return Part::Size(self.size);
            }
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => {
                *self = Chunked::START;
                return Part::DataEnd;
            }
            (Trailer, b'\r') => EndLf,
            (TrailerLine, b'\r') => TrailerLf,
            (Trailer | TrailerLine, _) => TrailerLine,
            (TrailerLf, b'\n') => Trailer,
            (EndLf, b'\n') => {
                self.at = End;
                return Part::End;
            }
            _ => return Part::Malformed,
        };
        Part::Incomplete
    }
}

#[cfg(test)]
mod tests;
