//! Turns of the tasks of one worker: how a task that could go on lets the others have theirs.
//!
//! A task that wakes itself is run again before all others (monoio puts it in front), and a run
//! queue that is never empty keeps the ring's completions from being looked at. So a helper task
//! does the waking, after a trip to the kernel of its own: through the ring it waits for a
//! descriptor that is always ready, over epoll for one that it makes ready.
//!
//! The epoll driver remembers readiness, so that waiting for what is ready returns at once. There,
//! tasks also count their turns, and one that comes to the end of a round gives way.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use super::Stream;

/// Turns over epoll between two looks at who else is ready.
const ROUND: u32 = 64;

/// What the helper waits for.
enum Door {
    /// Always writable, as its peer is gone.
    Open(Stream),
    /// Readable when the other end has been written to: only news make epoll speak.
    Bell(Stream, UnixStream),
}

/// Shared by the tasks of one worker.
pub struct Turns {
    door: Door,
    /// Those who give way, until the helper wakes them.
    waiting: RefCell<Vec<Waker>>,
    helper: RefCell<Option<Waker>>,
    /// Rounds that the helper has ended.
    rounds: Cell<u64>,
    /// Turns since then.
    taken: Cell<u32>,
}

impl Turns {
    /// Starts the helper. On the worker's thread.
    ///
    /// # Errors
    /// EMFILE or ENFILE from socketpair(2).
    pub fn start() -> io::Result<Rc<Turns>> {
        let (door, rope) = UnixStream::pair()?;
        door.set_nonblocking(true)?;
        rope.set_nonblocking(true)?;
        let door = Stream::from_fd(door.into())?;
        let door = match monoio::utils::is_legacy() {
            true => Door::Bell(door, rope),
            false => Door::Open(door),
        };
        let turns = Rc::new(Turns {
            door,
            waiting: RefCell::default(),
            helper: RefCell::default(),
            rounds: Cell::new(0),
            taken: Cell::new(0),
        });
        monoio::spawn(help(Rc::downgrade(&turns)));
        Ok(turns)
    }

    /// Lets every task that is ready by now have a turn. May be dropped at any time.
    pub async fn give_way(&self) {
        let mut until = None;
        poll_fn(|cx| {
            let until = *until.get_or_insert(self.rounds.get() + 1);
            if self.rounds.get() >= until {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            if let Some(helper) = &*self.helper.borrow() {
                helper.wake_by_ref();
            }
            Poll::Pending
        })
        .await;
    }

    /// Counts a turn. True: it is time to give way.
    pub fn take(&self) -> bool {
        matches!(self.door, Door::Bell(..)) && {
            self.taken.set(self.taken.get() + 1);
            self.taken.get() >= ROUND
        }
    }

    /// Ends a round.
    fn next_round(&self) {
        self.taken.set(0);
        self.rounds.set(self.rounds.get() + 1);
        // Swapped: one that is woken may be back before the list has been gone through, and the
        // list keeps its room.
        let mut woken = self.waiting.take();
        woken.drain(..).for_each(Waker::wake);
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            *waiting = woken;
        }
    }
}

/// The helper. It ends with the worker's last task that could call it.
async fn help(turns: Weak<Turns>) {
    loop {
        poll_fn(|cx| {
            let Some(turns) = turns.upgrade() else { return Poll::Ready(()) };
            turns.helper.borrow_mut().get_or_insert_with(|| cx.waker().clone());
            if turns.waiting.borrow().is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        let Some(turns) = turns.upgrade() else { return };
        match &turns.door {
            Door::Open(door) => door.writable().await,
            Door::Bell(bell, rope) => rings(bell, rope).await,
        }
        turns.next_round();
    }
}

/// Rings, and waits until epoll tells. What it remembers of the last time goes with a look that
/// finds nothing, so the look comes first.
async fn rings(bell: &Stream, mut rope: &UnixStream) {
    let (mut readable, mut rung) = (pin!(bell.readable()), false);
    poll_fn(|cx| {
        let poll = readable.as_mut().poll(cx);
        if !rung {
            rung = true;
            // One byte is in it at most, so that it is never full.
            let _ = rope.write(&[0]);
        }
        poll
    })
    .await;
    let _ = bell.recv(&mut [0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn over_epoll_a_stream_that_is_always_ready_lets_others_be_heard() {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
        runtime.block_on(async {
            let turns = Turns::start().unwrap();
            let stream = || {
                let (ours, theirs) = UnixStream::pair().unwrap();
                ours.set_nonblocking(true).unwrap();
                (Stream::from_fd(ours.into()).unwrap(), theirs)
            };
            let ((greedy, mut source), (modest, mut other)) = (stream(), stream());
            let heard = Rc::new(Cell::new(false));
            let hears = Rc::clone(&heard);
            monoio::spawn(async move {
                modest.readable().await;
                hears.set(true);
            });
            other.write_all(b"!").unwrap();
            // Its source says more before it has heard all: it never has to wait.
            let mut taken = 0;
            while !heard.get() {
                source.write_all(b"more").unwrap();
                greedy.readable().await;
                greedy.recv(&mut [0; 2]).unwrap();
                if turns.take() {
                    turns.give_way().await;
                }
                taken += 1;
                assert!(taken <= 4 * ROUND, "the other one is not heard");
            }
            source.set_nonblocking(true).unwrap();
            assert!(source.read(&mut [0]).is_err());
        });
    }
}
