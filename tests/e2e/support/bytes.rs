//! Bytes that look random and that every side can make again.

use std::hash::{DefaultHasher, Hasher};

/// `length` bytes; the same seed gives the same bytes, a shorter length a prefix of them.
pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    fill(seed, 0, &mut out);
    out
}

/// What [`bytes`] has from `offset` on, a multiple of 8.
pub(crate) fn fill(seed: u64, offset: usize, out: &mut [u8]) {
    assert_eq!(offset % 8, 0, "the stream is made of 8-byte words");
    for (index, word) in out.chunks_mut(8).enumerate() {
        // SplitMix64: every word depends on its position alone, so any part can be made by itself.
        let mut z = seed.wrapping_add((offset / 8 + index) as u64 + 1);
        z = z.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..word.len()]);
    }
}

/// A checksum that sees order, loss and change.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
