//! Turns of the tasks of one worker: how a task that could continue yields to the others.
//!
//! monoio runs a task that wakes itself before all others, and it processes no completions of the
//! ring while the ready queue is not empty. So a helper task wakes the task that yields. The
//! yielding task writes a byte to a socket pair (it rings a bell), and the helper waits through the
//! kernel until it can read that byte (it hears the bell). All that became ready before the byte
//! was written is handled before it, in as many calls as that takes: Linux runs 20 deferred
//! completions per call. This order holds only if the helper waited before the byte was written. So
//! there are two bells: while one is rung, the helper of the other starts to wait.
//!
//! The epoll driver remembers readiness, so a wait for what is ready returns at once. Over epoll
//! tasks therefore also count their turns, and a task yields at the end of a round.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use super::Stream;

/// Turns of a round over epoll. At its end the task that is running yields.
const ROUND: u32 = 64;

/// Shared by the tasks of one worker, so that they can yield to each other.
pub struct Turns {
    bells: [Bell; 2],
    /// Index of the bell of the next round.
    next: Cell<usize>,
    /// Turns since the last round; `None` unless the driver is epoll.
    taken: Option<Cell<u32>>,
}

/// A socket pair. A round ends when the helper has read the byte in it.
struct Bell {
    /// The end that is written to. The helper has the other end.
    rope: UnixStream,
    /// Wakers of the tasks that yield until the byte is read. The first of these tasks writes it.
    waiting: RefCell<Vec<Waker>>,
    /// How many times the helper has read a byte.
    heard: Cell<u64>,
}

impl Turns {
    /// Starts the helper tasks. Must be called on the worker's thread.
    ///
    /// # Errors
    /// EMFILE or ENFILE from socketpair(2).
    pub fn start() -> io::Result<Rc<Turns>> {
        let [(first, first_bell), (second, second_bell)] = [Bell::new()?, Bell::new()?];
        let turns = Rc::new(Turns {
            bells: [first_bell, second_bell],
            next: Cell::new(0),
            taken: monoio::utils::is_legacy().then(Cell::default),
        });
        monoio::spawn(help(Rc::downgrade(&turns), 0, first));
        monoio::spawn(help(Rc::downgrade(&turns), 1, second));
        Ok(turns)
    }

    /// Yields until every task that is ready by now has had a turn. May be dropped at any time.
    pub async fn give_way(&self) {
        let bell = &self.bells[self.next.get()];
        let until = bell.heard.get() + 1;
        poll_fn(|cx| {
            if bell.heard.get() >= until {
                return Poll::Ready(());
            }
            let mut waiting = bell.waiting.borrow_mut();
            if waiting.is_empty() {
                // The socket pair holds one byte at most, so it is never full.
                let _ = (&bell.rope).write(&[0]);
            }
            waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Counts a turn. Returns true when the task must yield, which is so over epoll only.
    pub fn take(&self) -> bool {
        self.taken.as_ref().is_some_and(|taken| {
            taken.set(taken.get() + 1);
            taken.get() >= ROUND
        })
    }

    /// Ends a round after the helper has read the byte of this bell.
    fn end_round(&self, index: usize) {
        self.next.set(1 - index);
        if let Some(taken) = &self.taken {
            taken.set(0);
        }
        let bell = &self.bells[index];
        bell.heard.set(bell.heard.get() + 1);
        // Waking only puts a task into the ready queue, so none can join `waiting` meanwhile.
        bell.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}

impl Bell {
    fn new() -> io::Result<(Stream, Bell)> {
        let (bell, rope) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        rope.set_nonblocking(true)?;
        // Room for more tasks than usually yield at one time, so that yielding allocates nothing.
        let (waiting, heard) = (RefCell::new(Vec::with_capacity(64)), Cell::new(0));
        Ok((Stream::from_fd(bell.into())?, Bell { rope, waiting, heard }))
    }
}

/// The helper task of one bell. It ends after `Turns` is dropped, which closes the other end.
async fn help(turns: Weak<Turns>, index: usize, bell: Stream) {
    loop {
        bell.readable().await;
        // The socket is emptied, so that epoll reports the next byte as a new event.
        let _ = bell.recv(&mut [0]);
        let Some(turns) = turns.upgrade() else { return };
        turns.end_round(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than the kernel completes in one call.
    const MANY: usize = 200;

    /// Runs the test over epoll, and over a ring like a worker's if the kernel has one.
    fn on_each_driver(test: impl AsyncFn()) {
        let mut epoll = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
        epoll.block_on(test());
        let mut ring = io_uring::IoUring::builder();
        ring.setup_single_issuer().setup_coop_taskrun().setup_defer_taskrun();
        let runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().uring_builder(ring);
        match runtime.build() {
            Ok(mut ring) => ring.block_on(test()),
            Err(error) => eprintln!("not tested through a ring: {error}"),
        }
    }

    fn stream() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::from_fd(ours.into()).unwrap(), theirs)
    }

    #[test]
    fn all_that_was_ready_is_heard_before_a_task_that_gave_way_goes_on() {
        on_each_driver(async || {
            let turns = Turns::start().unwrap();
            let heard = Rc::new(Cell::new(0));
            let mut sources = Vec::new();
            for _ in 0..MANY {
                let (ours, theirs) = stream();
                sources.push(theirs);
                let heard = Rc::clone(&heard);
                monoio::spawn(async move {
                    loop {
                        ours.readable().await;
                        ours.recv(&mut [0]).unwrap();
                        heard.set(heard.get() + 1);
                    }
                });
            }
            // The busy task is a spawned one, like all tasks of a worker.
            let greedy = monoio::spawn(async move {
                for round in 1..=10 {
                    turns.give_way().await;
                    sources.iter_mut().for_each(|source| source.write_all(&[1]).unwrap());
                    turns.give_way().await;
                    assert_eq!(heard.get(), round * MANY);
                }
            });
            greedy.await;
        });
    }

    #[test]
    fn over_epoll_a_stream_that_is_always_ready_lets_others_be_heard() {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
        runtime.block_on(async {
            let turns = Turns::start().unwrap();
            let ((greedy, mut source), (modest, mut other)) = (stream(), stream());
            let heard = Rc::new(Cell::new(false));
            let hears = Rc::clone(&heard);
            monoio::spawn(async move {
                modest.readable().await;
                hears.set(true);
            });
            let greedy = monoio::spawn(async move {
                // The source sends more before all is read, so the reader never has to wait.
                source.write_all(b"more").unwrap();
                turns.give_way().await;
                other.write_all(b"!").unwrap();
                for taken in 1.. {
                    source.write_all(b"more").unwrap();
                    greedy.readable().await;
                    greedy.recv(&mut [0; 2]).unwrap();
                    if turns.take() {
                        turns.give_way().await;
                    }
                    if heard.get() {
                        return;
                    }
                    assert!(taken <= ROUND, "the other one is not heard");
                }
            });
            greedy.await;
        });
    }
}
