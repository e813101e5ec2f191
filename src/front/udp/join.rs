//! Joins datagrams that one call can send: of one length, to one receiver, in a row.

use crate::sys::{MAX_PAYLOAD, MAX_SEGMENTS};

/// Sends items in order and joins those that one call can send. Each item has a receiver, bytes and
/// a segment length: its datagrams have that length, and the last may be shorter. `joined` is a
/// scratch buffer.
pub(super) fn send_joined<'b, K: PartialEq>(
    items: impl Iterator<Item = (K, &'b [u8], usize)>,
    joined: &mut Vec<u8>,
    mut send: impl FnMut(K, &[u8], usize),
) {
    joined.clear();
    let mut run: Option<(K, &[u8], usize)> = None;
    for (to, bytes, segment) in items {
        if let Some((first_to, first, length)) = run.take() {
            // A single item is sent in place; items are copied only to join them.
            let so_far = if joined.is_empty() { first.len() } else { joined.len() };
            if first_to == to && can_join(so_far, length, bytes.len(), segment) {
                if joined.is_empty() {
                    joined.extend_from_slice(first);
                }
                joined.extend_from_slice(bytes);
                run = Some((first_to, first, length));
                continue;
            }
            send(first_to, if joined.is_empty() { first } else { joined }, length);
            joined.clear();
        }
        run = Some((to, bytes, segment));
    }
    if let Some((to, first, length)) = run {
        send(to, if joined.is_empty() { first } else { joined }, length);
    }
}

/// Returns true when datagrams can follow others in one call: the earlier ones are whole, and the
/// later ones have the same length or are a single shorter one.
fn can_join(so_far: usize, length: usize, bytes: usize, segment: usize) -> bool {
    let is_length_allowed = segment == length || (bytes < length && segment == bytes);
    let is_whole = length > 0 && so_far.is_multiple_of(length);
    let total = so_far + bytes;
    bytes > 0
        && is_length_allowed
        && is_whole
        && total <= MAX_PAYLOAD
        && total.div_ceil(length) <= MAX_SEGMENTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The datagrams that are sent, and the number of calls.
    fn sent(items: &[(char, Vec<u8>, usize)]) -> (Vec<(char, Vec<u8>)>, usize) {
        let (mut datagrams, mut calls, mut joined) = (Vec::new(), 0, Vec::new());
        let items = items.iter().map(|(to, bytes, segment)| (*to, &bytes[..], *segment));
        send_joined(items, &mut joined, |to, bytes, segment| {
            calls += 1;
            assert!(bytes.len() <= MAX_PAYLOAD);
            match bytes {
                [] => datagrams.push((to, Vec::new())),
                bytes => datagrams.extend(bytes.chunks(segment).map(|one| (to, one.to_vec()))),
            }
        });
        (datagrams, calls)
    }

    fn one(to: char, length: usize) -> (char, Vec<u8>, usize) {
        (to, vec![to as u8; length], length)
    }

    #[test]
    fn those_of_one_length_share_a_call() {
        assert_eq!(sent(&[one('a', 5), one('a', 5), one('a', 5)]).1, 1);
        assert_eq!(sent(&[one('a', 5), one('a', 5), one('a', 3), one('a', 5)]).1, 2);
        assert_eq!(sent(&[one('a', 5), one('a', 6)]).1, 2);
        assert_eq!(sent(&[one('a', 5), one('b', 5), one('a', 5)]).1, 3);
        assert_eq!(sent(&[one('a', 0), one('a', 0), one('a', 5)]).1, 3);
        assert_eq!(sent(&[one('a', 40_000), one('a', 40_000)]).1, 2);
        assert_eq!(sent(&vec![one('a', 100); 130]).1, 3, "64 segments at most");
        assert_eq!(sent(&[one('a', 5), ('a', vec![1; 4], 2)]).1, 2, "two that are shorter");
        let several = ('a', vec![1; 12], 5);
        assert_eq!(sent(&[one('a', 5), several.clone()]).1, 1);
        assert_eq!(sent(&[several, one('a', 5)]).1, 2, "the last one of several is shorter");
    }

    proptest! {
        #[test]
        fn nothing_is_changed_by_it(
            items in proptest::collection::vec(
                (prop_oneof![Just('a'), Just('b')], 0usize..4, 1usize..4, 0usize..3), 0..40),
        ) {
            let mut expected = Vec::new();
            let items: Vec<(char, Vec<u8>, usize)> = items
                .into_iter()
                .enumerate()
                .map(|(index, (to, length, count, last))| {
                    let last = last.min(length);
                    let bytes = vec![index as u8; length * count - last];
                    match length {
                        0 => expected.push((to, Vec::new())),
                        _ if bytes.is_empty() => expected.push((to, Vec::new())),
                        _ => expected.extend(bytes.chunks(length).map(|one| (to, one.to_vec()))),
                    }
                    let segment = length.min(bytes.len());
                    (to, bytes, segment)
                })
                .collect();
            prop_assert_eq!(sent(&items).0, expected);
        }
    }
}
