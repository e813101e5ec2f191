//! A chunked body, whole and in pieces: where it ends, its payload, and its canonical form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::proto::codec::{Codec, State};
use ringgate::proto::http::{Body, BodyEnd, Dechunk, Enchunk, Rechunk};

/// The output, the state, and the number of bytes before the end of the body.
fn code(codec: &mut dyn Codec, bytes: &[u8], piece: usize) -> (Vec<u8>, State, usize) {
    let (mut output, mut used) = (Vec::new(), 0);
    for piece in bytes.chunks(piece.max(1)) {
        let headroom = codec.headroom(piece.len());
        let mut buffer = [&vec![0; headroom], piece].concat();
        let end = buffer.len();
        let range = codec.code(&mut buffer, headroom..end);
        assert!(range.end <= end - codec.unused());
        assert!(buffer.ends_with(&piece[piece.len() - codec.unused()..]));
        output.extend_from_slice(&buffer[range]);
        used += piece.len() - codec.unused();
    }
    (output, codec.state(), used)
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    let (size, all) = (usize::from(size), bytes.len());
    let payload = code(&mut Dechunk::default(), bytes, all);
    let chunks = code(&mut Rechunk::default(), bytes, all);
    assert_eq!(code(&mut Dechunk::default(), bytes, size), payload);
    assert_eq!(code(&mut Rechunk::default(), bytes, size), chunks);
    assert_eq!((payload.1, payload.2), (chunks.1, chunks.2));
    let end = match Body::CHUNKED.clone().follow(bytes) {
        BodyEnd::NotYet => (State::Open, all),
        BodyEnd::At(end) => (State::Ended, end),
        BodyEnd::Malformed => (State::Broken, all),
    };
    assert_eq!((payload.1, payload.2), end);

    // What is passed on is valid as far as it goes, is canonical, and has the same payload.
    let is_ended = chunks.1 == State::Ended;
    let state = if is_ended { State::Ended } else { State::Open };
    let length = chunks.0.len();
    let again = code(&mut Rechunk::default(), &chunks.0, size);
    assert_eq!(again, (chunks.0.clone(), state, length));
    assert_eq!(code(&mut Dechunk::default(), &chunks.0, size), (payload.0, state, length));

    // Any bytes are a payload.
    let mut encoder = Enchunk::default();
    let (mut made, _, _) = code(&mut encoder, bytes, size);
    made.extend_from_slice(encoder.finish());
    let length = made.len();
    assert_eq!(code(&mut Dechunk::default(), &made, 7), (bytes.to_vec(), State::Ended, length));
    assert_eq!(code(&mut Rechunk::default(), &made, size).0, made);
});
