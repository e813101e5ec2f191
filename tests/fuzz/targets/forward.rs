//! Heads that are passed on. What is written must be one message that can be read in one way, with
//! the framing that was asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::proto::http::forward::{
    Client, Framing, Request, Response, Rules, write_request, write_response,
};
use ringgate::proto::http::response_head::Persistence;
use ringgate::proto::http::{
    Body, Fields, HeadScan, Hop, RequestKind, Scan, parse_request, parse_response,
};

const MAX_HEADERS: usize = 256;
/// More fields than these are not added.
const ADDED: usize = 9;
const RULES: [Rules<'_, &str, &str>; 1] =
    [Rules { set: &[("x-set", "a"), ("content-length", "1")], remove: &["cookie", "host"] }];

fn is(name: &[u8], lower: &str) -> bool {
    name.eq_ignore_ascii_case(lower.as_bytes())
}

/// The parts that no message may have after it was passed on.
fn check(head: &[u8]) {
    assert_eq!(HeadScan::default().advance(head), Scan::Complete { start: 0, end: head.len() });
    for (name, _) in Fields::of(head) {
        let dropped = ["te", "trailer", "keep-alive", "proxy-connection", "cookie", "upgrade"];
        assert!(!dropped.iter().any(|lower| is(name, lower)));
    }
}

fn request(head: &[u8], hop: &Hop<'_>, flags: u8, framing: Framing, keeps_expect: bool) {
    let request = Request {
        hop,
        target: b"/c",
        host: b"backend",
        client: Client {
            address: "192.0.2.1",
            scheme: "https",
            host: b"site",
            request_id: "0123abcd",
            is_trusted: flags & 1 != 0,
        },
        rules: &RULES,
        framing,
        keeps_expect,
        max_forwards: (flags & 32 != 0).then_some(u64::from(flags)),
        is_upgrade: false,
    };
    let mut out = Vec::new();
    write_request(head, &request, &mut out);
    check(&out);
    let again = parse_request(&out, MAX_HEADERS).expect("still a request");
    let body = match framing {
        Framing::None => Body::NONE,
        Framing::Length(length) => Body::Length(length),
        Framing::Chunked => Body::CHUNKED,
    };
    assert_eq!((again.host, again.path, again.body), ("backend", "/c", body));
    assert!(again.is_persistent && Fields::of(&out).all(|(name, _)| !name.contains(&b'_')));
}

fn response(head: &[u8], hop: &Hop<'_>, flags: u8, framing: Framing) {
    let response = Response { hop, rules: &RULES, framing, date: Some(b"now") };
    let persistence = if flags & 1 != 0 { Persistence::Close } else { Persistence::Persistent };
    let mut out = Vec::new();
    write_response(head, &response, persistence, false, &mut out);
    check(&out);
    let old = parse_response(head, RequestKind::Head).expect("it was good a moment ago");
    let again = parse_response(&out, RequestKind::Head).expect("still a response");
    let length = if let Framing::Length(length) = framing { Some(length) } else { None };
    assert_eq!((again.status, again.length), (old.status, length));
}

fuzz_target!(|data: &[u8]| {
    let Some((&flags, head)) = data.split_first() else { return };
    let scan = HeadScan::default().advance(head);
    let Scan::Complete { start: 0, end } = scan else { return };
    let head = &head[..end];
    let framing = match flags >> 2 & 3 {
        0 => Framing::None,
        1 => Framing::Chunked,
        _ => Framing::Length(u64::from(flags)),
    };
    let Some(hop) = Hop::of(head) else { return };
    if let Ok(parsed) = parse_request(head, MAX_HEADERS - ADDED) {
        // In HTTP/1.0 there are no expectations, so that none of them may go on.
        request(head, &hop, flags, framing, flags & 2 != 0 && parsed.expects_continue);
    }
    // A head without a body has no framing.
    if let Some(parsed) = parse_response(head, RequestKind::Head)
        && parsed.status >= 200
        && Fields::of(head).count() < MAX_HEADERS - ADDED
    {
        response(head, &hop, flags, framing);
    }
});
