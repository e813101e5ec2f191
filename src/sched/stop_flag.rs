//! Ends the wait of a task from outside, without an event of the kernel.
//!
//! A socket that another process has, too, cannot be shut down to wake the task that waits for it:
//! that would end it for the other process as well (shutdown(2)).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, Waker};

/// A flag that one task observes while it waits.
#[derive(Default)]
pub struct StopFlag {
    is_set: Cell<bool>,
    /// The task that waits. Kept over its waits, so that it is cloned only once.
    waker: RefCell<Option<Waker>>,
}

impl StopFlag {
    /// Returns true from [`StopFlag::set`] until [`StopFlag::clear`].
    pub fn is_set(&self) -> bool {
        self.is_set.get()
    }

    /// Sets the flag and wakes the task that waits.
    pub fn set(&self) {
        self.is_set.set(true);
        // A statement of its own: the waker may be the last reference to a task that uses the flag.
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Clears the flag.
    pub fn clear(&self) {
        self.is_set.set(false);
    }

    /// Waits for a future. Returns `None` as soon as the flag is set, and drops the future then.
    /// Only one task may wait.
    pub async fn unless_set<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if self.is_set.get() {
                return Poll::Ready(None);
            }
            let polled = future.as_mut().poll(cx);
            if polled.is_pending() {
                let mut kept = self.waker.borrow_mut();
                if kept.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                    *kept = Some(cx.waker().clone());
                }
            }
            polled.map(Some)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{on_each_driver, poll, stream};
    use super::*;
    use std::io::Write;
    use std::rc::Rc;

    #[test]
    fn a_task_that_waits_for_a_socket_is_woken() {
        on_each_driver(async || {
            let flag = Rc::new(StopFlag::default());
            let (ours, mut theirs) = stream();
            theirs.write_all(b"x").unwrap();
            assert!(flag.unless_set(ours.readable()).await.is_some());
            ours.recv(&mut [0]).unwrap();
            let waiting = monoio::spawn({
                let flag = Rc::clone(&flag);
                async move { flag.unless_set(ours.readable()).await }
            });
            monoio::spawn(async {}).await;
            flag.set();
            assert!(waiting.await.is_none());
        });
    }

    #[test]
    fn a_flag_that_is_set_ends_later_waits_until_it_is_cleared() {
        on_each_driver(async || {
            let flag = StopFlag::default();
            flag.set();
            assert!(flag.unless_set(async {}).await.is_none());
            flag.clear();
            assert!(flag.unless_set(async {}).await.is_some());
            let mut waits = Box::pin(flag.unless_set(std::future::pending::<()>()));
            assert!(poll(&mut waits).await.is_pending());
            flag.set();
            assert!(matches!(poll(&mut waits).await, Poll::Ready(None)));
        });
    }
}
