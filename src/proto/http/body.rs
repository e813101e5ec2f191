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

/// A position inside a chunked body (RFC 9112 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunked {
    /// In the chunk size: its value so far and the number of its digits.
    Size(u64, u8),
    /// After the size, in a chunk extension, which is ignored.
    Extension(u64),
    /// After the CR of the size line.
    SizeEnd(u64),
    /// In the chunk data: the number of bytes left.
    Data(u64),
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
    /// At the end of the body.
    End,
}

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
    pub const CHUNKED: Body = Body::Chunked(Chunked::Size(0, 0));

    /// Returns true when the end is reached.
    pub fn is_done(self) -> bool {
        matches!(self, Body::Length(0) | Body::Chunked(Chunked::End))
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
            Body::Chunked(state) => follow_chunks(state, bytes),
        }
    }
}

fn follow_chunks(state: &mut Chunked, bytes: &[u8]) -> BodyEnd {
    let mut position = 0;
    while *state != Chunked::End {
        let Some(&byte) = bytes.get(position) else { return BodyEnd::NotYet };
        if let Chunked::Data(left) = *state {
            let here = left.min((bytes.len() - position) as u64);
            position += here as usize;
            *state = if here == left { Chunked::DataCr } else { Chunked::Data(left - here) };
            continue;
        }
        match state.step(byte) {
            Some(next) => *state = next,
            None => return BodyEnd::Malformed,
        }
        position += 1;
    }
    BodyEnd::At(position)
}

impl Chunked {
    /// The state after one byte outside of the chunk data. `None` if the byte is not allowed here.
    fn step(self, byte: u8) -> Option<Chunked> {
        use Chunked::*;
        Some(match (self, byte) {
            // 15 digits cannot overflow, and no real chunk is longer.
            (Size(size, digits @ 0..15), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).map_or(0, u64::from);
                Size(size * 16 + digit, digits + 1)
            }
            (Size(size, 1..), b'\r') => SizeEnd(size),
            // The grammar allows white space before the semicolon, but only malicious senders use
            // it, so it is refused.
            (Size(size, 1..), b';') => Extension(size),
            (Extension(size), b'\r') => SizeEnd(size),
            (Extension(_), b'\n') => return None,
            (Extension(size), _) => Extension(size),
            (SizeEnd(0), b'\n') => Trailer,
            (SizeEnd(size), b'\n') => Data(size),
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => Size(0, 0),
            (Trailer, b'\r') => EndLf,
            (Trailer | TrailerLine, b'\n') => return None,
            (TrailerLine, b'\r') => TrailerLf,
            (Trailer | TrailerLine, _) => TrailerLine,
            (TrailerLf, b'\n') => Trailer,
            (EndLf, b'\n') => End,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
