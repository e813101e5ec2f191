//! Turns of the tasks of one worker: how a task that could go on lets the others have theirs.
//!
//! A task that wakes itself is run again before all others (monoio puts it in front), and a run
//! queue that is never empty keeps the ring's completions from being looked at. So a helper task
//! does the waking, when a bell that was rung has been heard through the kernel. What became ready
//! before the bell is heard before it, in as many calls as that takes: Linux runs 20 deferred
//! completions for each. That holds only for a bell that was waited for already when it was rung;
//! so there are two, and while one is rung the other gets ready.
//!
//! The epoll driver remembers readiness, so that waiting for what is ready returns at once. There,
//! tasks also count their turns, and one that comes to the end of a round gives way.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use super::Stream;

/// Turns over epoll between two looks at who else is ready.
const ROUND: u32 = 64;

/// Shared by the tasks of one worker.
pub struct Turns {
    bells: [Bell; 2],
    /// The bell of the next round.
    next: Cell<usize>,
    /// Over epoll: turns since the last round.
    taken: Option<Cell<u32>>,
}

/// What ends a round.
struct Bell {
    rope: UnixStream,
    /// Those who give way until it is heard; it was rung for the first of them.
    waiting: RefCell<Vec<Waker>>,
    heard: Cell<u64>,
}

impl Turns {
    /// Starts the helpers. On the worker's thread.
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

    /// Lets every task that is ready by now have a turn. May be dropped at any time.
    pub async fn give_way(&self) {
        let bell = &self.bells[self.next.get()];
        let until = bell.heard.get() + 1;
        poll_fn(|cx| {
            if bell.heard.get() >= until {
                return Poll::Ready(());
            }
            let mut waiting = bell.waiting.borrow_mut();
            if waiting.is_empty() {
                // One byte is in it at most, so that it is never full.
                let _ = (&bell.rope).write(&[0]);
            }
            waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Counts a turn. True: it is time to give way.
    pub fn take(&self) -> bool {
        self.taken.as_ref().is_some_and(|taken| {
            taken.set(taken.get() + 1);
            taken.get() >= ROUND
        })
    }

    /// A bell has been heard.
    fn end_round(&self, index: usize) {
        self.next.set(1 - index);
        if let Some(taken) = &self.taken {
            taken.set(0);
        }
        let bell = &self.bells[index];
        bell.heard.set(bell.heard.get() + 1);
        // Waking only puts in line, so that nobody comes back meanwhile.
        bell.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}

impl Bell {
    fn new() -> io::Result<(Stream, Bell)> {
        let (bell, rope) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        rope.set_nonblocking(true)?;
        // Room for more than usually give way at one time: giving way allocates nothing.
        let (waiting, heard) = (RefCell::new(Vec::with_capacity(64)), Cell::new(0));
        Ok((Stream::from_fd(bell.into())?, Bell { rope, waiting, heard }))
    }
}

/// Waits for one of the bells. It ends with the turns: then the rope is gone.
async fn help(turns: Weak<Turns>, index: usize, bell: Stream) {
    loop {
        bell.readable().await;
        // Nothing is left, so that epoll speaks of the next ring as news.
        let _ = bell.recv(&mut [0]);
        let Some(turns) = turns.upgrade() else { return };
        turns.end_round(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than the kernel tells in one call.
    const MANY: usize = 200;

    /// Runs the test over epoll, and through a ring like a worker's where the kernel has one.
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
            // The task that is in the way: one of those that the worker runs.
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
                // Its source says more before it has heard all: it never has to wait.
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
