//! WebSocket (RFC 6455) for a server that carries a byte stream, not messages. Payload is forwarded
//! as it arrives, regardless of frame and message boundaries, so no frame is too large.
//!
//! [`Decoder`] extracts the payload from a client's frames, and [`Encoder`] makes one frame of the
//! bytes for the client. [`ControlFrames`] collects the control frames that must be sent to the
//! client in between: pongs, a ping and the close frame.

mod control_frames;
mod decoder;
mod encoder;
mod handshake;
mod mask;

pub use control_frames::ControlFrames;
pub use decoder::Decoder;
pub use encoder::Encoder;
pub use handshake::{Handshake, Keys, accept_value, early_data};

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
