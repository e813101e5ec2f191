//! Frames of a client, whole and in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::proto::codec::{Codec, State};
use ringgate::proto::websocket::{ControlFrames, Decoder};

/// The first byte is the size of the pieces.
fn decode(bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>, State) {
    let control_frames = ControlFrames::default();
    let (mut decoder, mut payload) = (Decoder::new(control_frames.clone()), Vec::new());
    for piece in bytes.chunks(piece.max(1)) {
        let (mut piece, size) = (piece.to_vec(), piece.len());
        let range = decoder.code(&mut piece, 0..size);
        payload.extend_from_slice(&piece[range]);
    }
    let mut out = Vec::new();
    control_frames.take_pending(&mut out);
    (payload, out, decoder.state())
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    assert_eq!(decode(bytes, size.into()), decode(bytes, bytes.len()));
});
