//! Records of a simple-obfs client, whole and in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::proto::codec::{Codec, State};
use ringgate::proto::obfs::Decoder;

fn decode(bytes: &[u8], piece: usize) -> (Vec<u8>, State) {
    let (mut decoder, mut payload) = (Decoder::default(), Vec::new());
    for piece in bytes.chunks(piece.max(1)) {
        let (mut piece, size) = (piece.to_vec(), piece.len());
        let range = decoder.code(&mut piece, 0..size);
        payload.extend_from_slice(&piece[range]);
    }
    (payload, decoder.state())
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    assert_eq!(decode(bytes, size.into()), decode(bytes, bytes.len()));
});
