//! Decodes the frames of a client in place.

use std::ops::Range;

use super::control_frames::ControlFrames;
use super::mask::Mask;
use super::{FIN, MAX_CONTROL, code, opcode};
use crate::proto::codec::{Codec, State};

/// The longest frame header of a client, masking key included.
const MAX_CLIENT_HEADER: usize = 14;

/// The position in the client's frames. Of the payload it stores only that of a control frame.
pub struct Decoder {
    header: [u8; MAX_CLIENT_HEADER],
    /// The number of bytes in `header`; 0 while payload is expected.
    filled: usize,
    /// The kind of the current frame.
    frame: Frame,
    /// Bytes of the current frame's payload that are still missing.
    left: u64,
    mask: Mask,
    /// Whether a message has begun and its last frame has not.
    in_message: bool,
    /// The payload of the current control frame.
    control: [u8; MAX_CONTROL],
    control_filled: usize,
    /// `Ended` after a close frame of the client.
    state: State,
    /// Collects the replies to the client's control frames.
    control_frames: ControlFrames,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// There is no current frame: the next bytes belong to a header.
    Header,
    Data,
    Ping,
    Pong,
    Close,
}

impl Decoder {
    /// Makes a decoder for a client that has sent nothing yet. Replies to its control frames are
    /// added to `control_frames`.
    pub fn new(control_frames: ControlFrames) -> Decoder {
        Decoder {
            header: [0; MAX_CLIENT_HEADER],
            filled: 0,
            frame: Frame::Header,
            left: 0,
            mask: Mask::default(),
            in_message: false,
            control: [0; MAX_CONTROL],
            control_filled: 0,
            state: State::Open,
            control_frames,
        }
    }

    /// Parses a complete header. An error is the code to close the connection with.
    fn begin_frame(&mut self) -> Result<(), u16> {
        let header = &self.header;
        let (fin, opcode) = (header[0] & FIN != 0, header[0] & 0x0f);
        let masked = header[1] & 0x80 != 0;
        // The length has 7 bits, or 16 or 64 bits after them; the masking key follows (section
        // 5.2).
        let (length, key_at) = match header[1] & 0x7f {
            126 => (u64::from(u16::from_be_bytes([header[2], header[3]])), 4),
            127 => {
                let mut length = [0; 8];
                length.copy_from_slice(&header[2..10]);
                (u64::from_be_bytes(length), 10)
            }
            short => (u64::from(short), 2),
        };
        // Reserved bits must be 0, as no extension was negotiated (section 5.2). A client must mask
        // its frames (section 5.1). The most significant bit of a 64-bit length must be 0.
        if header[0] & 0x70 != 0 || !masked || length >> 63 != 0 {
            return Err(code::PROTOCOL_ERROR);
        }
        let frame = match opcode {
            opcode::CONTINUATION if self.in_message => Frame::Data,
            opcode::BINARY if !self.in_message => Frame::Data,
            opcode::TEXT if !self.in_message => return Err(code::UNSUPPORTED_DATA),
            opcode::PING => Frame::Ping,
            opcode::PONG => Frame::Pong,
            opcode::CLOSE => Frame::Close,
            _ => return Err(code::PROTOCOL_ERROR),
        };
        if frame == Frame::Data {
            self.in_message = !fin;
        } else if !fin || length > MAX_CONTROL as u64 {
            return Err(code::PROTOCOL_ERROR);
        }
        let mut key = [0; 4];
        key.copy_from_slice(&header[key_at..key_at + 4]);
        (self.frame, self.left, self.mask) = (frame, length, Mask::new(key));
        self.control_filled = 0;
        Ok(())
    }

    /// Handles the end of a frame's payload.
    fn end_frame(&mut self) {
        let control = &self.control[..self.control_filled];
        match self.frame {
            Frame::Header | Frame::Data => {}
            Frame::Pong => self.control_frames.receive_pong(),
            Frame::Ping => self.control_frames.schedule_pong(control),
            Frame::Close => {
                self.state = State::Ended;
                self.control_frames.schedule_close_with(close_reply(control));
            }
        }
        self.frame = Frame::Header;
    }
}

impl Codec for Decoder {
    fn code(&mut self, buffer: &mut [u8], input: Range<usize>) -> Range<usize> {
        let (mut read, mut written) = (input.start, input.start);
        while read < input.end && self.state == State::Open {
            if self.frame == Frame::Header {
                self.header[self.filled] = buffer[read];
                (self.filled, read) = (self.filled + 1, read + 1);
                if self.filled == header_length(&self.header[..self.filled]) {
                    self.filled = 0;
                    if let Err(code) = self.begin_frame() {
                        self.state = State::Broken;
                        self.control_frames.schedule_close_with(Some(code));
                    }
                }
            } else {
                let here = input.end - read;
                let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(here);
                self.left -= count as u64;
                // Data moves to the front of the input. Control payload is stored until its frame
                // ends.
                if self.frame == Frame::Data {
                    buffer.copy_within(read..read + count, written);
                    self.mask.apply(&mut buffer[written..written + count]);
                    written += count;
                } else {
                    let control = &mut self.control[self.control_filled..][..count];
                    control.copy_from_slice(&buffer[read..read + count]);
                    self.mask.apply(control);
                    self.control_filled += count;
                }
                read += count;
            }
            if self.frame != Frame::Header && self.left == 0 {
                self.end_frame();
            }
        }
        input.start..written
    }

    fn state(&self) -> State {
        self.state
    }
}

/// The length of a header that begins with these bytes, as far as it is known: at least 2.
fn header_length(begun: &[u8]) -> usize {
    let Some(second) = begun.get(1) else { return 2 };
    let masked = if second & 0x80 != 0 { 4 } else { 0 };
    masked
        + match second & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        }
}

/// The code of the reply to a close frame: the code received, unless it must not be sent (section
/// 7.4).
fn close_reply(payload: &[u8]) -> Option<u16> {
    let (code, reason) = match payload {
        [] => return None,
        [first, second, reason @ ..] => (u16::from_be_bytes([*first, *second]), reason),
        [_] => return Some(code::PROTOCOL_ERROR),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Some(code::PROTOCOL_ERROR);
    }
    if std::str::from_utf8(reason).is_err() {
        return Some(code::INVALID_PAYLOAD);
    }
    Some(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 4] = [0x11, 0x22, 0x33, 0xf4];

    /// A frame as a client sends it. `form` selects the shortest form of the length or a longer
    /// one.
    fn frame_in_form(first: u8, payload: &[u8], form: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match (payload.len(), form) {
            (length @ 0..=125, 0) => frame.push(0x80 | length as u8),
            (length @ 0..=0xffff, 0 | 1) => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            (length, _) => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&KEY);
        let at = frame.len();
        frame.extend_from_slice(payload);
        Mask::new(KEY).apply(&mut frame[at..]);
        frame
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        frame_in_form(first, payload, 0)
    }

    /// Decodes pieces of these sizes, then the rest at once. Returns the payload, the pending
    /// control frames and the state.
    fn decode(bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, Vec<u8>, State) {
        let control_frames = ControlFrames::default();
        let mut decoder = Decoder::new(control_frames.clone());
        let (mut payload, mut rest) = (Vec::new(), bytes);
        let mut take = |piece: &[u8]| {
            let mut piece = piece.to_vec();
            let whole = 0..piece.len();
            let range = decoder.code(&mut piece, whole);
            payload.extend_from_slice(&piece[range]);
        };
        for &cut in cuts {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            take(piece);
            rest = behind;
        }
        take(rest);
        (payload, pending(&control_frames), decoder.state())
    }

    fn pending(control_frames: &ControlFrames) -> Vec<u8> {
        let mut out = Vec::new();
        control_frames.take_pending(&mut out);
        out
    }

    #[test]
    fn payload_goes_on_from_every_form_and_fragment() {
        let mut bytes = frame_in_form(0x82, b"short", 0);
        bytes.extend(frame_in_form(0x82, b" in 16 bits", 1));
        bytes.extend(frame_in_form(0x82, b" in 64", 2));
        bytes.extend(frame(0x02, b" begun"));
        bytes.extend(frame(0x8a, b"unasked pong"));
        bytes.extend(frame(0x00, b""));
        bytes.extend(frame(0x80, b" ended"));
        let (payload, replies, state) = decode(&bytes, &[]);
        assert_eq!(payload, b"short in 16 bits in 64 begun ended");
        assert!(replies.is_empty() && state == State::Open);
    }

    #[test]
    fn the_last_ping_is_answered_and_the_close_behind_it() {
        let mut bytes = frame(0x89, b"one");
        bytes.extend(frame(0x02, b"between"));
        bytes.extend(frame(0x89, &[7; 125]));
        bytes.extend(frame(0x88, &[0x03, 0xe8, b'b', b'y', b'e']));
        bytes.extend(frame(0x80, b"behind the close"));
        let (payload, replies, state) = decode(&bytes, &[]);
        assert_eq!(payload, b"between");
        let expected = [&[0x8a, 125][..], &[7; 125], &[0x88, 2, 0x03, 0xe8]].concat();
        assert!(state == State::Ended && replies == expected, "{replies:?}");
    }

    #[test]
    fn closes_are_answered_with_their_code_or_told_what_is_wrong_with_it() {
        let answer = |payload: &[u8]| decode(&frame(0x88, payload), &[]).1;
        assert_eq!(answer(&[]), [0x88, 0]);
        for (code, expected) in [
            (1000, 1000),
            (1001, 1001),
            (3000, 3000),
            (4999, 4999),
            (999, 1002),
            (1004, 1002),
            (1005, 1002),
            (1006, 1002),
            (1015, 1002),
            (2000, 1002),
            (5000, 1002),
        ] {
            let [first, second] = u16::to_be_bytes(expected);
            assert_eq!(answer(&u16::to_be_bytes(code)), [0x88, 2, first, second], "{code}");
        }
        assert_eq!(answer(&[3]), [0x88, 2, 0x03, 0xea], "half a code");
        assert_eq!(answer(&[0x03, 0xe8, 0xff]), [0x88, 2, 0x03, 0xef], "a reason not in UTF-8");
    }

    #[test]
    fn what_breaks_the_protocol_is_closed_on_and_nothing_behind_it_goes_on() {
        let unmasked = vec![0x82, 2, b'n', b'o'];
        let huge = [&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0][..], &KEY].concat();
        let interleaved = [frame(0x02, b"first"), frame(0x82, b"second")].concat();
        for (bytes, code, why) in [
            (frame(0xc2, b"x"), 1002, "a reserved bit"),
            (frame(0x83, b"x"), 1002, "a reserved opcode"),
            (frame(0x8b, b"x"), 1002, "a reserved control opcode"),
            (unmasked, 1002, "no mask"),
            (huge, 1002, "a length of 64 bits"),
            (frame(0x80, b"x"), 1002, "the end of nothing"),
            (interleaved, 1002, "a message within another"),
            (frame(0x09, b"x"), 1002, "a ping in fragments"),
            (frame(0x89, &[0; 126]), 1002, "a ping that is too long"),
            (frame(0x81, b"x"), 1003, "text"),
        ] {
            let bytes = [bytes, frame(0x82, b"behind it")].concat();
            let (payload, replies, state) = decode(&bytes, &[]);
            let [first, second] = u16::to_be_bytes(code);
            assert_eq!(state, State::Broken, "{why}");
            assert_eq!(replies, [0x88, 2, first, second], "{why}");
            assert!(payload.is_empty() || payload == b"first", "{why}: {payload:?}");
        }
    }

    #[test]
    fn only_a_pong_behind_the_ping_answers_it() {
        let control_frames = ControlFrames::default();
        let mut decoder = Decoder::new(control_frames.clone());
        let mut pong = |payload: &[u8]| {
            let mut frame = frame(0x8a, payload);
            let whole = 0..frame.len();
            decoder.code(&mut frame, whole);
        };
        pong(b"too early");
        control_frames.schedule_ping();
        assert!(pending(&control_frames) == [0x89, 0] && !control_frames.is_ping_settled());
        control_frames.schedule_ping();
        assert!(!control_frames.has_pending(), "it is sent once");
        pong(b"");
        assert!(control_frames.is_ping_settled());
    }

    #[test]
    fn nothing_follows_a_close() {
        let control_frames = ControlFrames::default();
        control_frames.schedule_close();
        assert_eq!(pending(&control_frames), [0x88, 2, 0x03, 0xe8]);
        assert!(control_frames.is_close_sent());
        let mut reply = [frame(0x89, b"x"), frame(0x88, &[0x03, 0xe8])].concat();
        let whole = 0..reply.len();
        Decoder::new(control_frames.clone()).code(&mut reply, whole);
        assert!(!control_frames.has_pending());
        assert!(pending(&control_frames).is_empty());
    }

    /// Bytes of a client: mostly valid frames and some invalid ones.
    fn client_bytes() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![8 => Just(0x82u8), 2 => Just(0x02), 2 => Just(0x80),
            1 => Just(0x89), 1 => Just(0x8a), 1 => any::<u8>()];
        let payload = proptest::collection::vec(any::<u8>(), 0..300);
        let one = (first, payload, 0usize..3).prop_map(|(first, payload, form)| {
            let payload =
                if first & 8 == 0 { &payload[..] } else { &payload[..payload.len() % 126] };
            frame_in_form(first, payload, form)
        });
        let frames = proptest::collection::vec(one, 0..12).prop_map(|frames| frames.concat());
        prop_oneof![4 => frames, 1 => proptest::collection::vec(any::<u8>(), 0..200)]
    }

    proptest! {
        #[test]
        fn cuts_do_not_show(
            bytes in client_bytes(),
            cuts in proptest::collection::vec(0usize..64, 0..40),
        ) {
            prop_assert_eq!(decode(&bytes, &cuts), decode(&bytes, &[]));
        }
    }
}
