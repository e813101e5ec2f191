//! WebSocket (RFC 6455) as a server speaks it that wants a stream of bytes, not messages: payload
//! goes on as it arrives, whatever the frames and fragments it comes in, and so no frame is too
//! large.
//!
//! Everything happens in the caller's buffer. [`Decoder`] takes the frames of a client apart,
//! [`write_header`] makes one frame of what goes to it, and [`Replies`] are what the client is
//! owed beside that: pongs and the close.

mod decoder;
mod handshake;
mod mask;
mod replies;

pub use decoder::Decoder;
pub use handshake::{Handshake, Keys, accept_value, early_data};
pub use replies::Replies;

/// The longest header of a frame to a client.
pub const MAX_HEADER: usize = 10;

/// Payload of a control frame at most (section 5.5).
const MAX_CONTROL: usize = 125;

/// The last frame of a message.
const FIN: u8 = 0x80;

mod opcode {
    pub(super) const CONTINUATION: u8 = 0;
    pub(super) const TEXT: u8 = 1;
    pub(super) const BINARY: u8 = 2;
    pub(super) const CLOSE: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PONG: u8 = 10;
}

/// Why a connection is closed (section 7.4.1).
mod code {
    pub(super) const NORMAL: u16 = 1000;
    pub(super) const PROTOCOL_ERROR: u16 = 1002;
    pub(super) const UNSUPPORTED_DATA: u16 = 1003;
    pub(super) const INVALID_PAYLOAD: u16 = 1007;
}

/// Writes the header of one binary frame with so much payload to the end of `room`, where the
/// payload begins; says how long it is.
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
