//! Records of a simple-obfs client, whole and in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::proto::obfs::Decoder;

fn decode(bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let (mut decoder, mut payload) = (Decoder::default(), Vec::new());
    for piece in bytes.chunks(piece.max(1)) {
        let mut piece = piece.to_vec();
        let count = decoder.decode(&mut piece);
        payload.extend_from_slice(&piece[..count]);
    }
    (payload, decoder.is_over())
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    assert_eq!(decode(bytes, size.into()), decode(bytes, bytes.len()));
});
