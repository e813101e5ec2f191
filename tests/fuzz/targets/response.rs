//! The head of an upstream's answer: where it ends, and from which byte on it cannot be one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::proto::http::{
    Body, HeadScan, RequestKind, Scan, may_begin_response, parse_response,
};

/// What comes of bytes that arrive in pieces. None: it is refused, at its end or before.
fn read(bytes: &[u8], piece: usize) -> Option<(usize, usize)> {
    let mut scan = HeadScan::default();
    let mut arrived = 0;
    loop {
        arrived = (arrived + piece.max(1)).min(bytes.len());
        match scan.advance(&bytes[..arrived]) {
            Scan::Incomplete if !may_begin_response(&bytes[scan.start()..arrived]) => return None,
            Scan::Incomplete if arrived < bytes.len() => {}
            Scan::Complete { start, end } => {
                return parse_response(&bytes[start..end], RequestKind::Upgrade)
                    .map(|_| (start, end));
            }
            _ => return None,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    let found = read(bytes, size.into());
    assert_eq!(found, read(bytes, bytes.len()));
    let Some((start, end)) = found else { return };
    let parse = |kind| parse_response(&bytes[start..end], kind);
    let response = parse(RequestKind::Upgrade).expect("it was good a moment ago");
    assert!((100..=999).contains(&response.status));
    // A 101 that is enough for every route is enough for an obfs-server's.
    assert!(!response.switches_to_websocket(false) || response.switches_to_websocket(true));
    // The request decides about the body and about a 101, and about nothing else.
    let (plain, head) = (parse(RequestKind::Other), parse(RequestKind::Head));
    assert!((response.status == 101) == plain.is_none() && plain.is_none() == head.is_none());
    if let (Some(plain), Some(head)) = (plain, head) {
        assert_eq!(plain, response);
        assert_eq!((head.body, head.length), (Body::NONE, plain.length));
        assert!(plain.body != Body::UntilClose || !plain.is_persistent);
    }
});
