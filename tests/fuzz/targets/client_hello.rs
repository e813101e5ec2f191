//! A ClientHello, whole and in pieces, and what is read from it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::proto::client_hello::{ClientHello, HelloReader, Progress};
use ringgate::proto::obfs::ObfsHello;

fn read(bytes: &[u8], piece: usize) -> (Progress, Vec<u8>, Option<usize>) {
    let mut reader = HelloReader::default();
    for piece in bytes.chunks(piece.max(1)) {
        match reader.advance(piece) {
            Progress::Incomplete => {}
            Progress::Complete => {
                return (Progress::Complete, reader.message().to_vec(), reader.whole_record());
            }
            Progress::Refused => return (Progress::Refused, Vec::new(), None),
        }
    }
    (Progress::Incomplete, Vec::new(), None)
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    let (progress, message, whole) = read(bytes, size.into());
    assert_eq!((progress, message.clone(), whole), read(bytes, bytes.len()));
    assert!(whole.is_none_or(|length| length <= bytes.len()));
    // The message alone, too: most bytes are no record.
    for message in [&message[..], bytes] {
        if let Some(hello) = ClientHello::parse(message) {
            let _ = hello.offers(b"h2");
            assert!(hello.server_name.is_none_or(|name| !name.is_empty()));
        }
        if let Some(obfs) = ObfsHello::parse(message) {
            assert!(!obfs.payload.is_empty());
        }
    }
});
