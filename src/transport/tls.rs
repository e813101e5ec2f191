//! TLS records over a socket.
//!
//! The session ([`proto::tls`](crate::proto::tls)) knows no sockets, and this stream knows no TLS:
//! it reads the socket into the buffer of its caller, where the session decrypts, and it sends what
//! the session encrypts into a buffer of the worker. An idle stream holds neither.

use std::cell::{OnceCell, RefCell, RefMut};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use super::backlog::Backlog;
use super::pool::TlsPool;
use crate::proto::tls::{Error, MAX_KEPT, MAX_PLAINTEXT, Output, Session, State};
use crate::sched::{Charge, MAX_MESSAGE, QueuedSend};
use crate::sys::{Errno, Stream};

/// The most plaintext that is encrypted at a time: one read of a relay.
const MAX_WRITE: usize = 256 * 1024;
/// The same when the worker's memory budget is spent: one record.
const SMALL_WRITE: usize = MAX_PLAINTEXT;
/// The most plaintext of a message for the outbox: with what TLS adds, and a KeyUpdate before it,
/// it fits one message.
const MAX_QUEUED: usize = MAX_MESSAGE - 128;
/// A read into a smaller buffer goes through the worker's own, because decryption needs space of
/// its own in front of the bytes.
const DIRECT_READ: usize = 64 * 1024;
/// The least that is read at a time.
const LEAST_READ: usize = 4096;
/// The worker's own buffer: that space, and the most that a caller with a small buffer reads.
const SCRATCH: usize = MAX_KEPT + MAX_PLAINTEXT + DIRECT_READ;

/// What a handshake has agreed on.
#[derive(Debug)]
pub struct Facts {
    /// "1.2" or "1.3".
    pub version: &'static str,
    /// The name of the cipher suite.
    pub cipher: &'static str,
    /// The server name that the client has sent.
    pub server_name: Option<Box<str>>,
    /// The protocol (RFC 7301).
    pub protocol: Option<Box<str>>,
    /// Whether an earlier session was resumed.
    pub is_resumed: bool,
    /// How long it took from the accept, or from the end of the connect.
    pub time: Duration,
}

/// A TLS session over a socket.
pub struct TlsStream {
    socket: Rc<Stream>,
    pool: Rc<TlsPool>,
    facts: OnceCell<Box<Facts>>,
    inner: RefCell<Inner>,
}

struct Inner {
    session: Session,
    /// Plaintext that did not fit the buffer of the caller.
    decrypted: Backlog,
    /// Records in the outbox whose result is not known yet. They come before `unsent`.
    queued: Option<QueuedSend>,
    /// Records that did not fit the socket.
    unsent: Backlog,
    /// Counts both, and what the session keeps.
    charge: Charge,
    /// The last read of the socket has filled its buffer.
    has_filled: bool,
    /// close_notify was sent, and nothing has come since.
    is_closing: bool,
    /// The socket has ended after that.
    is_ended: bool,
    /// The socket has ended without close_notify.
    is_truncated: bool,
    /// No close_notify is sent when the stream is dropped.
    is_cut_off: bool,
}

impl TlsStream {
    /// Makes a stream whose session has done nothing yet. `first` is what the session has to send
    /// first: the ClientHello of a client.
    pub fn new(
        socket: &Rc<Stream>,
        session: Session,
        first: Vec<u8>,
        pool: &Rc<TlsPool>,
    ) -> TlsStream {
        let mut charge = Charge::new(&pool.memory);
        charge.set(first.len());
        TlsStream {
            socket: Rc::clone(socket),
            pool: Rc::clone(pool),
            facts: OnceCell::new(),
            inner: RefCell::new(Inner {
                session,
                decrypted: Backlog::default(),
                queued: None,
                unsent: Backlog::new(first),
                charge,
                has_filled: false,
                is_closing: false,
                is_ended: false,
                is_truncated: false,
                is_cut_off: false,
            }),
        }
    }

    /// The socket.
    pub fn socket(&self) -> &Rc<Stream> {
        &self.socket
    }

    /// How far the session is.
    pub fn state(&self) -> State {
        self.inner.borrow().session.state()
    }

    /// Why the stream cannot be used any more, in one word.
    pub fn failure(&self) -> Option<&'static str> {
        let inner = self.inner.borrow();
        match inner.session.state() {
            State::Failed(error) => Some(error.reason()),
            _ => inner.is_truncated.then_some("truncated"),
        }
    }

    /// What the handshake has agreed on; `None` before its end.
    pub fn facts(&self) -> Option<&Facts> {
        self.facts.get().map(|facts| &**facts)
    }

    /// Notes what the handshake has agreed on.
    pub fn note_handshake(&self, time: Duration) {
        let session = &mut self.inner.borrow_mut().session;
        let protocol = session.protocol().map(|name| Box::from(String::from_utf8_lossy(name)));
        let _ = self.facts.set(Box::new(Facts {
            version: session.version().unwrap_or_default(),
            cipher: session.suite().unwrap_or_default(),
            server_name: session.take_server_name(),
            protocol,
            is_resumed: session.is_resumed(),
            time,
        }));
    }

    /// Gives bytes to the session that were read from the socket elsewhere.
    pub fn receive(&self, bytes: &[u8]) {
        let inner = &mut *self.inner.borrow_mut();
        for piece in bytes.chunks(DIRECT_READ) {
            let mut scratch = self.scratch();
            let start = inner.session.headroom();
            let end = start + piece.len();
            scratch[start..end].copy_from_slice(piece);
            let read = self.decrypt(inner, &mut scratch[..end], start);
            inner.decrypted.push(&scratch[..read]);
        }
        inner.count();
    }

    /// Reads the socket once and gives the bytes to the session. Data is kept for the next
    /// [`TlsStream::recv`].
    ///
    /// # Errors
    /// As [`super::Transport::recv`].
    pub fn advance(&self) -> Result<(), Errno> {
        let inner = &mut *self.inner.borrow_mut();
        let mut scratch = self.scratch();
        let read = self.read_socket(inner, &mut scratch[..SCRATCH])?;
        inner.decrypted.push(&scratch[..read]);
        inner.count();
        Ok(())
    }

    /// Returns true if a read gives something that the socket does not show: decrypted bytes, the
    /// end of the stream, or the failure of the session.
    pub fn has_decrypted(&self) -> bool {
        let inner = self.inner.borrow();
        !inner.decrypted.is_empty()
            || matches!(inner.session.state(), State::PeerClosed | State::Failed(_))
    }

    /// Returns true if the last read has emptied the socket.
    pub(super) fn is_dry(&self) -> bool {
        let inner = self.inner.borrow();
        !inner.has_filled && inner.decrypted.is_empty()
    }

    pub(super) fn recv(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let inner = &mut *self.inner.borrow_mut();
        if buffer.is_empty() || !inner.decrypted.is_empty() {
            return Ok(inner.take(buffer));
        }
        match inner.session.state() {
            State::PeerClosed => return Ok(0),
            State::Failed(_) => return Err(Errno::PROTO),
            State::Handshake | State::Open => {}
        }
        let headroom = inner.session.headroom();
        let read = if buffer.len() >= headroom + DIRECT_READ {
            self.read_socket(inner, buffer)
        } else {
            let mut scratch = self.scratch();
            // Not less than a segment: a caller that wants one byte must not cost a read for each.
            let end = headroom + buffer.len().clamp(LEAST_READ, DIRECT_READ);
            let read = self.read_socket(inner, &mut scratch[..end]);
            read.map(|read| {
                inner.decrypted.push(&scratch[..read]);
                inner.take(buffer)
            })
        };
        inner.count();
        match (read?, inner.session.state()) {
            (0, State::Failed(_)) => Err(Errno::PROTO),
            (0, _) if inner.is_ended => Ok(0),
            // A part of a record, or a message that is no data.
            (0, State::Open | State::Handshake) => Err(Errno::AGAIN),
            (read, _) => Ok(read),
        }
    }

    /// Reads the socket once and decrypts. The plaintext is at the start of the buffer. Returns its
    /// length, which may be 0.
    fn read_socket(&self, inner: &mut Inner, buffer: &mut [u8]) -> Result<usize, Errno> {
        let start = inner.session.headroom();
        let size = buffer.len() - start;
        let read = self.socket.recv(&mut buffer[start..])?;
        inner.has_filled = read == size;
        if read == 0 && inner.is_closing && inner.session.kept() == 0 {
            // Many peers answer a close_notify by an end of the socket alone. Nothing is cut off.
            inner.is_ended = true;
            return Ok(0);
        }
        inner.is_closing = false;
        if read == 0 {
            inner.is_truncated = true;
            return Err(Errno::CONNABORTED);
        }
        Ok(self.decrypt(inner, &mut buffer[..start + read], start))
    }

    /// Lets the session process what was read into the buffer from `start` on.
    fn decrypt(&self, inner: &mut Inner, buffer: &mut [u8], start: usize) -> usize {
        let mut wire = self.wire();
        let input = start..buffer.len();
        let plaintext = inner.session.receive(buffer, input, &mut wire);
        debug_assert_eq!(plaintext.start, 0, "the headroom is exactly what the session needs");
        // An error is found again by the next write.
        let _ = self.transmit(inner, &wire);
        plaintext.len()
    }

    pub(super) fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let inner = &mut *self.inner.borrow_mut();
        if !self.send_waiting(inner)? {
            return Err(Errno::AGAIN);
        }
        let most = if self.pool.memory.is_spent() { SMALL_WRITE } else { MAX_WRITE };
        let bytes = &bytes[..bytes.len().min(most)];
        let mut wire = self.wire();
        inner.session.encrypt(bytes, &mut wire).map_err(|error| match error {
            Error::Closed => Errno::PIPE,
            _ => Errno::PROTO,
        })?;
        self.transmit(inner, &wire)?;
        inner.count();
        Ok(bytes.len())
    }

    /// Encrypts a message into the outbox. Nothing else may wait. Returns false, with nothing
    /// queued, if there is no outbox, or if the bytes are none or too many. `waker` is called if
    /// they cannot be sent.
    pub(super) fn queue(&self, bytes: &[u8], waker: &Waker) -> bool {
        let inner = &mut *self.inner.borrow_mut();
        let Some(outbox) = self.pool.outbox.as_ref().filter(|outbox| outbox.is_open()) else {
            return false;
        };
        let fits = !bytes.is_empty() && bytes.len() <= MAX_QUEUED;
        // An error of the one before is found again by the next write.
        if !fits || inner.settle().is_err() || !inner.unsent.is_empty() {
            return false;
        }
        let mut wire = self.wire();
        if inner.session.encrypt(bytes, &mut wire).is_err() {
            return false;
        }
        inner.queued = Some(outbox.queue(&wire, &self.socket, waker));
        true
    }

    /// Returns true while records are in the outbox, or their result was not asked for yet.
    pub(super) fn is_queued(&self) -> bool {
        self.inner.borrow().queued.is_some()
    }

    /// Returns true if it is known that the records in the outbox could not be sent whole.
    pub(super) fn has_failed_send(&self) -> bool {
        self.inner.borrow().queued.as_ref().is_some_and(QueuedSend::has_failed)
    }

    /// Takes the result of the records in the outbox.
    pub(super) fn settle(&self) -> Result<(), Errno> {
        self.inner.borrow_mut().settle()
    }

    /// Sends records, and keeps what does not fit behind those that wait.
    fn transmit(&self, inner: &mut Inner, records: &[u8]) -> Result<(), Errno> {
        if records.is_empty() {
            return Ok(());
        }
        let mut result = inner.settle();
        let mut sent = 0;
        if result.is_ok() && inner.unsent.is_empty() {
            match self.socket.send(records) {
                Ok(count) => sent = count,
                Err(Errno::AGAIN) => {}
                Err(errno) => result = Err(errno),
            }
        }
        // After an error, too: the records have their numbers, so that none may be left out.
        inner.unsent.push(&records[sent..]);
        result
    }

    /// Sends records that wait until the socket is full. Returns true when none waits.
    ///
    /// # Errors
    /// As [`Stream::send`], but for `AGAIN`.
    pub fn flush(&self) -> Result<bool, Errno> {
        self.send_waiting(&mut self.inner.borrow_mut())
    }

    /// Sends records that wait until the socket is full. Returns true when none waits.
    fn send_waiting(&self, inner: &mut Inner) -> Result<bool, Errno> {
        inner.settle()?;
        if inner.unsent.is_empty() {
            return Ok(true);
        }
        while !inner.unsent.is_empty() {
            match self.socket.send(inner.unsent.waiting()) {
                Ok(sent) => inner.unsent.take(sent),
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        inner.count();
        Ok(true)
    }

    pub(super) fn unsent(&self) -> usize {
        self.inner.borrow().unsent.waiting().len()
    }

    /// See [`super::Transport::close_notify`].
    pub fn close_notify(&self) {
        let inner = &mut *self.inner.borrow_mut();
        let mut wire = self.wire();
        inner.session.close(&mut wire);
        inner.is_closing |= !wire.is_empty();
        // An error is found again by the next write, or by the peer.
        let _ = self.transmit(inner, &wire);
        inner.count();
    }

    pub(super) fn shutdown_write(&self) {
        self.close_notify();
        let _ = self.flush();
        self.socket.shutdown_write();
    }

    /// See [`super::Transport::reset_on_close`].
    pub fn reset_on_close(&self) {
        if let State::Failed(_) = self.state() {
            let _ = self.flush();
            self.socket.shutdown_write();
        } else {
            self.inner.borrow_mut().is_cut_off = true;
            self.socket.reset_on_close();
        }
    }

    /// The worker's buffer for records, emptied.
    fn wire(&self) -> RefMut<'_, Output> {
        let mut wire = self.pool.wire.borrow_mut();
        wire.clear();
        wire
    }

    fn scratch(&self) -> RefMut<'_, Vec<u8>> {
        let mut scratch = self.pool.scratch.borrow_mut();
        scratch.resize(SCRATCH, 0);
        scratch
    }
}

impl Drop for TlsStream {
    /// A clean close of the socket is announced by close_notify, as far as the socket has room.
    fn drop(&mut self) {
        // The session may be in any state, and what it has sent is not all.
        if std::thread::panicking() {
            return self.socket.reset_on_close();
        }
        let inner = self.inner.get_mut();
        if !inner.is_cut_off && !inner.is_truncated && inner.unsent.is_empty() {
            self.close_notify();
        }
    }
}

impl Inner {
    /// Takes the result of the records in the outbox. Those that did not fit become the first that
    /// wait.
    ///
    /// # Errors
    /// As [`Stream::send`], but for `AGAIN`. The records wait in this case, too.
    fn settle(&mut self) -> Result<(), Errno> {
        let Some(Err(short)) = self.queued.take().map(QueuedSend::finish) else { return Ok(()) };
        self.unsent.push_first(short.rest);
        self.count();
        if short.errno == Errno::AGAIN { Ok(()) } else { Err(short.errno) }
    }

    /// Moves decrypted bytes to the buffer of a caller.
    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let waiting = self.decrypted.waiting();
        let taken = waiting.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&waiting[..taken]);
        self.decrypted.take(taken);
        self.count();
        taken
    }

    fn count(&mut self) {
        self.charge.set(self.decrypted.kept() + self.unsent.kept() + self.session.kept());
    }
}
