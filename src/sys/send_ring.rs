//! A ring that does nothing but send: many small messages by one system call.
//!
//! Each send has the non-blocking flag of the call, so it is complete when the call returns:
//! nothing stays in flight, and a full socket is reported as by send(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::{IoUring, opcode, types};

use super::ring::ring_bytes;
use super::{Errno, Stream};

/// The ring, and room for the results of one call.
pub struct SendRing {
    /// `None` after the kernel has refused it.
    ring: Option<IoUring>,
    results: Vec<Result<usize, Errno>>,
}

impl SendRing {
    /// The most messages of one call. The ring takes 16 KiB, a small part of the memory that may be
    /// locked.
    pub const ENTRIES: usize = 128;

    /// Makes the ring. Must be called on the thread that sends, because the kernel refuses all
    /// others.
    ///
    /// # Errors
    /// As io_uring_setup(2): ENOMEM if the ring exceeds the limit of locked memory, EINVAL before
    /// Linux 6.1.
    pub fn new() -> io::Result<SendRing> {
        let results = Vec::with_capacity(SendRing::ENTRIES);
        Ok(SendRing { ring: Some(make_ring()?), results })
    }

    /// Bytes of the ring that count as locked memory.
    pub fn bytes() -> u64 {
        // By default the kernel makes two completion entries for each submission entry.
        ring_bytes(SendRing::ENTRIES as u32, 2 * SendRing::ENTRIES as u32)
    }

    /// Returns false after the kernel has refused the ring, which is not used any more then.
    pub fn is_open(&self) -> bool {
        self.ring.is_some()
    }

    /// Sends each message, at most [`SendRing::ENTRIES`] of them, to its stream. Returns one result
    /// for each message, as [`Stream::send`] would. A message that the ring has not sent has the
    /// result `AGAIN`.
    pub fn send<'a>(
        &mut self,
        messages: impl Iterator<Item = (&'a Stream, &'a [u8])>,
    ) -> &[Result<usize, Errno>] {
        self.results.clear();
        // Taken out, so that a ring is dropped unless all of its entries are complete.
        let Some(mut ring) = self.ring.take() else {
            self.results.extend(messages.map(|_| Err(Errno::AGAIN)));
            return &self.results;
        };
        let mut entries = ring.submission();
        for (index, (stream, bytes)) in messages.enumerate() {
            let socket = types::Fd(stream.as_fd().as_raw_fd());
            let entry = opcode::Send::new(socket, bytes.as_ptr(), bytes.len() as u32)
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                .build()
                .user_data(index as u64);
            // SAFETY: the descriptor is open and the bytes stay where they are for the lifetime of
            // the message, which outlasts this call. When this call returns, all sends are
            // complete, or the ring is dropped with the entries that the kernel has not taken.
            unsafe { entries.push(&entry) }.expect("the ring has an entry for each message");
            self.results.push(Err(Errno::AGAIN));
        }
        drop(entries);
        self.ring = match complete(&mut ring, &mut self.results) {
            Ok(()) => Some(ring),
            // The kernel was out of memory for a moment. The entries that it has not taken are
            // still in the ring, so the ring cannot be used again and is replaced.
            Err(Some(libc::EAGAIN | libc::EBUSY)) => make_ring().ok(),
            Err(_) => None,
        };
        &self.results
    }

    /// Makes every later call on the ring fail.
    #[cfg(test)]
    pub(crate) fn refuse_all(&self) {
        // The ring gets the descriptor of another file.
        let other = std::fs::File::open("/dev/null").expect("it exists everywhere");
        let ring = self.ring.as_ref().expect("the ring is open").as_raw_fd();
        // SAFETY: both descriptors are open, and the ring is closed like any file.
        assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), ring) }, ring);
    }
}

fn make_ring() -> io::Result<IoUring> {
    let mut ring = IoUring::builder();
    ring.setup_single_issuer().setup_coop_taskrun().setup_defer_taskrun().setup_submit_all();
    ring.build(SendRing::ENTRIES as u32)
}

/// Submits the entries of the ring and stores their results.
///
/// # Errors
/// The kernel's error if it refuses the other entries.
fn complete(ring: &mut IoUring, results: &mut [Result<usize, Errno>]) -> Result<(), Option<i32>> {
    let mut left = results.len();
    let mut wait_for = 0;
    while left > 0 {
        match ring.submitter().submit_and_wait(wait_for).map_err(|error| error.raw_os_error()) {
            Ok(_) | Err(Some(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
        }
        for completion in ring.completion() {
            left -= 1;
            results[completion.user_data() as usize] = result(completion.result());
        }
        // Not 0 if the kernel took fewer than all; those that it took are complete.
        wait_for = left;
    }
    Ok(())
}

/// Interprets the result of a completion.
fn result(completion: i32) -> Result<usize, Errno> {
    match completion {
        0.. => Ok(completion as usize),
        // Nothing is sent. It is like a full socket: the caller tries the message again.
        _ if completion == -libc::EINTR => Err(Errno::AGAIN),
        _ => Err(Errno::from_raw_os_error(-completion)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    /// Runs the test over epoll; skips it if the kernel cannot make the ring.
    fn with_ring(test: impl FnOnce(SendRing)) {
        let Ok(ring) = SendRing::new() else { return eprintln!("not tested without a ring") };
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
        runtime.block_on(async { test(ring) });
    }

    fn stream() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::from_fd(ours.into()).unwrap(), theirs)
    }

    #[test]
    fn a_completion_is_the_result_of_a_send() {
        assert_eq!(result(3), Ok(3));
        assert_eq!(result(0), Ok(0));
        assert_eq!(result(-libc::EINTR), Err(Errno::AGAIN));
        assert_eq!(result(-libc::EPIPE), Err(Errno::PIPE));
    }

    #[test]
    fn each_message_has_its_own_result() {
        with_ring(|mut ring| {
            let ((open, mut peer), (gone, closed)) = (stream(), stream());
            drop(closed);
            let messages = [(&gone, &b"lost"[..]), (&open, &b"arrives"[..])];
            assert_eq!(ring.send(messages.into_iter()), [Err(Errno::PIPE), Ok(7)]);
            assert_eq!(ring.send(messages[1..].iter().copied()), [Ok(7)], "only of this call");
            let mut read = [0; 14];
            peer.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"arrivesarrives");
        });
    }

    #[test]
    fn a_refused_ring_sends_nothing_and_stays_closed() {
        with_ring(|mut ring| {
            let (open, peer) = stream();
            peer.set_nonblocking(true).unwrap();
            ring.refuse_all();
            for _ in 0..2 {
                let results = ring.send([(&open, &b"x"[..])].into_iter());
                assert_eq!(results, [Err(Errno::AGAIN)]);
                assert!(!ring.is_open() && (&peer).read(&mut [0]).is_err());
            }
        });
    }
}
