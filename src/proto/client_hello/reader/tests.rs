//! Handshakes in one record and in many, and bytes that are no handshake.

use super::*;
use proptest::prelude::*;

/// Puts a ClientHello with this content into records of these sizes. The last record holds the
/// rest.
fn in_records(content: &[u8], sizes: &[usize]) -> Vec<u8> {
    let length = u32::to_be_bytes(content.len() as u32);
    let message = [&[CLIENT_HELLO], &length[1..], content].concat();
    let (mut out, mut rest) = (Vec::new(), &message[..]);
    for &size in sizes.iter().chain([&MAX_RECORD]) {
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        rest = behind;
        if !piece.is_empty() {
            out.extend_from_slice(&[HANDSHAKE, 3, 1]);
            out.extend_from_slice(&(piece.len() as u16).to_be_bytes());
            out.extend_from_slice(piece);
        }
    }
    out
}

fn read(bytes: &[u8], cuts: &[usize]) -> (Progress, Vec<u8>) {
    let (mut reader, mut rest) = (HelloReader::default(), bytes);
    for &cut in cuts.iter().chain([&bytes.len()]) {
        let (piece, behind) = rest.split_at(cut.min(rest.len()));
        rest = behind;
        match reader.advance(piece) {
            Progress::Incomplete => {}
            Progress::Complete => return (Progress::Complete, reader.message().to_vec()),
            // How much was consumed before the refusal depends on the cuts.
            Progress::Refused => return (Progress::Refused, Vec::new()),
        }
    }
    (Progress::Incomplete, Vec::new())
}

#[test]
fn a_hello_may_be_up_to_16_kib_in_any_records() {
    let content = vec![7; MAX_HELLO - MESSAGE_HEADER];
    for sizes in [&[][..], &[1, 1, 1, 1, 1], &[4], &[16_000]] {
        let mut bytes = in_records(&content, sizes);
        bytes.extend_from_slice(b"what follows");
        assert_eq!(read(&bytes, &[]), (Progress::Complete, content.clone()), "{sizes:?}");
    }
    let larger = in_records(&vec![7; MAX_HELLO - MESSAGE_HEADER + 1], &[]);
    assert_eq!(read(&larger, &[]).0, Progress::Refused);
}

#[test]
fn what_stands_behind_a_record_of_its_own_is_known() {
    let whole_record = |bytes: &[u8], cut: usize| {
        let mut reader = HelloReader::default();
        if reader.advance(&bytes[..cut]) == Progress::Incomplete {
            assert_eq!(reader.advance(&bytes[cut..]), Progress::Complete);
        }
        reader.whole_record()
    };
    let mut bytes = in_records(&[7; 300], &[]);
    let length = bytes.len();
    bytes.extend_from_slice(b"what follows");
    for cut in 0..bytes.len() {
        assert_eq!(whole_record(&bytes, cut), Some(length), "cut at {cut}");
    }
    assert_eq!(whole_record(&in_records(&[7; 300], &[100]), 0), None, "two records");
    let mut shared = in_records(&[7; 300], &[]);
    shared[4] += 1;
    shared.push(7);
    assert_eq!(whole_record(&shared, 0), None, "more in the record");
}

#[test]
fn what_is_no_hello_is_refused_as_soon_as_it_shows() {
    for (bytes, why) in [
        (&b"GET"[..], "HTTP"),
        (&[0x16, 2], "SSL 2"),
        (&[0x17, 3], "data"),
        (&[0x16, 3, 1, 0, 0], "an empty record"),
        (&[0x16, 3, 1, 0x40, 1], "a record that is too long"),
        (&[0x16, 3, 1, 0, 10, 2], "a ServerHello"),
        (&[0x16, 3, 1, 0, 10, 1, 0, 0x40, 0], "a hello that is too long"),
    ] {
        assert_eq!(read(bytes, &[]).0, Progress::Refused, "{why}");
    }
    assert_eq!(read(&[0x16, 3, 1, 0, 10, 1, 0, 0], &[]).0, Progress::Incomplete);
    let tiny = in_records(&[7; 2000], &[1; 1100]);
    assert_eq!(read(&tiny, &[]).0, Progress::Refused, "a record for each byte");
}

proptest! {
    #[test]
    fn cuts_do_not_show(
        content in proptest::collection::vec(any::<u8>(), 0..600),
        sizes in proptest::collection::vec(1usize..200, 0..10),
        noise in proptest::option::of((0usize..700, any::<u8>())),
        cuts in proptest::collection::vec(0usize..100, 0..20),
    ) {
        let mut bytes = in_records(&content, &sizes);
        if let Some((at, byte)) = noise && at < bytes.len() {
            bytes[at] = byte;
        }
        prop_assert_eq!(read(&bytes, &cuts), read(&bytes, &[]));
    }
}
