//! WebSocket (RFC 6455) for a server that carries a byte stream, not messages. Payload is forwarded
//! as it arrives, regardless of frame and message boundaries, so no frame is too large.
//!
//! Encoding and decoding happen in the caller's buffer. [`Decoder`] extracts the payload from a
//! client's frames, [`write_header`] makes one frame of the bytes for the client, and [`Replies`]
//! collects the control frames that the client must be sent in between: pongs, a ping and the
//! close.

mod decoder;
mod handshake;
mod mask;
mod replies;

pub use decoder::Decoder;
pub use handshake::{Handshake, Keys, accept_value, early_data};
pub use replies::Replies;

/// The longest frame header that is sent to a client.
pub const MAX_HEADER: usize = 10;

/// The largest payload of a control frame (section 5.5).
const MAX_CONTROL: usize = 125;

/// The bit that marks the last frame of a message.
const FIN: u8 = 0x80;

mod opcode {
    pub(super) const CONTINUATION: u8 = 0;
    pub(super) const TEXT: u8 = 1;
    pub(super) const BINARY: u8 = 2;
    pub(super) const CLOSE: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PONG: u8 = 10;
}

/// Close codes (section 7.4.1).
mod code {
    pub(super) const NORMAL: u16 = 1000;
    pub(super) const PROTOCOL_ERROR: u16 = 1002;
    pub(super) const UNSUPPORTED_DATA: u16 = 1003;
    pub(super) const INVALID_PAYLOAD: u16 = 1007;
}

/// Writes the header of a binary frame with `payload` bytes of payload. The header ends at the end
/// of `room`, directly before the payload. Returns its length.
pub fn write_header(room: &mut [u8; MAX_HEADER], payload: usize) -> usize {
    let length = payload as u64;
    let size = match length {
        0..=125 => {
            room[9] = length as u8;
            2
        }
        126..=0xffff => {
            room[7] = 126;
            room[8..].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            room[1] = 127;
            room[2..].copy_from_slice(&length.to_be_bytes());
            10
        }
    };
    room[MAX_HEADER - size] = FIN | opcode::BINARY;
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_the_shortest_form_of_its_length() {
        let header = |payload| {
            let mut room = [0xff; MAX_HEADER];
            let size = write_header(&mut room, payload);
            room[MAX_HEADER - size..].to_vec()
        };
        assert_eq!(header(0), [0x82, 0]);
        assert_eq!(header(125), [0x82, 125]);
        assert_eq!(header(126), [0x82, 126, 0, 126]);
        assert_eq!(header(0xffff), [0x82, 126, 0xff, 0xff]);
        assert_eq!(header(0x1_0000), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}
