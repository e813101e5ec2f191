//! One TLS connection, from the ClientHello to the close.
//!
//! rustls processes at most one record of data a call, and copies its plaintext into a `Vec` of its
//! own. The session copies it back in front of the bytes that are not processed yet, so that the
//! plaintext of all records of a read is one range of the buffer.

use std::ops::Range;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, CommonState, HandshakeKind, ProtocolVersion, ServerConfig};

use super::Error;
use crate::proto::client_hello::{ClientHello, HelloReader, Progress};

mod output;
mod records;

pub use output::Output;

/// The most plaintext in one record (RFC 8446 section 5.1).
pub const MAX_PLAINTEXT: usize = 1 << 14;
/// The most bytes of a handshake that are accepted from a peer.
pub const MAX_HANDSHAKE: usize = 64 * 1024;
/// The most bytes that a session keeps between two reads: a message of the handshake may have many
/// records.
pub const MAX_KEPT: usize = MAX_HANDSHAKE;

/// The longest record that rustls accepts, with its header. After the handshake no more is kept.
const MAX_RECORD: usize = 5 + MAX_PLAINTEXT + 2048;
/// A fatal decode_error alert in plaintext (RFC 8446 section 6.2).
const DECODE_ERROR: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 50];

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The handshake is in progress.
    Handshake,
    /// Data can be received and sent.
    Open,
    /// The peer has sent close_notify. Data can still be sent.
    PeerClosed,
    /// The session has failed.
    Failed(Error),
}

/// One side of a TLS connection.
pub struct Session {
    rustls: Connection,
    /// Reads the ClientHello before rustls does. `None` after it, and on the client's side.
    hello: Option<Box<HelloReader>>,
    /// rustls' unbuffered API does not show the server name.
    server_name: Option<Box<str>>,
    /// Bytes of the wire that are not processed: an incomplete record or message.
    kept: Vec<u8>,
    status: Status,
}

enum Connection {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

struct Status {
    state: State,
    /// Bytes of the handshake that were processed so far.
    handshake: usize,
    /// Plaintext that was sent so far in small records.
    small: usize,
    close_sent: bool,
}

impl Session {
    /// Makes the server's side, which waits for a ClientHello.
    ///
    /// # Errors
    /// If rustls refuses the configuration.
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Session, Error> {
        let rustls = Connection::Server(UnbufferedServerConnection::new(config)?);
        Ok(Session::new(rustls, Some(Box::default()), None))
    }

    /// Makes the client's side, and appends its ClientHello to `output`.
    ///
    /// # Errors
    /// If rustls refuses the configuration.
    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        output: &mut Output,
    ) -> Result<Session, Error> {
        let server_name = match &name {
            ServerName::DnsName(name) => Some(Box::from(name.as_ref())),
            _ => None,
        };
        let rustls = Connection::Client(UnbufferedClientConnection::new(config, name)?);
        let mut session = Session::new(rustls, None, server_name);
        session.process(&mut [], 0, &mut (0..0), output)?;
        Ok(session)
    }

    fn new(
        rustls: Connection,
        hello: Option<Box<HelloReader>>,
        server_name: Option<Box<str>>,
    ) -> Session {
        let status = Status { state: State::Handshake, handshake: 0, small: 0, close_sent: false };
        Session { rustls, hello, server_name, kept: Vec::new(), status }
    }

    /// How far the session is.
    pub fn state(&self) -> State {
        self.status.state
    }

    /// Returns true if the end of the client's stream would cut it off: no close_notify has come.
    pub fn is_truncated_by_end(&self) -> bool {
        self.status.state != State::PeerClosed
    }

    /// Takes the server name that the client has sent. On the server's side it is known when the
    /// ClientHello is complete.
    pub fn take_server_name(&mut self) -> Option<Box<str>> {
        self.server_name.take()
    }

    /// The protocol that was agreed on (RFC 7301).
    pub fn protocol(&self) -> Option<&[u8]> {
        self.rustls().alpn_protocol()
    }

    /// The version of TLS: "1.2" or "1.3". Known when the handshake has chosen it.
    pub fn version(&self) -> Option<&'static str> {
        match self.rustls().protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some("1.2"),
            ProtocolVersion::TLSv1_3 => Some("1.3"),
            _ => None,
        }
    }

    /// The name of the cipher suite. Known when the handshake has chosen it.
    pub fn suite(&self) -> Option<&'static str> {
        self.rustls().negotiated_cipher_suite()?.suite().as_str()
    }

    /// Returns true when the handshake resumes an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.rustls().handshake_kind() == Some(HandshakeKind::Resumed)
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
        output: &mut Output,
    ) -> Range<usize> {
        let start = input.start - self.kept.len();
        let mut plaintext = start - MAX_PLAINTEXT..start - MAX_PLAINTEXT;
        if matches!(self.status.state, State::Failed(_) | State::PeerClosed) {
            return plaintext;
        }
        let is_complete = self.read_hello(&buffer[input.clone()]);
        buffer[start..input.start].copy_from_slice(&self.kept);
        self.kept.clear();
        let result = match is_complete {
            Ok(true) => self.process(&mut buffer[..input.end], start, &mut plaintext, output),
            Ok(false) => Ok(start),
            Err(error) => {
                output.push(&DECODE_ERROR);
                Err(error)
            }
        };
        let result = result.and_then(|processed| self.keep(&buffer[processed..input.end]));
        if let Err(error) = result {
            self.status.state = State::Failed(error);
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
    pub fn encrypt(&mut self, plaintext: &[u8], output: &mut Output) -> Result<(), Error> {
        match self.status.state {
            State::Failed(error) => return Err(error),
            State::Handshake => return Err(Error::Misbehaved),
            State::Open | State::PeerClosed if self.status.close_sent => return Err(Error::Closed),
            State::Open | State::PeerClosed => {}
        }
        let (kept, status) = (&mut self.kept, &mut self.status);
        match &mut self.rustls {
            Connection::Server(rustls) => {
                records::encrypt(&mut **rustls, status, kept, plaintext, output)
            }
            Connection::Client(rustls) => {
                records::encrypt(&mut **rustls, status, kept, plaintext, output)
            }
        }
    }

    /// Appends a close_notify to `output`, once. Data can still be received.
    pub fn close(&mut self, output: &mut Output) {
        if self.status.close_sent || matches!(self.status.state, State::Failed(_)) {
            return;
        }
        self.status.close_sent = true;
        // Before the end of the handshake nothing can be written, and no data is cut off.
        let _ = match &mut self.rustls {
            Connection::Server(rustls) => records::close(&mut **rustls, &mut self.kept, output),
            Connection::Client(rustls) => records::close(&mut **rustls, &mut self.kept, output),
        };
    }

    /// What both sides of rustls tell.
    pub(super) fn rustls(&self) -> &CommonState {
        match &self.rustls {
            Connection::Server(rustls) => rustls,
            Connection::Client(rustls) => rustls,
        }
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

    /// Lets rustls process the bytes from `start` on. Extends `plaintext`. Returns the end of the
    /// processed bytes.
    fn process(
        &mut self,
        buffer: &mut [u8],
        start: usize,
        plaintext: &mut Range<usize>,
        output: &mut Output,
    ) -> Result<usize, Error> {
        let status = &mut self.status;
        match &mut self.rustls {
            Connection::Server(rustls) => {
                records::process(&mut **rustls, status, buffer, start, plaintext, output)
            }
            Connection::Client(rustls) => {
                records::process(&mut **rustls, status, buffer, start, plaintext, output)
            }
        }
    }

    /// Keeps the bytes that are not processed yet: an incomplete record, or the records of an
    /// incomplete message.
    fn keep(&mut self, rest: &[u8]) -> Result<(), Error> {
        let most = match self.status.state {
            State::Handshake => MAX_HANDSHAKE - self.status.handshake,
            _ => MAX_RECORD,
        };
        // rustls limits the length of a record, so these are too many records. There is no alert:
        // rustls makes those of its own errors alone, and no honest peer comes here.
        if rest.len() > most {
            return Err(Error::HandshakeTooLong);
        }
        self.kept.extend_from_slice(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
