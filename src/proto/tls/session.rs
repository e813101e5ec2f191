//! One TLS connection, from the ClientHello to the close.
//!
//! rustls processes at most one record of data a call, and copies its plaintext into a `Vec` of its
//! own. The session copies it back in front of the bytes that are not processed yet, so that the
//! plaintext of all records of a read is one range of the buffer.

use std::ops::Range;
use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus, WriteTraffic,
};
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig};

use super::Error;
use crate::proto::client_hello::{ClientHello, HelloReader, Progress};

/// The most plaintext in one record (RFC 8446 section 5.1).
pub const MAX_PLAINTEXT: usize = 1 << 14;
/// The most bytes that a session keeps between two reads: a record of TLS 1.3 with its header.
pub const MAX_KEPT: usize = 5 + MAX_PLAINTEXT + 256;
/// The most bytes of a handshake that are accepted from a client.
pub const MAX_HANDSHAKE: usize = 64 * 1024;

/// Plaintext of a record at the beginning: the client can decrypt it after few TCP segments.
const SMALL_RECORD: usize = 4096;
/// Plaintext that is sent in small records at the beginning of a connection.
const SMALL_UNTIL: usize = 64 * 1024;
/// What protection adds to a record at most: header, explicit nonce, tag, content type.
const OVERHEAD: usize = 5 + 8 + 16 + 1;
/// A fatal decode_error alert in plaintext (RFC 8446 section 6.2).
const DECODE_ERROR: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 50];

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The handshake is in progress.
    Handshake,
    /// Data can be received and sent.
    Open,
    /// The client has sent close_notify. Data can still be sent.
    PeerClosed,
    /// The session has failed.
    Failed(Error),
}

/// The server's side of one TLS connection.
pub struct Session {
    rustls: UnbufferedServerConnection,
    /// Reads the ClientHello before rustls does. `None` after it.
    hello: Option<Box<HelloReader>>,
    /// rustls' unbuffered API does not show the server name.
    server_name: Option<Box<str>>,
    /// Bytes of the wire that are not processed: an incomplete record or message.
    kept: Vec<u8>,
    /// Bytes of the handshake that were processed so far.
    handshake: usize,
    /// Plaintext that was sent so far in small records.
    small: usize,
    state: State,
    close_sent: bool,
}

impl Session {
    /// Makes a session that waits for a ClientHello.
    ///
    /// # Errors
    /// If rustls refuses the configuration.
    pub fn new(config: Arc<ServerConfig>) -> Result<Session, Error> {
        Ok(Session {
            rustls: UnbufferedServerConnection::new(config)?,
            hello: Some(Box::default()),
            server_name: None,
            kept: Vec::new(),
            handshake: 0,
            small: 0,
            state: State::Handshake,
            close_sent: false,
        })
    }

    /// How far the session is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns true if the end of the client's stream would cut it off: no close_notify has come.
    pub fn is_truncated_by_end(&self) -> bool {
        self.state != State::PeerClosed
    }

    /// The server name that the client has sent. Known when the ClientHello is complete.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The protocol that was agreed on (RFC 7301).
    pub fn protocol(&self) -> Option<&[u8]> {
        self.rustls.alpn_protocol()
    }

    /// The version of TLS: "1.2" or "1.3". Known when the handshake has chosen it.
    pub fn version(&self) -> Option<&'static str> {
        match self.rustls.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some("1.2"),
            ProtocolVersion::TLSv1_3 => Some("1.3"),
            _ => None,
        }
    }

    /// The name of the cipher suite. Known when the handshake has chosen it.
    pub fn suite(&self) -> Option<&'static str> {
        self.rustls.negotiated_cipher_suite()?.suite().as_str()
    }

    /// Returns true when the handshake resumes an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.rustls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Bytes that are kept between two reads.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// The number of bytes that must be free in the buffer in front of the input.
    pub fn headroom(&self) -> usize {
        self.kept.len() + MAX_PLAINTEXT
    }

    /// Processes the bytes of the wire at `input`, with [`Session::headroom`] free bytes in front
    /// of them. Returns the range of the plaintext, which replaces them. Appends to `output` what
    /// must be sent: messages of the handshake, or the alert if the session fails. After the call
    /// [`Session::state`] tells how far the session is. In a failed session nothing happens.
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        input: Range<usize>,
        output: &mut Vec<u8>,
    ) -> Range<usize> {
        let start = input.start - self.kept.len();
        let mut plaintext = start - MAX_PLAINTEXT..start - MAX_PLAINTEXT;
        if matches!(self.state, State::Failed(_) | State::PeerClosed) {
            return plaintext;
        }
        let is_complete = self.read_hello(&buffer[input.clone()]);
        buffer[start..input.start].copy_from_slice(&self.kept);
        self.kept.clear();
        let result = match is_complete {
            Ok(true) => self.process(&mut buffer[..input.end], start, &mut plaintext, output),
            Ok(false) => Ok(start),
            Err(error) => {
                output.extend_from_slice(&DECODE_ERROR);
                Err(error)
            }
        };
        let result = result.and_then(|processed| self.keep(&buffer[processed..input.end]));
        if let Err(error) = result {
            self.state = State::Failed(error);
        }
        if self.kept.is_empty() {
            // An idle session holds no buffer.
            self.kept = Vec::new();
        }
        plaintext
    }

    /// Encrypts bytes and appends the records to `output`.
    ///
    /// # Errors
    /// If the handshake is not done, the session was closed or has failed, or its keys are used up.
    pub fn encrypt(&mut self, plaintext: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        match self.state {
            State::Failed(error) => return Err(error),
            State::Handshake => return Err(Error::Misbehaved),
            State::Open | State::PeerClosed if self.close_sent => return Err(Error::Closed),
            State::Open | State::PeerClosed => {}
        }
        let small = &mut self.small;
        write(&mut self.rustls, &mut self.kept, output, |mut traffic, output| {
            let mut rest = plaintext;
            while !rest.is_empty() {
                let is_small = *small < SMALL_UNTIL;
                let most = if is_small { SMALL_RECORD } else { MAX_PLAINTEXT };
                let (record, after) = rest.split_at(most.min(rest.len()));
                encrypt_record(&mut traffic, record, output)?;
                if is_small {
                    *small += record.len();
                }
                rest = after;
            }
            Ok(())
        })
    }

    /// Appends a close_notify to `output`, once. Data can still be received.
    pub fn close(&mut self, output: &mut Vec<u8>) {
        if self.close_sent || matches!(self.state, State::Failed(_)) {
            return;
        }
        self.close_sent = true;
        // Before the end of the handshake nothing can be written, and no data is cut off.
        let _ = write(&mut self.rustls, &mut self.kept, output, |mut traffic, output| {
            let start = output.len();
            // The first call makes the alert and tells its size, the second one writes it.
            if let Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) =
                traffic.queue_close_notify(&mut [])
            {
                output.resize(start + required_size, 0);
                let written = traffic.queue_close_notify(&mut output[start..]);
                debug_assert!(matches!(written, Ok(written) if written == required_size));
            }
            Ok(())
        });
    }

    /// Reads the server name from the bytes of a ClientHello. Returns true when it is complete.
    fn read_hello(&mut self, bytes: &[u8]) -> Result<bool, Error> {
        let Some(hello) = &mut self.hello else { return Ok(true) };
        match hello.advance(bytes) {
            Progress::Incomplete => Ok(false),
            Progress::Refused => Err(Error::Hello),
            Progress::Complete => {
                let names = ClientHello::parse(hello.message()).ok_or(Error::Hello)?;
                self.server_name = names.server_name.map(Box::from);
                self.hello = None;
                Ok(true)
            }
        }
    }

    /// Lets rustls process the bytes from `at` on, until it needs more. Extends `plaintext`.
    /// Returns the end of the processed bytes.
    fn process(
        &mut self,
        buffer: &mut [u8],
        mut at: usize,
        plaintext: &mut Range<usize>,
        output: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        loop {
            // A record is longer than its plaintext, so that `plaintext` ends at least
            // MAX_PLAINTEXT bytes before `at`.
            let (room, wire) = buffer.split_at_mut(at);
            // The last bytes of the handshake may come with much data.
            let is_handshaking = self.rustls.is_handshaking();
            let UnbufferedStatus { discard, state } = self.rustls.process_tls_records(wire);
            at += discard;
            if is_handshaking {
                self.handshake += discard;
                if self.handshake > MAX_HANDSHAKE {
                    return Err(Error::HandshakeTooLong);
                }
            }
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        let end = plaintext.end + record.payload.len();
                        room[plaintext.end..end].copy_from_slice(record.payload);
                        plaintext.end = end;
                        at += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, output),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => {
                    self.state = State::PeerClosed;
                    // Whatever follows a close_notify is ignored (RFC 8446 section 6.1).
                    return Ok(buffer.len());
                }
                // `may_send_application_data` comes before the client's last message in TLS 1.3.
                Ok(ConnectionState::WriteTraffic(_)) => {
                    if !self.rustls.is_handshaking() {
                        self.state = State::Open;
                    }
                    return Ok(at);
                }
                Ok(_) => return Ok(at),
                Err(error) => {
                    // Nothing may follow a close_notify (RFC 8446 section 6.1).
                    if !self.close_sent {
                        self.fetch_alert(&mut buffer[at..], output);
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// Appends the alert that rustls has made for an error. A second call would process the next
    /// record, and rustls asserts that it makes one alert only.
    fn fetch_alert(&mut self, wire: &mut [u8], output: &mut Vec<u8>) {
        if let Ok(ConnectionState::EncodeTlsData(data)) =
            self.rustls.process_tls_records(wire).state
        {
            encode(data, output);
        }
    }

    /// Keeps the bytes that are not processed yet.
    fn keep(&mut self, rest: &[u8]) -> Result<(), Error> {
        if rest.len() > MAX_KEPT {
            return Err(Error::RecordTooLong);
        }
        self.kept.extend_from_slice(rest);
        Ok(())
    }
}

/// Lets rustls reach the state in which data can be written, and calls `with` in it. Appends other
/// messages of rustls to `output` on the way. `kept` are the bytes that rustls waits to see again.
fn write(
    rustls: &mut UnbufferedServerConnection,
    kept: &mut [u8],
    output: &mut Vec<u8>,
    with: impl FnOnce(WriteTraffic<'_, ServerConnectionData>, &mut Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    loop {
        let UnbufferedStatus { discard, state } = rustls.process_tls_records(kept);
        debug_assert_eq!(discard, 0, "complete records were processed when they came");
        match state? {
            ConnectionState::EncodeTlsData(data) => encode(data, output),
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::WriteTraffic(traffic) => return with(traffic, output),
            _ => return Err(Error::Closed),
        }
    }
}

/// Appends a message of rustls to `output`.
fn encode(mut data: EncodeTlsData<'_, ServerConnectionData>, output: &mut Vec<u8>) {
    let start = output.len();
    // The first call tells the size.
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        data.encode(&mut [])
    {
        output.resize(start + required_size, 0);
        let written = data.encode(&mut output[start..]);
        debug_assert_eq!(written.ok(), Some(required_size));
    }
}

/// Appends one record of data to `output`, and whatever rustls sends before it.
fn encrypt_record(
    traffic: &mut WriteTraffic<'_, ServerConnectionData>,
    record: &[u8],
    output: &mut Vec<u8>,
) -> Result<(), Error> {
    let start = output.len();
    let mut size = record.len() + OVERHEAD;
    loop {
        output.resize(start + size, 0);
        match traffic.encrypt(record, &mut output[start..]) {
            Ok(written) => {
                output.truncate(start + written);
                return Ok(());
            }
            // A KeyUpdate goes first.
            Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                debug_assert!(required_size > size);
                size = required_size;
            }
            Err(EncryptError::EncryptExhausted) => {
                output.truncate(start);
                return Err(Error::Exhausted);
            }
        }
    }
}

#[cfg(test)]
mod tests;
