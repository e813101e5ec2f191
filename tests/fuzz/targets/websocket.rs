//! Frames of a client, whole and in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::proto::websocket::{Decoder, Replies};

/// The first byte is the size of the pieces.
fn decode(bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>, bool) {
    let (mut decoder, mut replies, mut payload) =
        (Decoder::default(), Replies::default(), Vec::new());
    for piece in bytes.chunks(piece.max(1)) {
        let mut piece = piece.to_vec();
        let count = decoder.decode(&mut piece, &mut replies);
        payload.extend_from_slice(&piece[..count]);
    }
    let mut out = Vec::new();
    replies.write(&mut out);
    (payload, out, decoder.is_over())
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    assert_eq!(decode(bytes, size.into()), decode(bytes, bytes.len()));
});
