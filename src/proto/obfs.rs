//! simple-obfs in its tls mode. It encrypts nothing; its bytes only resemble a TLS 1.2 connection.
//!
//! The client's first payload is the session ticket of a ClientHello. The server's first payload
//! follows a ServerHello and a ChangeCipherSpec, in the place of the encrypted Finished. After that
//! both sides send records of application data. Encoding and decoding happen in the caller's
//! buffer.

use std::ops::Range;

use super::client_hello::{Bytes, HANDSHAKE, MAX_RECORD, RECORD_HEADER, extension};
use super::codec::{Codec, State};

const CHANGE_CIPHER_SPEC: u8 = 0x14;
const APPLICATION_DATA: u8 = 0x17;

/// Length of a session id.
const SESSION_ID: usize = 32;

/// The extensions after the server name, each with the length of its body.
const TAIL: [(u16, usize); 5] = [(11, 4), (10, 10), (13, 32), (22, 0), (23, 0)];

/// The ClientHello of a simple-obfs client, borrowed from its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObfsHello<'a> {
    /// The session id, which the ServerHello repeats.
    pub session_id: &'a [u8; SESSION_ID],
    /// The first payload; never empty.
    pub payload: &'a [u8],
}

impl<'a> ObfsHello<'a> {
    /// Recognises the ClientHello of simple-obfs. Returns `None` for a real one. A simple-obfs
    /// ClientHello has 28 cipher suites, a fixed order of extensions with the ticket before the
    /// server name, and no bytes after them.
    pub fn parse(message: &'a [u8]) -> Option<ObfsHello<'a>> {
        let mut rest = Bytes(message);
        let version = rest.take(2)?;
        rest.take(32)?;
        let session_id = rest.vector8()?.first_chunk::<SESSION_ID>()?;
        let suites = rest.vector16()?;
        let compression = rest.vector8()?;
        if version != [3, 3] || suites.len() != 56 || compression != [0] {
            return None;
        }
        let mut extensions = Bytes(rest.vector16()?);
        let mut next = |kind| if extensions.u16()? == kind { extensions.vector16() } else { None };
        let payload = next(extension::SESSION_TICKET)?;
        next(extension::SERVER_NAME)?;
        for (kind, length) in TAIL {
            next(kind).filter(|body| body.len() == length)?;
        }
        let whole = extensions.0.is_empty() && rest.0.is_empty() && !payload.is_empty();
        whole.then_some(ObfsHello { session_id, payload })
    }
}

/// Extracts the payload from records of application data.
#[derive(Default)]
pub struct Decoder {
    header: [u8; RECORD_HEADER],
    filled: usize,
    /// Bytes of the current record that are still missing.
    left: usize,
    /// `Broken` after a header that is not one of application data. The protocol has no end.
    state: State,
}

impl Codec for Decoder {
    fn code(&mut self, buffer: &mut [u8], input: Range<usize>) -> Range<usize> {
        let (mut read, mut written) = (input.start, input.start);
        while read < input.end && self.state == State::Open {
            if self.left > 0 {
                let count = self.left.min(input.end - read);
                buffer.copy_within(read..read + count, written);
                (read, written, self.left) = (read + count, written + count, self.left - count);
            } else {
                self.header[self.filled] = buffer[read];
                (self.filled, read) = (self.filled + 1, read + 1);
                if self.filled == RECORD_HEADER {
                    self.filled = 0;
                    let [kind, major, _, high, low] = self.header;
                    if (kind, major) != (APPLICATION_DATA, 3) {
                        self.state = State::Broken;
                    }
                    self.left = usize::from(u16::from_be_bytes([high, low]));
                }
            }
        }
        input.start..written
    }

    fn state(&self) -> State {
        self.state
    }
}

/// Length of the ServerHello record and the ChangeCipherSpec record, which precede the first
/// payload.
const FLIGHT: usize = 96 + 6;

/// Puts the bytes for a client into records.
pub struct Encoder {
    /// The records that precede the first payload. `None` once they have been sent.
    flight: Option<[u8; FLIGHT]>,
}

impl Encoder {
    /// Prepares the reply to a ClientHello with this session id. `time` (Unix time in seconds) and
    /// `random` fill the random field of the ServerHello.
    pub fn new(session_id: &[u8; SESSION_ID], time: u32, random: &[u8; 28]) -> Encoder {
        let mut flight = [0; FLIGHT];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            flight[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        // The header of the record, the header of the ServerHello, and its version.
        put(&[HANDSHAKE, 3, 1, 0, 0x5b, 2, 0, 0, 0x57, 3, 3]);
        put(&time.to_be_bytes());
        put(random);
        put(&[SESSION_ID as u8]);
        put(session_id);
        // One cipher suite and no compression. The length of the extensions is 0 although
        // extensions follow; simple-obfs sends it so.
        put(&[0xcc, 0xa8, 0, 0, 0, 0xff, 1, 0, 1, 0, 0, 0x17, 0, 0, 0, 0x0b, 0, 2, 1, 0]);
        put(&[CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1]);
        Encoder { flight: Some(flight) }
    }
}

impl Codec for Encoder {
    fn headroom(&self, size: usize) -> usize {
        FLIGHT + (size / MAX_RECORD + 1) * RECORD_HEADER
    }

    fn code(&mut self, buffer: &mut [u8], input: Range<usize>) -> Range<usize> {
        let flight = self.flight.take();
        let headers = input.len().div_ceil(MAX_RECORD) * RECORD_HEADER;
        let start = input.start - headers - flight.as_ref().map_or(0, |flight| flight.len());
        let (mut from, mut to) = (input.start, start);
        let mut kind = APPLICATION_DATA;
        if let Some(flight) = flight {
            // The first payload follows as the encrypted Finished, which is a handshake record.
            buffer[to..to + FLIGHT].copy_from_slice(&flight);
            (kind, to) = (HANDSHAKE, to + FLIGHT);
        }
        while from < input.end {
            let count = MAX_RECORD.min(input.end - from);
            buffer[to..to + 3].copy_from_slice(&[kind, 3, 3]);
            // The cast is safe: a record is shorter than 64 KiB.
            buffer[to + 3..to + RECORD_HEADER].copy_from_slice(&(count as u16).to_be_bytes());
            to += RECORD_HEADER;
            // Every payload moves by the headers that follow it. The last one stays in its place.
            if to < from {
                buffer.copy_within(from..from + count, to);
            }
            (from, to) = (from + count, to + count);
            kind = APPLICATION_DATA;
        }
        start..to
    }

    fn state(&self) -> State {
        State::Open
    }
}

#[cfg(test)]
mod tests {
    use super::super::client_hello::{ClientHello, HelloReader, Progress};
    use super::*;
    use proptest::prelude::*;

    /// A ClientHello as simple-obfs 0.0.5 sends it, record header included.
    fn client_hello(host: &str, payload: &[u8]) -> Vec<u8> {
        let (host_length, length) = (host.len() as u16, payload.len() as u16);
        let extensions = 79 + host_length + length;
        let total = 217 + host_length + length;
        let mut out = vec![0x16, 3, 1];
        out.extend((total - 5).to_be_bytes());
        out.extend([1, 0]);
        out.extend((total - 9).to_be_bytes());
        out.extend([3, 3]);
        out.extend([0x55; 32]);
        out.push(0x20);
        out.extend(0..32);
        out.extend([0, 0x38]);
        out.extend([0xc0; 56]);
        out.extend([1, 0]);
        out.extend(extensions.to_be_bytes());
        out.extend([0, 0x23]);
        out.extend(length.to_be_bytes());
        out.extend(payload);
        out.extend([0, 0]);
        out.extend((host_length + 5).to_be_bytes());
        out.extend((host_length + 3).to_be_bytes());
        out.push(0);
        out.extend(host_length.to_be_bytes());
        out.extend(host.as_bytes());
        out.extend([0, 0x0b, 0, 4, 3, 1, 0, 2]);
        out.extend([0, 0x0a, 0, 10, 0, 8, 0, 0x1d, 0, 0x17, 0, 0x19, 0, 0x18]);
        out.extend([0, 0x0d, 0, 0x20, 0, 0x1e]);
        out.extend([6; 30]);
        out.extend([0, 0x16, 0, 0, 0, 0x17, 0, 0]);
        assert_eq!(out.len(), usize::from(total));
        out
    }

    fn message(bytes: &[u8]) -> Vec<u8> {
        let mut reader = HelloReader::default();
        assert_eq!(reader.advance(bytes), Progress::Complete);
        reader.message().to_vec()
    }

    #[test]
    fn its_hello_has_a_name_and_the_first_payload() {
        let payload = vec![0xab; 3000];
        let message = message(&client_hello("cdn.example.test", &payload));
        let hello = ObfsHello::parse(&message).unwrap();
        assert_eq!(hello.payload, payload);
        assert_eq!((hello.session_id[0], hello.session_id[31]), (0, 31));
        let name = ClientHello::parse(&message).unwrap().server_name;
        assert_eq!(name, Some("cdn.example.test"));
    }

    #[test]
    fn another_hello_is_none_of_its() {
        let whole = message(&client_hello("a.test", b"payload"));
        assert!(ObfsHello::parse(&whole).is_some());
        assert_eq!(ObfsHello::parse(&message(&client_hello("a.test", b""))), None, "no payload");
        for end in 0..whole.len() {
            assert_eq!(ObfsHello::parse(&whole[..end]), None, "cut at {end}");
        }
        for (at, why) in [
            (0, "another version"),
            (34, "another length of the session id"),
            (68, "another number of suites"),
            (125, "another compression"),
            (130, "another first extension"),
            (whole.len() - 3, "another last extension"),
        ] {
            let mut other = whole.clone();
            other[at] ^= 4;
            assert_eq!(ObfsHello::parse(&other), None, "{why}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert_eq!(ObfsHello::parse(&longer), None, "a byte too many");
    }

    /// Puts each of these payloads into a record.
    fn records(payloads: &[Vec<u8>]) -> Vec<u8> {
        let one = |payload: &Vec<u8>| {
            let length = (payload.len() as u16).to_be_bytes();
            [&[0x17, 3, 3], &length[..], payload].concat()
        };
        payloads.iter().map(one).collect::<Vec<_>>().concat()
    }

    fn decode(bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, State) {
        let (mut decoder, mut payload, mut rest) = (Decoder::default(), Vec::new(), bytes);
        for &cut in cuts.iter().chain([&bytes.len()]) {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            let mut piece = piece.to_vec();
            let whole = 0..piece.len();
            let range = decoder.code(&mut piece, whole);
            payload.extend_from_slice(&piece[range]);
            rest = behind;
        }
        (payload, decoder.state())
    }

    #[test]
    fn behind_what_is_no_record_nothing_means_anything() {
        let mut bytes = records(&[b"good".to_vec(), Vec::new(), b" so far".to_vec()]);
        assert_eq!(decode(&bytes, &[]), (b"good so far".to_vec(), State::Open));
        bytes.extend([0x15, 3, 3, 0, 2, 1, 0]);
        bytes.extend(records(&[b"no more".to_vec()]));
        assert_eq!(decode(&bytes, &[]), (b"good so far".to_vec(), State::Broken));
    }

    #[test]
    fn the_first_payload_comes_with_the_hello_and_the_rest_in_records() {
        const BUFFER: usize = 100_000;
        let session_id = std::array::from_fn(|index| index as u8);
        let mut encoder = Encoder::new(&session_id, 0x6543_2100, &[0x77; 28]);
        let headroom = encoder.headroom(BUFFER);
        let mut encode = |payload: &[u8]| {
            let mut buffer = vec![0; BUFFER];
            let input = headroom..headroom + payload.len();
            buffer[input.clone()].copy_from_slice(payload);
            let range = encoder.code(&mut buffer, input);
            buffer[range].to_vec()
        };
        let payload: Vec<u8> = (0..BUFFER - headroom).map(|index| index as u8).collect();
        let first = encode(&payload[..20_000]);
        assert_eq!(first[..15], [0x16, 3, 1, 0, 0x5b, 2, 0, 0, 0x57, 3, 3, 0x65, 0x43, 0x21, 0]);
        assert_eq!(first[15..44], [&[0x77; 28][..], &[0x20]].concat());
        assert_eq!(first[44..76], session_id);
        let rest = [0xcc, 0xa8, 0, 0, 0, 0xff, 1, 0, 1, 0, 0, 0x17, 0, 0, 0, 0x0b, 0, 2, 1, 0];
        assert_eq!(first[76..96], rest);
        assert_eq!(first[96..107], [0x14, 3, 3, 0, 1, 1, 0x16, 3, 3, 0x40, 0]);
        assert_eq!(first[107..107 + 16_384], payload[..16_384]);
        let second = &first[107 + 16_384..];
        assert_eq!(second[..5], [0x17, 3, 3, 0x0e, 0x20]);
        assert_eq!(decode(second, &[]), (payload[16_384..20_000].to_vec(), State::Open));
        assert_eq!(decode(&encode(&payload), &[]), (payload, State::Open), "as much as fits");
    }

    proptest! {
        #[test]
        fn cuts_do_not_show(
            payloads in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            noise in proptest::option::of((0usize..900, any::<u8>())),
            cuts in proptest::collection::vec(0usize..100, 0..20),
        ) {
            let mut bytes = records(&payloads);
            if let Some((at, byte)) = noise && at < bytes.len() {
                bytes[at] = byte;
            }
            prop_assert_eq!(decode(&bytes, &cuts), decode(&bytes, &[]));
        }

        #[test]
        fn a_changed_byte_never_panics(at in 0usize..250, byte: u8, end in 0usize..250) {
            let mut bytes = message(&client_hello("cdn.example.test", b"payload"));
            if at < bytes.len() {
                bytes[at] = byte;
            }
            let _ = ObfsHello::parse(&bytes);
            let _ = ObfsHello::parse(&bytes[..end.min(bytes.len())]);
        }
    }
}
