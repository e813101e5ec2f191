//! ClientHellos made of what a test wants in them.

fn vector16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes(), content].concat()
}

/// A ClientHello in one record, with so many more bytes in an unknown extension.
pub(crate) fn client_hello(name: Option<&str>, protocols: &[&str], more: usize) -> Vec<u8> {
    let mut extensions = [&[0xfa, 0xfa][..], &vector16(&vec![0; more])].concat();
    if let Some(name) = name {
        let entry = [&[0][..], &vector16(name.as_bytes())].concat();
        extensions.extend([&[0, 0][..], &vector16(&vector16(&entry))].concat());
    }
    if !protocols.is_empty() {
        let one = |name: &&str| [&[name.len() as u8], name.as_bytes()].concat();
        let list = protocols.iter().map(one).collect::<Vec<_>>().concat();
        extensions.extend([&[0, 16][..], &vector16(&vector16(&list))].concat());
    }
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &vector16(&extensions)].concat();
    let length = (body.len() as u32).to_be_bytes();
    in_record(&[&[1], &length[1..], &body].concat())
}

/// The content of a handshake record, with its header (RFC 8446 section 5.1).
pub(crate) fn in_record(content: &[u8]) -> Vec<u8> {
    [&[0x16, 3, 1][..], &vector16(content)].concat()
}

/// The ClientHello of a simple-obfs 0.0.5 client in tls mode, with its first payload.
pub(crate) fn obfs_hello(name: &str, payload: &[u8]) -> Vec<u8> {
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes(), &vector16(body)[..]].concat();
    let entry = [&[0][..], &vector16(name.as_bytes())].concat();
    let mut extensions = [extension(0x23, payload), extension(0, &vector16(&entry))].concat();
    for (kind, length) in [(11, 4), (10, 10), (13, 32), (22, 0), (23, 0)] {
        extensions.extend(extension(kind, &vec![0; length]));
    }
    let session = [&[32][..], &[9; 32]].concat();
    let suites = vector16(&[0xc0; 56]);
    let body = [&[3, 3][..], &[7; 32], &session, &suites, &[1, 0], &vector16(&extensions)].concat();
    let length = (body.len() as u32).to_be_bytes();
    in_record(&[&[1], &length[1..], &body].concat())
}
