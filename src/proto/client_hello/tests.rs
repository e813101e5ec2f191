//! Names and protocols in a ClientHello, and malformed ones.

use super::*;
use proptest::prelude::*;

fn vector16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes(), content].concat()
}

fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![3, 3];
    out.extend_from_slice(&[9; 32]);
    out.extend_from_slice(&[0, 0, 2, 0x13, 0x01, 1, 0]);
    let body = |(kind, body): &(u16, Vec<u8>)| [&kind.to_be_bytes()[..], &vector16(body)].concat();
    out.extend(vector16(&extensions.iter().map(body).collect::<Vec<_>>().concat()));
    out
}

fn named(name: &str) -> (u16, Vec<u8>) {
    (0, vector16(&[&[0], &vector16(name.as_bytes())[..]].concat()))
}

fn offering(protocols: &[&str]) -> (u16, Vec<u8>) {
    let one = |protocol: &&str| [&[protocol.len() as u8], protocol.as_bytes()].concat();
    (16, vector16(&protocols.iter().map(one).collect::<Vec<_>>().concat()))
}

#[test]
fn name_and_protocols_are_found_wherever_they_stand() {
    let ticket = (35, vec![1; 3000]);
    let message = hello(&[ticket, named("Cdn.Example.com."), offering(&["h2", "http/1.1"])]);
    let hello = ClientHello::parse(&message).unwrap();
    assert_eq!(hello.server_name, Some("Cdn.Example.com"));
    assert!(hello.offers(b"h2") && hello.offers(b"http/1.1"));
    assert!(!hello.offers(b"http/1") && !hello.offers(b"h2http/1.1"));
}

#[test]
fn without_extensions_there_is_no_name() {
    let mut message = hello(&[]);
    assert_eq!(ClientHello::parse(&message), Some(ClientHello::default()));
    message.truncate(message.len() - 2);
    assert_eq!(ClientHello::parse(&message), Some(ClientHello::default()));
}

#[test]
fn malformed_hellos_are_none() {
    for (extensions, why) in [
        (vec![named("a"), named("a")], "two names"),
        (vec![named("")], "an empty name"),
        (vec![named("a b")], "a space in the name"),
        (vec![offering(&[""])], "an empty protocol"),
        (vec![(0, vec![0, 9, 0])], "a list that is longer than it is"),
    ] {
        assert_eq!(ClientHello::parse(&hello(&extensions)), None, "{why}");
    }
    let mut longer = hello(&[named("a")]);
    longer.push(0);
    assert_eq!(ClientHello::parse(&longer), None, "a byte too many");
    for end in 0..hello(&[named("a")]).len() {
        let cut = &hello(&[named("a")])[..end];
        let read = ClientHello::parse(cut);
        assert!(read.is_none_or(|read| read.server_name.is_none()), "cut at {end}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        at in 0usize..100,
        byte: u8,
    ) {
        let _ = ClientHello::parse(&bytes);
        let mut near = hello(&[named("a.example"), offering(&["h2"])]);
        if at < near.len() {
            near[at] = byte;
        }
        if let Some(hello) = ClientHello::parse(&near) {
            let _ = hello.offers(b"h2");
        }
    }
}
