//! A panic in the task of one connection ends that connection and nothing else.
//!
//! The runtime does not catch panics: one would unwind through its loop and end the worker. A task
//! that serves one connection, stream or session is therefore wrapped. What it owns is dropped
//! while the stack unwinds: sockets are closed with a reset ([`Stream`](crate::sys::Stream)),
//! borrows, permits and counts end.
//!
//! What all tasks share must be valid after a panic. An operation on it that could leave it half
//! done runs in [`not_caught`]: then a panic ends the process, as it does outside of these tasks.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

thread_local! {
    /// Whether a panic on this thread is caught.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// The future has panicked. The panic hook has reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

pin_project! {
    /// A future whose panics become [`Panicked`]. It must not be polled again after that.
    pub struct CatchPanic<F> {
        #[pin]
        future: F,
    }
}

/// Catches the panics of a future.
pub fn catch_panic<F: Future>(future: F) -> CatchPanic<F> {
    CatchPanic { future }
}

/// Starts a task whose panic ends this task alone.
pub fn spawn_isolated(task: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(catch_panic(task)));
}

/// Does work in which a panic ends the process, because others would find its state half changed.
pub fn not_caught<T>(work: impl FnOnce() -> T) -> T {
    let is_caught = IS_CAUGHT.replace(false);
    let result = work();
    IS_CAUGHT.set(is_caught);
    result
}

/// Returns true if the panic that has just begun on this thread is caught. For the panic hook, and
/// once for each panic: one more, in a destructor while the stack unwinds, cannot be caught.
pub fn begin_panic() -> bool {
    IS_CAUGHT.replace(false)
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.project().future;
        let before = IS_CAUGHT.replace(true);
        // The future is not used again after a panic, and what it shares with others is valid: see
        // the head of this module.
        let result = catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
        IS_CAUGHT.set(before);
        match result {
            Ok(poll) => poll.map(Ok),
            Err(_payload) => Poll::Ready(Err(Panicked)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::{ErrorKind, Read, Write};
    use std::rc::Rc;

    use super::super::testing::{on_each_driver, stream};
    use super::super::{Charge, Memory, Turn, Turns, WaitQueue, Yielder};
    use super::*;

    /// What tasks of a worker share.
    struct Common {
        yielder: Rc<Yielder>,
        turns: Turns,
        memory: Rc<Memory>,
        buffer: RefCell<Vec<u8>>,
        queue: WaitQueue,
    }

    impl Common {
        fn start() -> Rc<Common> {
            let yielder = Yielder::start().unwrap();
            Rc::new(Common {
                turns: Turns::new(Rc::clone(&yielder), 100),
                memory: Memory::new(1000),
                buffer: RefCell::default(),
                queue: WaitQueue::default(),
                yielder,
            })
        }
    }

    /// Panics in a turn, with everything borrowed that there is.
    async fn panic_in_a_turn(common: Rc<Common>) {
        let mut charge = Charge::new(&common.memory);
        charge.set(10);
        let _ticket = common.queue.join();
        common.yielder.yield_now().await;
        let work = |turn: &mut Turn<'_>| {
            turn.spend(5);
            let buffer = common.buffer.borrow_mut();
            assert!(!buffer.is_empty(), "a panic of this test");
        };
        common.turns.turn(work).await;
    }

    #[test]
    fn a_panic_is_the_result_of_its_task_and_others_go_on() {
        on_each_driver(async || {
            let common = Common::start();
            for _ in 0..3 {
                let panics = catch_panic(panic_in_a_turn(Rc::clone(&common)));
                let panics = monoio::spawn(panics);
                let (ours, mut theirs) = stream();
                theirs.set_nonblocking(true).unwrap();
                let goes_on = monoio::spawn(catch_panic(async move {
                    ours.readable().await;
                    ours.recv(&mut [0; 8])
                }));
                assert_eq!(panics.await, Err(Panicked));
                // Nothing is left of it, and others can use what it has used.
                assert_eq!((common.memory.kept(), common.queue.is_empty()), (0, true));
                common.buffer.borrow_mut().clear();
                common.turns.turn(|turn| turn.spend(1)).await;
                common.yielder.yield_now().await;
                theirs.write_all(b"more").unwrap();
                assert_eq!(goes_on.await, Ok(Ok(4)));
            }
            assert_eq!(Rc::strong_count(&common), 1);
        });
    }

    #[test]
    fn a_stream_that_is_waited_for_is_closed_by_a_panic_of_its_task() {
        on_each_driver(async || {
            let (ours, mut theirs) = stream();
            theirs.set_nonblocking(true).unwrap();
            let yielder = Yielder::start().unwrap();
            let waited = Rc::clone(&yielder);
            let task = monoio::spawn(catch_panic(async move {
                let mut readable = std::pin::pin!(ours.readable());
                let mut yielded = std::pin::pin!(waited.yield_now());
                // A poll of the stream is in flight as the task panics.
                std::future::poll_fn(|cx| {
                    assert!(readable.as_mut().poll(cx).is_pending());
                    yielded.as_mut().poll(cx)
                })
                .await;
                panic!("a panic of this test");
            }));
            assert_eq!(task.await, Err(Panicked));
            // The runtime closes it, which takes turns of its loop.
            loop {
                match theirs.read(&mut [0]) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        yielder.yield_now().await
                    }
                    result => break assert_eq!(result.unwrap(), 0),
                }
            }
        });
    }

    #[test]
    fn what_is_caught_is_known_while_it_happens() {
        on_each_driver(async || {
            assert!(!begin_panic());
            let caught = catch_panic(async {
                assert!(!not_caught(begin_panic));
                // For one panic, and not for another one before it is caught.
                assert_eq!((begin_panic(), begin_panic()), (true, false));
            });
            assert_eq!(caught.await, Ok(()));
            assert!(!begin_panic());
        });
    }
}
