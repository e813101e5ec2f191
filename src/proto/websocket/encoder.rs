//! Encodes frames for a client in place.

use std::ops::Range;

use super::{FIN, opcode};
use crate::proto::codec::{Codec, State};

/// The longest frame header that is sent to a client. A server does not mask its frames.
const MAX_HEADER: usize = 10;

/// Makes one binary frame of each input.
pub struct Encoder;

impl Codec for Encoder {
    fn headroom(&self, _size: usize) -> usize {
        MAX_HEADER
    }

    fn code(&mut self, buffer: &mut [u8], input: Range<usize>) -> Range<usize> {
        let headroom = &mut buffer[..input.start];
        let headroom = headroom.last_chunk_mut().expect("the caller leaves this much headroom");
        input.start - write_header(headroom, input.len())..input.end
    }

    fn state(&self) -> State {
        State::Open
    }
}

/// Writes the header of a binary frame with `payload` bytes of payload. The header ends at the end
/// of `headroom`, directly before the payload. Returns its length.
fn write_header(headroom: &mut [u8; MAX_HEADER], payload: usize) -> usize {
    let length = payload as u64;
    let size = match length {
        0..=125 => {
            headroom[9] = length as u8;
            2
        }
        126..=0xffff => {
            headroom[7] = 126;
            headroom[8..].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            headroom[1] = 127;
            headroom[2..].copy_from_slice(&length.to_be_bytes());
            10
        }
    };
    headroom[MAX_HEADER - size] = FIN | opcode::BINARY;
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_the_shortest_form_of_its_length() {
        let header = |payload| {
            let mut headroom = [0xff; MAX_HEADER];
            let size = write_header(&mut headroom, payload);
            headroom[MAX_HEADER - size..].to_vec()
        };
        assert_eq!(header(0), [0x82, 0]);
        assert_eq!(header(125), [0x82, 125]);
        assert_eq!(header(126), [0x82, 126, 0, 126]);
        assert_eq!(header(0xffff), [0x82, 126, 0xff, 0xff]);
        assert_eq!(header(0x1_0000), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_frame_begins_directly_in_front_of_its_payload() {
        let mut buffer = *b"............payload";
        let frame = Encoder.code(&mut buffer, 12..19);
        assert_eq!(frame, 10..19);
        assert_eq!(buffer, *b"..........\x82\x07payload");
    }
}
