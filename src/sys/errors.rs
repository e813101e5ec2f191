//! Reports errors of UDP sockets over epoll.
//!
//! An ICMP message makes a socket report EPOLLERR without EPOLLIN. The runtime's epoll driver takes
//! that for "writable", so a task that waits to read is not woken. Each socket is therefore also in
//! a second epoll instance, which reports only errors and for which one task of each worker waits.
//! That costs one epoll_ctl(2) for each socket, and nothing for a datagram. io_uring does not need
//! this, since its poll completes on an error.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use rustix::event::{Timespec, epoll};
use slab::Slab;

use super::Stream;

/// The most errors that one call returns.
const MAX_EVENTS: usize = 64;

/// The sockets of one worker whose errors are reported.
pub(super) struct Errors {
    epoll: Stream,
    sockets: RefCell<Slab<Socket>>,
}

/// A socket whose errors are reported; dropping this ends the reports.
pub(super) struct Reported {
    errors: Rc<Errors>,
    key: usize,
}

#[derive(Default)]
struct Socket {
    /// The task that waits for the socket.
    waker: Option<Waker>,
    /// Whether an error was reported since the last wait.
    has_error: bool,
}

impl Errors {
    /// Starts the task that waits for errors. Returns `None` if the driver reports them itself.
    ///
    /// # Errors
    /// As epoll_create1(2), or the runtime's.
    pub(super) fn start() -> io::Result<Option<Rc<Errors>>> {
        if !monoio::utils::is_legacy() {
            return Ok(None);
        }
        let epoll = Stream::from_fd(epoll::create(epoll::CreateFlags::CLOEXEC)?)?;
        let errors = Rc::new(Errors { epoll, sockets: RefCell::default() });
        // The task ends with the runtime.
        monoio::spawn(Rc::clone(&errors).wake_readers());
        Ok(Some(errors))
    }

    /// Reports the errors of a socket from now on. Returns `None` if the kernel has no room for the
    /// socket. The next call on the socket then returns the error.
    pub(super) fn report(self: &Rc<Self>, socket: impl AsFd) -> Option<Reported> {
        let key = self.sockets.borrow_mut().insert(Socket::default());
        let reported = Reported { errors: Rc::clone(self), key };
        // EPOLLERR is always included (epoll_ctl(2)). The kernel removes a socket when it is
        // closed.
        let data = epoll::EventData::new_u64(key as u64);
        epoll::add(&self.epoll, socket, data, epoll::EventFlags::ET).ok()?;
        Some(reported)
    }

    async fn wake_readers(self: Rc<Self>) {
        let mut events = Vec::with_capacity(MAX_EVENTS);
        loop {
            self.epoll.readable().await;
            events.clear();
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            // A failed call (EINTR) leaves the events for the next one.
            let _ =
                epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now));
            let mut sockets = self.sockets.borrow_mut();
            for event in &events {
                // The event may be that of a closed socket whose key a new one has now. The task of
                // the new socket then wakes up and finds nothing to read.
                if let Some(socket) = sockets.get_mut(event.data.u64() as usize) {
                    socket.has_error = true;
                    socket.waker.take().into_iter().for_each(Waker::wake);
                }
            }
        }
    }
}

impl Reported {
    /// Waits until `ready` completes or the socket has an error.
    pub(super) async fn ready_or_error(&self, ready: impl Future<Output = ()>) {
        let mut ready = pin!(ready);
        poll_fn(|cx| {
            if ready.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut sockets = self.errors.sockets.borrow_mut();
            let socket = &mut sockets[self.key];
            if std::mem::take(&mut socket.has_error) {
                return Poll::Ready(());
            }
            match &mut socket.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Reported {
    fn drop(&mut self) {
        self.errors.sockets.borrow_mut().remove(self.key);
    }
}
