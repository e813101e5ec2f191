//! TLS of the loads: a client that offers one version, one cipher suite and one group, and checks
//! what was negotiated.
//!
//! A peer can only do what the row says: TLS 1.3 with TLS_AES_128_GCM_SHA256, X25519 and the
//! benchmark's certificate, which is pinned. Anything else fails the handshake, and so the row.

use std::collections::VecDeque;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, PoisonError};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientConnection, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, HandshakeKind, NamedGroup,
    ProtocolVersion, SignatureScheme,
};

use super::dial::{Target, connect};
use super::source::Source;
use super::wire::Wire;
use crate::while_doing;

/// The largest TLS record with the header.
const MAX_RECORD: usize = 16 * 1024 + 256 + 5;

/// The certificate that a proxy must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate(CertificateDer<'static>);

impl Certificate {
    pub(crate) fn from_der(der: Vec<u8>) -> Self {
        Self(der.into())
    }

    /// Reads the first certificate of a PEM file.
    pub(crate) fn read(path: &str) -> Result<Self, String> {
        CertificateDer::from_pem_file(path).map(Self).map_err(|error| error.to_string())
    }
}

/// Makes sessions of one kind.
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// How much a client does to save the server work, or itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// Full handshakes, and the server's signature is verified.
    Verify,
    /// Full handshakes whose signature is not verified: the server makes it all the same, and the
    /// load reaches a higher rate.
    Trust,
    /// Handshakes that resume a session where a ticket is there, each ticket once.
    Resume,
}

impl Client {
    /// A client for a target that speaks TLS.
    pub(crate) fn new(target: &Target, manner: Manner) -> io::Result<Self> {
        let pinned = target.tls.clone().ok_or_else(|| io::Error::other("a target without TLS"))?;
        let provider = CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        };
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Pinned { pinned, algorithms, verify: manner != Manner::Trust };
        let mut config = ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.resumption = match manner {
            Manner::Resume => Resumption::store(Arc::new(Tickets::default())),
            Manner::Verify | Manner::Trust => Resumption::disabled(),
        };
        let name = ServerName::try_from(target.host.clone()).map_err(io::Error::other)?;
        Ok(Self { config: Arc::new(config), name })
    }

    pub(crate) fn session(&self) -> io::Result<ClientConnection> {
        let mut session = ClientConnection::new(Arc::clone(&self.config), self.name.clone())
            .map_err(io::Error::other)?;
        // What is written at once is at most a buffer of the bulk.
        session.set_buffer_limit(None);
        Ok(session)
    }
}

/// Fails unless the session has what every row promises, and the kind of handshake that this row
/// does.
pub(crate) fn check(session: &ClientConnection, wanted: HandshakeKind) -> io::Result<()> {
    let version = session.protocol_version();
    let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
    let group = session.negotiated_key_exchange_group().map(|group| group.name());
    let kind = session.handshake_kind();
    let promised = (
        Some(ProtocolVersion::TLSv1_3),
        Some(CipherSuite::TLS13_AES_128_GCM_SHA256),
        Some(NamedGroup::X25519),
        Some(wanted),
    );
    if (version, suite, group, kind) == promised {
        return Ok(());
    }
    let message = format!("negotiated {version:?}, {suite:?}, {group:?}, {kind:?}");
    Err(io::Error::other(format!("{message}, not {promised:?}")))
}

/// Decrypts what arrived and passes the plaintext on piece by piece; returns how much there was.
pub(crate) fn decrypt(
    session: &mut ClientConnection,
    mut arrived: &[u8],
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<usize> {
    let mut all = 0;
    while !arrived.is_empty() {
        session.read_tls(&mut arrived)?;
        session.process_new_packets().map_err(io::Error::other)?;
        let mut reader = session.reader();
        // WouldBlock: all was read. The end of the stream is left to the caller.
        while let Ok(piece @ [_, ..]) = reader.fill_buf() {
            take(piece)?;
            let length = piece.len();
            all += length;
            reader.consume(length);
        }
    }
    Ok(all)
}

/// A connection with TLS. The session is behind a pointer, so that lanes stay small.
pub(crate) struct Stream {
    session: Box<ClientConnection>,
    socket: TcpStream,
}

impl Stream {
    /// Sends the records that wait; WouldBlock where the socket does not take all of them.
    fn flush_records(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut Socket(&self.socket))?;
        }
        Ok(())
    }

    /// The flushing is for the next turn where the socket is full.
    fn flush_or_wait(&mut self) -> io::Result<()> {
        match self.flush_records() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            done => done,
        }
    }
}

/// Tickets and parts of records are no plaintext, and are not the end of the stream, either.
fn plaintext(length: usize) -> io::Result<usize> {
    if length == 0 { Err(Errno::AGAIN.into()) } else { Ok(length) }
}

impl Wire for Stream {
    type Dialler = Client;
    const SCRATCH: usize = 2 * MAX_RECORD;

    fn dialler(target: &Target) -> io::Result<Client> {
        Client::new(target, Manner::Verify)
    }

    fn connect(client: &Client, target: &Target) -> io::Result<Self> {
        let mut socket = connect(target.connect)?;
        let mut session = Box::new(client.session()?);
        let doing = || while_doing(format!("TLS handshake with {}", target.connect));
        while session.is_handshaking() {
            session.complete_io(&mut socket).map_err(doing())?;
        }
        check(&session, HandshakeKind::Full).map_err(doing())?;
        Ok(Self { session, socket })
    }

    fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn send(&mut self, message: &[u8]) -> io::Result<usize> {
        self.session.writer().write_all(message)?;
        self.flush_records()?;
        Ok(message.len())
    }

    fn send_bulk(&mut self, source: &Source, most: u64, before: u64) -> io::Result<usize> {
        self.flush_records()?;
        let bytes = source.bytes(most, before)?;
        self.session.writer().write_all(bytes)?;
        self.flush_or_wait()?;
        Ok(bytes.len())
    }

    fn is_sending(&self) -> bool {
        self.session.wants_write()
    }

    fn receive(&mut self, buffer: &mut [u8], scratch: &mut [u8]) -> io::Result<usize> {
        let arrived = rustix::net::recv(&self.socket, &mut *scratch, RecvFlags::empty())?.1;
        if arrived == 0 {
            return Ok(0);
        }
        let mut length = 0;
        decrypt(&mut self.session, &scratch[..arrived], |piece| {
            let room = buffer.get_mut(length..length + piece.len());
            let room = room.ok_or_else(|| io::Error::other("more came than was expected"))?;
            room.copy_from_slice(piece);
            length += piece.len();
            Ok(())
        })?;
        plaintext(length)
    }

    fn discard(&mut self, scratch: &mut [u8], _: RecvFlags) -> io::Result<usize> {
        let arrived = rustix::net::recv(&self.socket, &mut *scratch, RecvFlags::empty())?.1;
        if arrived == 0 {
            return Ok(0);
        }
        plaintext(decrypt(&mut self.session, &scratch[..arrived], |_| Ok(()))?)
    }

    fn end(&mut self) -> io::Result<()> {
        self.session.send_close_notify();
        self.flush_records()?;
        self.socket.shutdown(Shutdown::Write)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        rustls::Stream::new(&mut *self.session, &mut self.socket).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        rustls::Stream::new(&mut *self.session, &mut self.socket).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        rustls::Stream::new(&mut *self.session, &mut self.socket).flush()
    }
}

/// A socket as rustls writes to it: many records by one call, and without SIGPIPE.
pub(crate) struct Socket<S>(pub(crate) S);

impl<S: AsFd> Write for Socket<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, records: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::net::sendmsg(
            &self.0,
            records,
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL,
        )?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The tickets of one server. rustls' own store keeps eight: fewer than there are connections whose
/// tickets have come and whose successors have not begun.
#[derive(Default)]
#[expect(clippy::disallowed_types, reason = "rustls asks for Sync; one thread uses it")]
struct Tickets(std::sync::Mutex<VecDeque<Tls13ClientSessionValue>>);

impl Tickets {
    /// Some servers give two tickets for one.
    const MOST: usize = 20_000;

    fn with<T>(&self, act: impl FnOnce(&mut VecDeque<Tls13ClientSessionValue>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl ClientSessionStore for Tickets {
    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.with(|tickets| {
            if tickets.len() == Self::MOST {
                tickets.pop_front();
            }
            tickets.push_back(ticket);
        });
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.with(VecDeque::pop_back)
    }

    // One group is offered, and no older version.
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
}

/// Accepts one certificate and no other.
#[derive(Debug)]
struct Pinned {
    pinned: Certificate,
    algorithms: WebPkiSupportedAlgorithms,
    /// Verify the signature of the handshake.
    verify: bool,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *shown == self.pinned.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::UnknownIssuer.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 was not offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.verify {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        // A certificate with another key than P-256 fails.
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::dial::dial_by;
    use crate::load::testing::{self, Offer};

    fn dial(target: &Target) -> io::Result<()> {
        dial_by::<Stream>(&Stream::dialler(target)?, target, b"E").map(drop)
    }

    #[test]
    fn another_certificate_than_the_pinned_one_is_refused() {
        let (target, other) = (testing::tls(Offer::Right), testing::tls(Offer::Right));
        dial(&target).unwrap();
        let error = dial(&Target { tls: other.tls, ..target }).unwrap_err().to_string();
        assert!(error.contains("TLS handshake") && error.contains("UnknownIssuer"), "{error}");
    }

    #[test]
    fn a_peer_with_another_suite_group_version_or_key_fails() {
        let others = [Offer::OtherSuite, Offer::OtherGroup, Offer::OtherVersion, Offer::OtherKey];
        for offer in others {
            let error = dial(&testing::tls(offer)).unwrap_err().to_string();
            assert!(error.contains("TLS handshake"), "{offer:?}: {error}");
        }
    }
}
