//! What a session does with rustls, for both sides of a connection.

use std::ops::{Deref, Range};

use rustls::CommonState;
use rustls::client::ClientConnectionData;
use rustls::server::ServerConnectionData;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedConnectionCommon, UnbufferedStatus, WriteTraffic,
};

use super::{Error, MAX_HANDSHAKE, MAX_PLAINTEXT, Output, State, Status};

/// Plaintext of a record at the beginning: the peer can decrypt it after few TCP segments.
pub(super) const SMALL_RECORD: usize = 4096;
/// Plaintext that is sent in small records at the beginning of a connection.
pub(super) const SMALL_UNTIL: usize = 64 * 1024;
/// What protection adds to a record at most: header, explicit nonce, tag, content type.
pub(super) const OVERHEAD: usize = 5 + 8 + 16 + 1;

/// One side of rustls: each has a method of this name, but they share none.
pub(super) trait Side: Deref<Target = CommonState> {
    type Data;

    fn process_tls_records<'c, 'i>(
        &'c mut self,
        wire: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Side for UnbufferedConnectionCommon<ServerConnectionData> {
    type Data = ServerConnectionData;

    fn process_tls_records<'c, 'i>(
        &'c mut self,
        wire: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(wire)
    }
}

impl Side for UnbufferedConnectionCommon<ClientConnectionData> {
    type Data = ClientConnectionData;

    fn process_tls_records<'c, 'i>(
        &'c mut self,
        wire: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(wire)
    }
}

/// Lets rustls process the bytes from `at` on, until it needs more. Extends `plaintext`. Returns
/// the end of the processed bytes.
pub(super) fn process(
    rustls: &mut impl Side,
    status: &mut Status,
    buffer: &mut [u8],
    mut at: usize,
    plaintext: &mut Range<usize>,
    output: &mut Output,
) -> Result<usize, Error> {
    loop {
        // A record is longer than its plaintext, so that `plaintext` ends at least MAX_PLAINTEXT
        // bytes before `at`.
        let (room, wire) = buffer.split_at_mut(at);
        // The last bytes of the handshake may come with much data.
        let is_handshaking = rustls.is_handshaking();
        let UnbufferedStatus { discard, state } = rustls.process_tls_records(wire);
        at += discard;
        if is_handshaking {
            status.handshake += discard;
            // Without an alert, as for what is kept.
            if status.handshake > MAX_HANDSHAKE {
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
                status.state = State::PeerClosed;
                // Whatever follows a close_notify is ignored (RFC 8446 section 6.1).
                return Ok(buffer.len());
            }
            // On the server's side of TLS 1.3 data can be written before the client's last
            // message.
            Ok(ConnectionState::WriteTraffic(_)) => {
                if !rustls.is_handshaking() {
                    status.state = State::Open;
                }
                return Ok(at);
            }
            Ok(_) => return Ok(at),
            Err(error) => {
                // Nothing may follow a close_notify (RFC 8446 section 6.1).
                if !status.close_sent {
                    fetch_alert(rustls, output);
                }
                return Err(error.into());
            }
        }
    }
}

/// Appends what rustls has queued up to an error: messages of the handshake that were made before
/// it, and the alert. As long as a message is queued, rustls looks at no bytes of the wire.
fn fetch_alert(rustls: &mut impl Side, output: &mut Output) {
    while rustls.wants_write() {
        let Ok(ConnectionState::EncodeTlsData(data)) = rustls.process_tls_records(&mut []).state
        else {
            return;
        };
        encode(data, output);
    }
}

/// Appends the records of `plaintext` to `output`.
pub(super) fn encrypt(
    rustls: &mut impl Side,
    status: &mut Status,
    kept: &mut [u8],
    plaintext: &[u8],
    output: &mut Output,
) -> Result<(), Error> {
    write(rustls, kept, output, |mut traffic, output| {
        let mut rest = plaintext;
        while !rest.is_empty() {
            let is_small = status.small < SMALL_UNTIL;
            let most = if is_small { SMALL_RECORD } else { MAX_PLAINTEXT };
            let (record, after) = rest.split_at(most.min(rest.len()));
            encrypt_record(&mut traffic, record, output)?;
            if is_small {
                status.small += record.len();
            }
            rest = after;
        }
        Ok(())
    })
}

/// Appends a close_notify to `output`.
pub(super) fn close(
    rustls: &mut impl Side,
    kept: &mut [u8],
    output: &mut Output,
) -> Result<(), Error> {
    write(rustls, kept, output, |mut traffic, output| {
        // The first call makes the alert and tells its size, the second one writes it.
        if let Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) =
            traffic.queue_close_notify(&mut [])
        {
            let written = traffic.queue_close_notify(output.room(required_size));
            debug_assert!(matches!(written, Ok(written) if written == required_size));
            output.extend(required_size);
        }
        Ok(())
    })
}

/// Lets rustls reach the state in which data can be written, and calls `with` in it. Appends other
/// messages of rustls to `output` on the way. `kept` are the bytes that rustls waits to see again.
fn write<C: Side>(
    rustls: &mut C,
    kept: &mut [u8],
    output: &mut Output,
    with: impl FnOnce(WriteTraffic<'_, C::Data>, &mut Output) -> Result<(), Error>,
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
fn encode<Data>(mut data: EncodeTlsData<'_, Data>, output: &mut Output) {
    // The first call tells the size.
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        data.encode(&mut [])
    {
        let written = data.encode(output.room(required_size));
        debug_assert_eq!(written.ok(), Some(required_size));
        output.extend(required_size);
    }
}

/// Appends one record of data to `output`, and whatever rustls sends before it.
fn encrypt_record<Data>(
    traffic: &mut WriteTraffic<'_, Data>,
    record: &[u8],
    output: &mut Output,
) -> Result<(), Error> {
    let mut size = record.len() + OVERHEAD;
    loop {
        match traffic.encrypt(record, output.room(size)) {
            Ok(written) => {
                output.extend(written);
                return Ok(());
            }
            // A KeyUpdate goes first.
            Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                debug_assert!(required_size > size);
                size = required_size;
            }
            Err(EncryptError::EncryptExhausted) => return Err(Error::Exhausted),
        }
    }
}
