//! Yielding: how a task that could continue lets all other ready tasks run first.
//!
//! monoio runs a task that wakes itself before all others, and it processes no completions of the
//! ring while the ready queue is not empty. So a helper task wakes the task that yields. The
//! yielding task writes a byte to a socket pair, and the helper waits through the kernel until it
//! can read that byte. All that became ready before the byte was written is handled before it, in
//! as many calls as that takes: Linux runs 20 deferred completions per call. The byte is thus a
//! fence in the order of events. This order holds only if the helper waited before the byte was
//! written. So there are two fences: while one is used, the helper of the other starts to wait.
//!
//! The epoll driver remembers readiness, so a wait for what is ready returns at once. Over epoll
//! tasks therefore also share a budget of waits, and a task yields when it is spent.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use crate::sys::Stream;

/// Waits over epoll after which the running task yields.
const WAIT_BUDGET: u32 = 64;

/// Shared by the tasks of one worker, so that they can yield to each other.
pub struct Yielder {
    fences: [Fence; 2],
    /// Index of the fence that the next task to yield uses.
    current: Cell<usize>,
    /// Waits until a task must yield; `None` unless the driver is epoll.
    budget: Option<Cell<u32>>,
}

/// A socket pair. A fence is complete when the helper has read the byte in it.
struct Fence {
    /// The end that is written to. The helper has the other end.
    writer: UnixStream,
    /// Wakers of the tasks that yield until the byte is read. The first of these tasks writes it.
    /// All of them wake together, so they need no queue.
    waiting: RefCell<Vec<Waker>>,
    /// How many times the helper has read a byte.
    completed: Cell<u64>,
}

impl Yielder {
    /// Starts the helper tasks. Must be called on the worker's thread.
    ///
    /// # Errors
    /// EMFILE or ENFILE from socketpair(2).
    pub fn start() -> io::Result<Rc<Yielder>> {
        let [(first, first_fence), (second, second_fence)] = [Fence::new()?, Fence::new()?];
        let yielder = Rc::new(Yielder {
            fences: [first_fence, second_fence],
            current: Cell::new(0),
            budget: monoio::utils::is_legacy().then(|| Cell::new(WAIT_BUDGET)),
        });
        monoio::spawn(help(Rc::downgrade(&yielder), 0, first));
        monoio::spawn(help(Rc::downgrade(&yielder), 1, second));
        Ok(yielder)
    }

    /// Yields until every task that is ready by now has run. May be dropped at any time.
    pub async fn yield_now(&self) {
        let fence = &self.fences[self.current.get()];
        let until = fence.completed.get() + 1;
        poll_fn(|cx| {
            if fence.completed.get() >= until {
                return Poll::Ready(());
            }
            let mut waiting = fence.waiting.borrow_mut();
            if waiting.is_empty() {
                // The socket pair holds one byte at most, so it is never full.
                let _ = (&fence.writer).write(&[0]);
            }
            waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Counts a wait against the budget. Returns true when the task must yield, which is so over
    /// epoll only.
    pub fn should_yield(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| {
            budget.set(budget.get().saturating_sub(1));
            budget.get() == 0
        })
    }

    /// Counts a wait against the budget, and yields when that is spent.
    pub async fn consume_budget(&self) {
        if self.should_yield() {
            self.yield_now().await;
        }
    }

    /// Wakes the tasks that wait for a fence, after the helper has read its byte.
    fn complete(&self, index: usize) {
        self.current.set(1 - index);
        if let Some(budget) = &self.budget {
            budget.set(WAIT_BUDGET);
        }
        let fence = &self.fences[index];
        fence.completed.set(fence.completed.get() + 1);
        // Waking only puts a task into the ready queue, so none can join `waiting` meanwhile.
        fence.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}

impl Fence {
    fn new() -> io::Result<(Stream, Fence)> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        // Room for more tasks than usually yield at one time, so that yielding allocates nothing.
        let (waiting, completed) = (RefCell::new(Vec::with_capacity(64)), Cell::new(0));
        Ok((Stream::from_fd(reader.into())?, Fence { writer, waiting, completed }))
    }
}

/// The helper task of one fence. It ends after the [`Yielder`] is dropped, which closes the other
/// end.
async fn help(yielder: Weak<Yielder>, index: usize, reader: Stream) {
    loop {
        reader.readable().await;
        // The socket is emptied, so that epoll reports the next byte as a new event.
        let _ = reader.recv(&mut [0]);
        let Some(yielder) = yielder.upgrade() else { return };
        yielder.complete(index);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{on_each_driver, stream};
    use super::*;

    /// More than the kernel completes in one call.
    const MANY: usize = 200;

    #[test]
    fn all_ready_tasks_run_before_a_task_that_yields_goes_on() {
        on_each_driver(async || {
            let yielder = Yielder::start().unwrap();
            let received = Rc::new(Cell::new(0));
            let mut sources = Vec::new();
            for _ in 0..MANY {
                let (ours, theirs) = stream();
                sources.push(theirs);
                let received = Rc::clone(&received);
                monoio::spawn(async move {
                    loop {
                        ours.readable().await;
                        ours.recv(&mut [0]).unwrap();
                        received.set(received.get() + 1);
                    }
                });
            }
            // The busy task is a spawned one, like all tasks of a worker.
            let busy = monoio::spawn(async move {
                for round in 1..=10 {
                    yielder.yield_now().await;
                    sources.iter_mut().for_each(|source| source.write_all(&[1]).unwrap());
                    yielder.yield_now().await;
                    assert_eq!(received.get(), round * MANY);
                }
            });
            busy.await;
        });
    }

    #[test]
    fn over_epoll_a_task_whose_stream_is_always_ready_must_yield() {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
        runtime.block_on(async {
            let yielder = Yielder::start().unwrap();
            let ((always_ready, mut source), (other, mut other_source)) = (stream(), stream());
            let other_ran = Rc::new(Cell::new(false));
            let runs = Rc::clone(&other_ran);
            monoio::spawn(async move {
                other.readable().await;
                runs.set(true);
            });
            let busy = monoio::spawn(async move {
                // The source sends more before all is read, so the reader never has to wait.
                source.write_all(b"more").unwrap();
                yielder.yield_now().await;
                other_source.write_all(b"!").unwrap();
                for waits in 1.. {
                    source.write_all(b"more").unwrap();
                    always_ready.readable().await;
                    always_ready.recv(&mut [0; 2]).unwrap();
                    if yielder.should_yield() {
                        yielder.yield_now().await;
                    }
                    if other_ran.get() {
                        return;
                    }
                    assert!(waits <= WAIT_BUDGET, "the other task does not run");
                }
            });
            busy.await;
        });
    }
}
