//! Payload masking (RFC 6455 section 5.3).

/// The masking key, rotated so that its first byte applies to the next byte of payload.
#[derive(Clone, Copy, Default)]
pub(super) struct Mask([u8; 4]);

impl Mask {
    pub(super) fn new(key: [u8; 4]) -> Mask {
        Mask(key)
    }

    /// Masks or unmasks the next bytes of payload.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        // The compiler vectorises a loop over blocks of a fixed size.
        const BLOCK: usize = 64;
        let mut wide = [0; BLOCK];
        wide.chunks_exact_mut(4).for_each(|chunk| chunk.copy_from_slice(&self.0));
        let mut blocks = bytes.chunks_exact_mut(BLOCK);
        for block in &mut blocks {
            block.iter_mut().zip(&wide).for_each(|(byte, mask)| *byte ^= mask);
        }
        let rest = blocks.into_remainder();
        rest.iter_mut().zip(&wide).for_each(|(byte, mask)| *byte ^= mask);
        self.0.rotate_left(rest.len() % 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cuts_do_not_show(
            key: [u8; 4],
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cuts in proptest::collection::vec(0usize..100, 0..10),
        ) {
            let expected: Vec<u8> =
                bytes.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
            let (mut masked, mut mask, mut at) = (bytes, Mask::new(key), 0);
            for cut in cuts {
                let end = (at + cut).min(masked.len());
                mask.apply(&mut masked[at..end]);
                at = end;
            }
            mask.apply(&mut masked[at..]);
            prop_assert_eq!(masked, expected);
        }
    }
}
