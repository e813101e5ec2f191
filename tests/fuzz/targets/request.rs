//! A request head: where it ends, and what it asks for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::proto::http::{
    HeadScan, Scan, has_dot_segment, parse_request, write_websocket_alone,
};
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
    has_dot_segment(request.path);
    if request.is_upgrade {
        // What is forwarded is the same request for an upgrade to websocket alone.
        let mut forwarded = Vec::new();
        write_websocket_alone(&bytes[start..end], &mut forwarded);
        let again = parse_request(&forwarded, 100).expect("still a request");
        assert!(again.is_upgrade && again.names_websocket_alone);
        assert_eq!((again.target, again.body), (request.target, request.body));
    }
    if let Some(handshake) = request.handshake {
        assert!(request.is_upgrade && request.names_websocket_alone);
        if let Handshake::WebSocket { early_data: Some(text), .. } = handshake {
            assert!(early_data(text).is_some());
        }
    }
});
