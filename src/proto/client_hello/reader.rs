//! Reassembles a ClientHello from the TLS records that carry it.

use super::{CLIENT_HELLO, HANDSHAKE, MAX_RECORD, RECORD_HEADER};

/// The largest ClientHello that is accepted, including its four-byte message header. Post-quantum
/// key shares bring it to 2 KiB; no known client sends more than this limit.
const MAX_HELLO: usize = 16 * 1024;

/// Length of the header of a handshake message: type and length.
const MESSAGE_HEADER: usize = 4;

/// Consumes the client's bytes as they arrive. Each byte is given to it once.
#[derive(Default)]
pub struct HelloReader {
    header: [u8; RECORD_HEADER],
    filled: usize,
    /// Bytes of the current record that are still missing.
    left: usize,
    /// The content of the records so far: the message header and the message.
    message: Vec<u8>,
    records: usize,
    /// Bytes consumed so far, record headers included.
    taken: usize,
}

/// The state of the reader after a call of [`HelloReader::advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The bytes so far are the beginning of a ClientHello.
    Incomplete,
    /// A ClientHello is complete: see [`HelloReader::message`].
    Complete,
    /// The bytes are something else, or exceed a limit.
    Refused,
}

impl HelloReader {
    /// Consumes the next bytes. Bytes after the ClientHello are ignored.
    pub fn advance(&mut self, bytes: &[u8]) -> Progress {
        let before = self.taken;
        let mut at = 0;
        while at < bytes.len() {
            if self.left == 0 {
                // A record header may arrive in pieces, so each byte of it is checked on its own.
                self.header[self.filled] = bytes[at];
                (self.filled, at) = (self.filled + 1, at + 1);
                if !self.begins_record() {
                    return Progress::Refused;
                }
                if self.filled == RECORD_HEADER {
                    self.filled = 0;
                    self.left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                }
            } else {
                let count = self.left.min(bytes.len() - at);
                self.message.extend_from_slice(&bytes[at..at + count]);
                (self.left, at) = (self.left - count, at + count);
                self.taken = before + at;
                match self.judge() {
                    Progress::Incomplete => {}
                    progress => return progress,
                }
            }
        }
        self.taken = before + at;
        Progress::Incomplete
    }

    /// The number of bytes consumed, if the ClientHello is the only content of one record. `None`
    /// if it is spread over several records or shares its record with other bytes.
    pub fn whole_record(&self) -> Option<usize> {
        let whole = self.records == 1 && Some(self.message.len()) == self.expected();
        (whole && self.left == 0).then_some(self.taken)
    }

    /// The ClientHello without its message header.
    pub fn message(&self) -> &[u8] {
        self.message.get(MESSAGE_HEADER..self.expected().unwrap_or(0)).unwrap_or_default()
    }

    /// Returns true when the part of the record header that has arrived belongs to a handshake
    /// record. The major version is always 3 (RFC 8446 section 5.1). A record must not be empty or
    /// too long, and their number is limited, so that a client cannot send a record for each byte.
    fn begins_record(&mut self) -> bool {
        match self.filled {
            1 => self.header[0] == HANDSHAKE,
            2 => self.header[1] == 3,
            RECORD_HEADER => {
                self.records += 1;
                let length = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                (1..=MAX_RECORD).contains(&length) && self.records <= 1024
            }
            _ => true,
        }
    }

    fn judge(&self) -> Progress {
        if self.message[0] != CLIENT_HELLO {
            return Progress::Refused;
        }
        match self.expected() {
            Some(expected) if expected > MAX_HELLO => Progress::Refused,
            Some(expected) if self.message.len() >= expected => Progress::Complete,
            _ => Progress::Incomplete,
        }
    }

    /// The length of message header and message together. `None` while the header is incomplete.
    fn expected(&self) -> Option<usize> {
        let [_, high, middle, low] = self.message.first_chunk::<MESSAGE_HEADER>()?;
        let length = u32::from_be_bytes([0, *high, *middle, *low]);
        Some(MESSAGE_HEADER + length as usize)
    }
}

#[cfg(test)]
mod tests {
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
}
