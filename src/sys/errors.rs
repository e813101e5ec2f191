//! Errors of UDP sockets over epoll.
//!
//! An ICMP message makes a socket report EPOLLERR without EPOLLIN, which the runtime's epoll driver
//! takes for "writable": a task that waits to read sleeps on. So sockets are in a second epoll
//! instance as well, which reports nothing but errors, and one task for each worker waits for that.
//! It costs one epoll_ctl(2) for each socket, and nothing for a datagram. A poll through the ring
//! completes on an error by itself.

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

/// Errors that are taken by one call.
const TOGETHER: usize = 64;

/// The sockets of one worker whose errors are reported.
pub(super) struct Errors {
    epoll: Stream,
    sockets: RefCell<Slab<Socket>>,
}

/// A socket whose errors are reported, until this is dropped.
pub(super) struct Reported {
    errors: Rc<Errors>,
    key: usize,
}

#[derive(Default)]
struct Socket {
    /// The task that waits.
    waker: Option<Waker>,
    /// There was an error since the last wait.
    has_error: bool,
}

impl Errors {
    /// Starts the task that waits for errors. None: the driver reports them itself.
    ///
    /// # Errors
    /// As epoll_create1(2), or the runtime's.
    pub(super) fn start() -> io::Result<Option<Rc<Errors>>> {
        if !monoio::utils::is_legacy() {
            return Ok(None);
        }
        let epoll = Stream::from_fd(epoll::create(epoll::CreateFlags::CLOEXEC)?)?;
        let errors = Rc::new(Errors { epoll, sockets: RefCell::default() });
        // It ends with the runtime.
        monoio::spawn(Rc::clone(&errors).wake());
        Ok(Some(errors))
    }

    /// Reports the errors of a socket from now on. None: the kernel has no room for it, and its
    /// errors show at the next call.
    pub(super) fn report(self: &Rc<Self>, socket: impl AsFd) -> Option<Reported> {
        let key = self.sockets.borrow_mut().insert(Socket::default());
        let reported = Reported { errors: Rc::clone(self), key };
        // EPOLLERR is always included (epoll_ctl(2)). The kernel removes a socket that is closed.
        let data = epoll::EventData::new_u64(key as u64);
        epoll::add(&self.epoll, socket, data, epoll::EventFlags::ET).ok()?;
        Some(reported)
    }

    async fn wake(self: Rc<Self>) {
        let mut events = Vec::with_capacity(TOGETHER);
        loop {
            self.epoll.readable().await;
            events.clear();
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            // A failure (EINTR) leaves the events for the next call.
            let _ =
                epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now));
            let mut sockets = self.sockets.borrow_mut();
            for event in &events {
                // The event of a socket that was closed may meet the one that has its key now,
                // whose task then finds nothing.
                if let Some(socket) = sockets.get_mut(event.data.u64() as usize) {
                    socket.has_error = true;
                    socket.waker.take().into_iter().for_each(Waker::wake);
                }
            }
        }
    }
}

impl Reported {
    /// Waits for `ready`, or until the socket has an error.
    pub(super) async fn or_error(&self, ready: impl Future<Output = ()>) {
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
