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
    consumed: usize,
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
        let before = self.consumed;
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
                self.consumed = before + at;
                match self.progress() {
                    Progress::Incomplete => {}
                    progress => return progress,
                }
            }
        }
        self.consumed = before + at;
        Progress::Incomplete
    }

    /// The number of bytes consumed, if the ClientHello is the only content of one record. `None`
    /// if it is spread over several records or shares its record with other bytes.
    pub fn whole_record(&self) -> Option<usize> {
        let is_alone = self.records == 1 && Some(self.message.len()) == self.expected();
        (is_alone && self.left == 0).then_some(self.consumed)
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

    /// The state that follows from the message so far, of which there is at least a byte.
    fn progress(&self) -> Progress {
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
mod tests;
