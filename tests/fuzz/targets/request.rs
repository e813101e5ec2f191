//! A request head: where it ends, and what it asks for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::proto::http::{HeadScan, Scan, parse_request};
use ringgate::proto::websocket::{Handshake, early_data};

fn scan(bytes: &[u8], piece: usize) -> Scan {
    let mut scan = HeadScan::default();
    let mut end = 0;
    loop {
        end = (end + piece.max(1)).min(bytes.len());
        match scan.advance(&bytes[..end]) {
            Scan::Incomplete if end < bytes.len() => {}
            found => return found,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    let found = scan(bytes, size.into());
    assert_eq!(found, scan(bytes, bytes.len()));
    let Scan::Complete { start, end } = found else { return };
    let Ok(request) = parse_request(&bytes[start..end], 100) else { return };
    if let Some(handshake) = request.handshake {
        assert!(request.upgrade);
        if let Handshake::WebSocket { early_data: Some(text), .. } = handshake {
            assert!(early_data(text).is_some());
        }
    }
});
