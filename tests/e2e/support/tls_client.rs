//! A TLS client whose every record is in the test's hands.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion,
};

use super::{Authority, LONG, Pair, connect, send_slowly};

/// Both versions of TLS, for tests over each.
pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// The settings of clients that trust `authority` and speak no other version.
pub(crate) fn tls_settings(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    // One small key share: the ClientHello is short enough to be cut at each of its bytes.
    let kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let provider = CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() };
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

/// The same of clients that show this certificate.
pub(crate) fn tls_settings_with(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    shown: &Pair,
) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    let chain = vec![CertificateDer::from_pem_file(&shown.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&shown.key).unwrap();
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap()
}

/// One connection.
pub(crate) struct TlsClient {
    pub(crate) socket: TcpStream,
    pub(crate) session: ClientConnection,
}

impl TlsClient {
    /// Connects and makes the handshake.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr, settings: &Arc<ClientConfig>, name: &str) -> Self {
        Self::try_connect(address, settings, name).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Connects and makes the handshake, which may fail.
    #[track_caller]
    pub(crate) fn try_connect(
        address: SocketAddr,
        settings: &Arc<ClientConfig>,
        name: &str,
    ) -> io::Result<Self> {
        let mut client = Self::over(connect(address), settings, name);
        client.shake_hands()?;
        Ok(client)
    }

    /// On a connection that is already open. Nothing is sent yet.
    pub(crate) fn over(socket: TcpStream, settings: &Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut session = ClientConnection::new(Arc::clone(settings), name).unwrap();
        session.set_buffer_limit(None);
        TlsClient { socket, session }
    }

    /// Makes the handshake. In TLS 1.3 the client cannot know whether the server has accepted its
    /// part: an alert about that comes with the first read.
    pub(crate) fn shake_hands(&mut self) -> io::Result<()> {
        while self.session.is_handshaking() {
            self.flush()?;
            if self.session.is_handshaking() {
                self.receive()?;
            }
        }
        self.flush()
    }

    /// Makes the handshake up to its last flight, which waits to be sent.
    #[track_caller]
    pub(crate) fn shake_hands_up_to_the_last_flight(&mut self) {
        let wire = self.wire();
        self.socket.write_all(&wire).unwrap();
        while !self.session.wants_write() {
            self.receive().unwrap();
        }
    }

    /// Makes the handshake with everything it sends cut at byte `at`, counted over all that it
    /// sends, if it sends so much. Returns the number of bytes.
    #[track_caller]
    pub(crate) fn shake_hands_cut(&mut self, at: usize) -> usize {
        let mut total = 0;
        while self.session.is_handshaking() || self.session.wants_write() {
            let wire = self.wire();
            match at.checked_sub(total) {
                Some(cut @ 1..) if cut < wire.len() => {
                    send_slowly(&mut self.socket, &[&wire[..cut], &wire[cut..]]);
                }
                _ => self.socket.write_all(&wire).unwrap(),
            }
            total += wire.len();
            if self.session.is_handshaking() {
                self.receive().unwrap();
            }
        }
        total
    }

    /// The records that wait to be sent; they are the caller's to send.
    pub(crate) fn wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut wire).unwrap();
        }
        wire
    }

    /// The records of these bytes; they are the caller's to send.
    pub(crate) fn records(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.session.writer().write_all(bytes).unwrap();
        self.wire()
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.write_all(bytes.as_ref()).unwrap();
    }

    /// Says that no more is coming; what comes from the other side can still be read.
    #[track_caller]
    pub(crate) fn close_notify(&mut self) {
        self.session.send_close_notify();
        self.flush().unwrap();
    }

    /// Ends the connection's direction without a close_notify.
    pub(crate) fn end_without_close_notify(&mut self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        let mut received = vec![0; bytes.len()];
        self.read_exact(&mut received).unwrap();
        assert!(received == bytes, "other bytes: {}", received.escape_ascii());
    }

    /// Everything up to the close_notify of the other side, which must come.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let read = self.read_to_end(&mut rest);
        assert!(read.is_ok(), "instead of a close_notify after {} bytes: {read:?}", rest.len());
        rest
    }

    /// The other side says that nothing follows, with nothing before that.
    #[track_caller]
    pub(crate) fn expect_close_notify(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "instead of a close_notify: {}", rest.escape_ascii());
    }

    /// Why the session has failed for this side. Reads until then.
    #[track_caller]
    pub(crate) fn expect_failure(&mut self) -> io::Error {
        io::copy(self, &mut io::sink()).expect_err("a clean end instead of a failure")
    }

    /// Sends all of `bytes`, and reads until `count` bytes are there.
    #[track_caller]
    pub(crate) fn exchange(&mut self, bytes: &[u8], count: usize) -> Vec<u8> {
        self.socket.set_nonblocking(true).unwrap();
        let (mut rest, mut received) = (bytes, Vec::with_capacity(count));
        let (mut wire, mut sent) = (Vec::new(), 0);
        let limit = Timespec::try_from(LONG).unwrap();
        while received.len() < count || !rest.is_empty() || sent < wire.len() {
            if sent == wire.len() {
                let (part, after) = rest.split_at(rest.len().min(64 * 1024));
                (wire, sent, rest) = (self.records(part), 0, after);
            }
            let wanted = if sent < wire.len() { PollFlags::OUT } else { PollFlags::empty() };
            let mut ready = [PollFd::new(&self.socket, PollFlags::IN | wanted)];
            assert_eq!(poll(&mut ready, Some(&limit)), Ok(1), "{} bytes", received.len());
            match self.socket.write(&wire[sent..]) {
                Ok(written) => sent += written,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            match self.receive() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => read.unwrap_or_else(|e| panic!("{e} after {} bytes", received.len())),
            }
            // Its end is that of what is there already.
            let _ = self.session.reader().read_to_end(&mut received);
        }
        self.socket.set_nonblocking(false).unwrap();
        received
    }

    /// Reads from the socket once.
    fn receive(&mut self) -> io::Result<()> {
        if self.session.read_tls(&mut self.socket)? == 0 {
            // The session tells the reader whether that was to be expected.
            let result = self.session.process_new_packets();
            result.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            if self.session.is_handshaking() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            return Ok(());
        }
        if let Err(error) = self.session.process_new_packets() {
            // The alert for the other side.
            let _ = self.flush();
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(())
    }
}

/// The alert that a failure is about.
pub(crate) fn alert_of(failure: &io::Error) -> Option<AlertDescription> {
    match failure.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

impl Read for TlsClient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.receive()?,
                result => return result,
            }
        }
    }
}

impl Write for TlsClient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.session.writer().write(bytes)?;
        self.flush()?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let wire = self.wire();
        self.socket.write_all(&wire)
    }
}
