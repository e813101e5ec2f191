//! Codecs: they decode or encode the bytes of one direction in the buffer where these were read.
//!
//! An encoder needs space for its headers. It gets it in front of the bytes, as headroom, so that a
//! header is written and the payload stays where it is. Codecs can be stacked: each one codes the
//! output of the one before it, and their headrooms add up.

use std::ops::Range;

/// Decodes or encodes the bytes of one direction.
pub trait Codec {
    /// The number of bytes that must be free in front of an input of up to `size` bytes.
    fn headroom(&self, _size: usize) -> usize {
        0
    }

    /// Codes the bytes of `buffer` at `input` in place. Returns the range of the output. It begins
    /// at most [`Codec::headroom`] bytes before the input, and ends at or before the input's end.
    fn code(&mut self, buffer: &mut [u8], input: Range<usize>) -> Range<usize>;

    /// Tells whether more output can follow.
    fn state(&self) -> State;

    /// The number of bytes at the end of the last input that are behind the end of the stream.
    /// They are not part of the output, and they stay in their place in the buffer.
    fn unused(&self) -> usize {
        0
    }

    /// Returns the bytes that complete the output, because the source has ended. The state is
    /// `Ended` after that.
    fn finish(&mut self) -> &'static [u8] {
        b""
    }

    /// Returns true when the state is `Broken` because the payload exceeds a limit.
    fn is_too_long(&self) -> bool {
        false
    }
}

/// The state of a codec. If those of several codecs differ, the greatest one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// More bytes are expected.
    #[default]
    Open,
    /// The protocol has ended the stream. Later input is ignored.
    Ended,
    /// The sender has broken the protocol. Later input is ignored.
    Broken,
}

/// Codecs that run one after the other on the same buffer. To decode, the outermost protocol comes
/// first; to encode, the innermost.
pub struct Stack {
    first: Box<dyn Codec>,
    rest: Option<Box<Stack>>,
}

impl Stack {
    /// Makes a stack of one codec.
    pub fn new(codec: impl Codec + 'static) -> Stack {
        Stack { first: Box::new(codec), rest: None }
    }

    /// Adds a codec behind the others.
    #[must_use]
    pub fn then(self, codec: impl Codec + 'static) -> Stack {
        let rest = match self.rest {
            None => Stack::new(codec),
            Some(rest) => rest.then(codec),
        };
        Stack { first: self.first, rest: Some(Box::new(rest)) }
    }

    /// The codecs behind the first one.
    pub fn rest(&mut self) -> Option<&mut Stack> {
        self.rest.as_deref_mut()
    }
}

impl Codec for Stack {
    fn headroom(&self, size: usize) -> usize {
        let first = self.first.headroom(size);
        // The output of the first codec may be longer than its input.
        first + self.rest.as_ref().map_or(0, |rest| rest.headroom(size + first))
    }

    fn code(&mut self, buffer: &mut [u8], input: Range<usize>) -> Range<usize> {
        let output = self.first.code(buffer, input);
        match &mut self.rest {
            None => output,
            Some(rest) => rest.code(buffer, output),
        }
    }

    fn state(&self) -> State {
        let first = self.first.state();
        self.rest.as_ref().map_or(first, |rest| first.max(rest.state()))
    }

    fn unused(&self) -> usize {
        self.first.unused()
    }

    fn finish(&mut self) -> &'static [u8] {
        // The output of a stream that is broken must not look complete.
        if self.state() == State::Broken {
            return b"";
        }
        let last = self.first.finish();
        match &mut self.rest {
            None => last,
            Some(rest) => {
                debug_assert!(last.is_empty(), "the codecs behind it would have to code them");
                rest.finish()
            }
        }
    }

    fn is_too_long(&self) -> bool {
        self.first.is_too_long() || self.rest.as_ref().is_some_and(|rest| rest.is_too_long())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::{Dechunk, Enchunk};
    use crate::proto::{obfs, websocket};
    use proptest::prelude::*;

    /// The length of the two records that precede the first payload of simple-obfs.
    const FLIGHT: usize = 102;

    /// Codes each message in a buffer of its own. Returns the outputs, and the state after the
    /// last.
    fn code<'a>(
        stack: &mut Stack,
        messages: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<u8>, State) {
        let mut out = Vec::new();
        for message in messages {
            let headroom = stack.headroom(message.len());
            // What is behind the input must not change.
            let mut buffer = [&vec![0; headroom], message, b"behind"].concat();
            let end = headroom + message.len();
            let output = stack.code(&mut buffer, headroom..end);
            assert!(output.end <= end && &buffer[end..] == b"behind");
            out.extend_from_slice(&buffer[output]);
        }
        (out, stack.state())
    }

    /// WebSocket frames in the records of simple-obfs, to the client.
    fn encoders() -> Stack {
        let records = obfs::Encoder::new(&[1; 32], 0, &[2; 28]);
        Stack::new(websocket::Encoder).then(records)
    }

    /// The same from the client.
    fn decoders(control_frames: &websocket::ControlFrames) -> Stack {
        let frames = websocket::Decoder::new(control_frames.clone());
        Stack::new(obfs::Decoder::default()).then(frames)
    }

    /// Cuts bytes into pieces of these lengths and the rest.
    fn cut<'a>(mut bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        for &length in lengths {
            let (piece, rest) = bytes.split_at(length.min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces.push(bytes);
        pieces
    }

    /// Makes a client's frames of a server's: each gets a masking key of zeros.
    fn masked(mut frames: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while let [first, length, rest @ ..] = frames {
            let (extended, payload) = match length {
                126 => (2, usize::from(u16::from_be_bytes([rest[0], rest[1]]))),
                127 => (8, u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize),
                length => (0, usize::from(*length)),
            };
            out.extend([*first, 0x80 | length]);
            out.extend(&rest[..extended]);
            out.extend([0; 4]);
            out.extend(&rest[extended..extended + payload]);
            frames = &rest[extended + payload..];
        }
        out
    }

    /// Puts bytes into records of application data of at most `length` bytes.
    fn records(bytes: &[u8], length: usize) -> Vec<u8> {
        let record = |piece: &[u8]| {
            let length = (piece.len() as u16).to_be_bytes();
            [&[0x17, 3, 3], &length[..], piece].concat()
        };
        bytes.chunks(length).flat_map(record).collect()
    }

    /// Removes the records that only a server sends, and marks the first payload as application
    /// data.
    fn as_from_client(encoded: &[u8]) -> Vec<u8> {
        let mut records = encoded[FLIGHT..].to_vec();
        assert_eq!(std::mem::replace(&mut records[0], 0x17), 0x16);
        records
    }

    #[test]
    fn two_encoders_write_their_headers_in_front_of_the_payload() {
        let (encoded, state) = code(&mut encoders(), [&b"one"[..], b"two"]);
        let first = [0x16, 3, 3, 0, 5, 0x82, 3, b'o', b'n', b'e'];
        let second = [0x17, 3, 3, 0, 5, 0x82, 3, b't', b'w', b'o'];
        assert_eq!(encoded[FLIGHT..], [first, second].concat());
        assert_eq!(state, State::Open);
    }

    #[test]
    fn a_stack_has_ended_or_is_broken_when_one_of_its_codecs_is() {
        let close = [0x88, 0x80, 0, 0, 0, 0];
        let unmasked = [0x82, 2, b'n', b'o'];
        let alert = [0x15, 3, 3, 0, 2, 1, 0];
        for (bytes, expected) in [
            (records(&close[..5], 100), State::Open),
            (records(&close, 100), State::Ended),
            (records(&unmasked, 100), State::Broken),
            (alert.to_vec(), State::Broken),
            ([records(&close, 100), alert.to_vec()].concat(), State::Broken),
        ] {
            let (payload, state) =
                code(&mut decoders(&websocket::ControlFrames::default()), [&bytes[..]]);
            assert_eq!((payload, state), (Vec::new(), expected), "{bytes:?}");
        }
    }

    #[test]
    fn a_stack_answers_for_all_of_its_codecs() {
        let stack = || Stack::new(Dechunk::with_limit(3)).then(Enchunk::default());
        let mut whole = stack();
        let (coded, state) = code(&mut whole, [&b"03\r\nabc\r\n0\r\n\r\nGET"[..]]);
        assert_eq!((&coded[..], state, whole.unused()), (&b"3\r\nabc\r\n"[..], State::Ended, 3));
        assert_eq!((whole.finish(), whole.is_too_long()), (&b"0\r\n\r\n"[..], false));

        let mut too_long = stack();
        let (coded, state) = code(&mut too_long, [&b"2\r\nab\r\n2\r\ncd\r\n"[..]]);
        assert_eq!((&coded[..], state), (&b"2\r\nab\r\n"[..], State::Broken));
        assert_eq!((too_long.finish(), too_long.is_too_long()), (&b""[..], true));
    }

    #[test]
    fn a_codec_can_be_added_behind_a_stack() {
        let mut encoders = encoders().then(websocket::Encoder);
        assert_eq!(encoders.headroom(100), 10 + FLIGHT + 5 + 10);
        let (encoded, _) = code(&mut encoders, [&b"one"[..]]);
        assert_eq!(encoded[..2], [0x82, FLIGHT as u8 + 5 + 2 + 3]);
        assert!(encoders.rest().and_then(Stack::rest).is_some());
    }

    proptest! {
        #[test]
        fn what_two_encoders_encode_two_decoders_decode(
            lengths in proptest::collection::vec(prop_oneof![
                1usize..300, Just(16_384 - 4), 16_300usize..16_500, 65_500usize..70_000,
            ], 1..5),
            cuts in proptest::collection::vec(0usize..40_000, 0..20),
            record in 1usize..=16_384,
        ) {
            let payload: Vec<u8> = (0..lengths.iter().sum()).map(|at: usize| at as u8).collect();
            let (encoded, _) = code(&mut encoders(), cut(&payload, &lengths).into_iter()
                .filter(|message| !message.is_empty()));

            // Remove the records and check the frames, then let a client send the same frames.
            let mut outer = Stack::new(obfs::Decoder::default());
            let (frames, state) = code(&mut outer, cut(&as_from_client(&encoded), &cuts));
            prop_assert_eq!(state, State::Open);
            let sent = records(&masked(&frames), record);
            let control_frames = websocket::ControlFrames::default();
            let decoded = code(&mut decoders(&control_frames), cut(&sent, &cuts));
            prop_assert!(decoded == (payload, State::Open));
            prop_assert!(!control_frames.has_pending());
        }
    }
}
