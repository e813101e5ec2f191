//! A connected stream socket: readiness from the runtime, bytes by direct system calls.
//!
//! Waiting is a one-shot poll through the runtime, so an idle connection holds no buffer. Bytes are
//! moved by `recv`, `send` and `splice` with the non-blocking flag of the call. The same operations
//! through the ring would be handed to a worker thread of the kernel, or would copy. Nothing here
//! allocates per call.
//!
//! `recv` and `send` are rustix's, because socket2's `recv` with flags does not take a `&mut [u8]`.

use std::cell::Cell;
use std::io;
use std::net::{Shutdown, TcpStream as StdStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use monoio::net::TcpStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::{self, RecvFlags, SendFlags};
use socket2::{SockRef, TcpKeepalive};

use super::{Address, Errno};

/// A connected (or connecting) TCP or Unix stream socket that belongs to one worker.
pub struct Stream {
    /// `None` only while it is being dropped.
    inner: Option<TcpStream>,
    /// Polls that were handed to the runtime and have not completed. While there are any, the
    /// runtime owns a reference to the descriptor, and only the runtime may close it.
    polls: Cell<u32>,
    /// Whether O_NONBLOCK is set. splice(2) needs it; recv and send have a flag of their own.
    nonblocking: Cell<bool>,
}

/// TCP keepalive as [`Stream::set_keepalive`] sets it (tcp(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Time without traffic before the first probe, and between probes; whole seconds.
    pub idle: Duration,
}

impl Stream {
    /// Takes over a stream that the runtime accepted.
    pub fn accepted(inner: TcpStream) -> Self {
        // The epoll driver makes accepted sockets non-blocking, the ring does not. `false` is right
        // for both: setting the flag again when a splice needs it is harmless.
        Stream { inner: Some(inner), polls: Cell::new(0), nonblocking: Cell::new(false) }
    }

    /// Takes over any stream socket.
    ///
    /// # Errors
    /// The runtime's error if it cannot register the descriptor (epoll only).
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        // The runtime only polls and closes the socket, so its family may be another one than TCP.
        Ok(Stream::accepted(TcpStream::from_std(StdStream::from(fd))?))
    }

    /// Gives up the descriptor, for example to another worker. Only for a stream that was never
    /// waited for.
    pub fn into_fd(mut self) -> OwnedFd {
        let inner = self.inner.take().expect("the stream is taken out by drop alone");
        // SAFETY: `into_raw_fd` gives up the runtime's ownership, and there is no other owner.
        unsafe { OwnedFd::from_raw_fd(inner.into_raw_fd()) }
    }

    /// Takes over a stream socket with O_NONBLOCK set.
    ///
    /// # Errors
    /// As [`Stream::from_fd`].
    pub(super) fn from_nonblocking(fd: OwnedFd) -> io::Result<Self> {
        let stream = Stream::from_fd(fd)?;
        stream.nonblocking.set(true);
        Ok(stream)
    }

    /// Waits until a read would not block: data, the end of the stream or an error. May be dropped
    /// at any time.
    pub async fn readable(&self) {
        let poll = InFlight::new(self);
        // If the poll itself fails, the read after it reports the error.
        let _ = self.tcp().readable(false).await;
        poll.completed();
    }

    /// Waits until a write would not block. May be dropped at any time.
    pub async fn writable(&self) {
        let poll = InFlight::new(self);
        let _ = self.tcp().writable(false).await;
        poll.completed();
    }

    /// Reads available bytes; 0 is the end of the stream.
    ///
    /// # Errors
    /// `AGAIN` if no bytes are available; otherwise as recv(2).
    pub fn recv(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        retry_on_intr(|| Ok(net::recv(self.as_fd(), &mut *buffer, RecvFlags::DONTWAIT)?.1))
    }

    /// Reads available bytes without consuming them; 0 is the end of the stream.
    ///
    /// # Errors
    /// As [`Stream::recv`].
    pub fn peek(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        retry_on_intr(|| Ok(net::recv(self.as_fd(), &mut *buffer, flags)?.1))
    }

    /// Writes as many bytes as fit.
    ///
    /// # Errors
    /// `AGAIN` if nothing fits; `PIPE` or `CONNRESET` if the peer is gone; otherwise as send(2).
    pub fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        retry_on_intr(|| net::send(self.as_fd(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
    }

    /// Returns true if the peer has reset the connection. Unlike a read this consumes nothing, even
    /// if bytes wait.
    pub fn is_reset(&self) -> bool {
        self.events(PollFlags::empty()).contains(PollFlags::ERR)
    }

    /// Returns which of the wanted events there are now, and POLLERR and POLLHUP (poll(2)).
    fn events(&self, wanted: PollFlags) -> PollFlags {
        let mut polled = [PollFd::new(self, wanted)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut polled, Some(&now)) {
            Ok(_) => polled[0].revents(),
            Err(_) => PollFlags::empty(),
        }
    }

    /// Returns true if a read would not block: there are bytes, the end of the stream or an error.
    pub fn has_input(&self) -> bool {
        !self.events(PollFlags::IN).is_empty()
    }

    /// Returns true if a write would succeed or fail at once, or if a connect has its result.
    pub fn can_write(&self) -> bool {
        !self.events(PollFlags::OUT).is_empty()
    }

    /// Returns true if the peer has ended its writing side or is gone, even if its bytes wait to be
    /// read.
    pub fn has_ended(&self) -> bool {
        !self.events(PollFlags::RDHUP).is_empty()
    }

    /// Bytes that were sent and that the peer's kernel has not acknowledged (SIOCOUTQ, tcp(7)); of
    /// a Unix socket those that the peer has not read. A reset destroys them.
    pub fn unacknowledged(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: TIOCOUTQ, which is SIOCOUTQ, writes one int to the pointer, which is valid.
        let result = unsafe { libc::ioctl(self.tcp().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        // EINVAL of a socket that has no connection any more: then nothing waits.
        if result == 0 { usize::try_from(bytes).unwrap_or_default() } else { 0 }
    }

    /// Ends the writing side: the peer reads the end of the stream after what was sent.
    pub fn shutdown_write(&self) {
        // ENOTCONN: the peer has closed the connection before, so there is nothing to end.
        let _ = SockRef::from(self).shutdown(Shutdown::Write);
    }

    /// Ends the reading side: bytes that have arrived can still be read, and the end of the stream
    /// follows. A task that waits in [`Stream::readable`] wakes up.
    pub fn shutdown_read(&self) {
        let _ = SockRef::from(self).shutdown(Shutdown::Read);
    }

    /// Ends both sides, also those of a connect in progress, and wakes all tasks that wait.
    pub fn shutdown(&self) {
        let _ = SockRef::from(self).shutdown(Shutdown::Both);
    }

    /// The address of the peer. `None` if it is gone.
    pub fn peer(&self) -> Option<Address> {
        SockRef::from(self).peer_addr().ok().map(|peer| Address::of_peer(&peer))
    }

    /// Makes the close that follows send a reset, so that the peer does not take a broken stream
    /// for a complete one. A Unix stream has no reset (unix(7)): its peer reads the end of the
    /// stream, or ECONNRESET if bytes that the peer sent were not read.
    pub fn reset_on_close(&self) {
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }

    /// Turns TCP keepalive on.
    pub fn set_keepalive(&self, keepalive: Keepalive) {
        let _ = SockRef::from(self).set_tcp_keepalive(&keepalive.into());
    }

    /// Sets O_NONBLOCK if it is not set yet, by one ioctl(2) where socket2 calls fcntl(2) twice.
    ///
    /// # Errors
    /// As ioctl(2); practically never.
    pub fn ensure_nonblocking(&self) -> Result<(), Errno> {
        if !self.nonblocking.get() {
            rustix::io::ioctl_fionbio(self.as_fd(), true)?;
            self.nonblocking.set(true);
        }
        Ok(())
    }

    fn tcp(&self) -> &TcpStream {
        self.inner.as_ref().expect("the stream is taken out by drop alone")
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `inner` keeps the descriptor open for at least as long as the borrow of `self`
        // lasts.
        unsafe { BorrowedFd::borrow_raw(self.tcp().as_raw_fd()) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The task of this stream has panicked. Its peer must not take what it has got for all.
        if std::thread::panicking() && self.inner.is_some() {
            self.reset_on_close();
        }
        // A close through the runtime uses the ring: two entries, two completions and an
        // allocation. A direct close is cheaper, but only allowed if the runtime holds no poll of
        // this stream.
        if self.polls.get() == 0
            && let Some(inner) = self.inner.take()
        {
            // SAFETY: as in `into_fd`.
            drop(unsafe { OwnedFd::from_raw_fd(inner.into_raw_fd()) });
        }
    }
}

impl From<Keepalive> for TcpKeepalive {
    fn from(Keepalive { idle }: Keepalive) -> Self {
        TcpKeepalive::new().with_time(idle).with_interval(idle)
    }
}

/// A poll between its submission and its completion.
struct InFlight<'a> {
    polls: &'a Cell<u32>,
}

impl<'a> InFlight<'a> {
    fn new(stream: &'a Stream) -> Self {
        stream.polls.set(stream.polls.get() + 1);
        InFlight { polls: &stream.polls }
    }

    fn completed(self) {
        self.polls.set(self.polls.get() - 1);
    }
}
