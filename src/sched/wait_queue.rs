//! A first-in, first-out queue of tasks that wait for something that they share: the bulk turn, or
//! room for one more connection.
//!
//! Only the task at the front may take what is shared. It is woken when the ticket before it
//! leaves, and by [`WaitQueue::wake_front`]. Dropping a ticket leaves the queue, so a task that is
//! dropped while it waits holds no other up.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A queue that the tasks of one worker share.
#[derive(Default)]
pub struct WaitQueue {
    /// In the order of arrival, which is also the order of the numbers.
    waiting: RefCell<VecDeque<Waiting>>,
    last_number: Cell<u64>,
}

struct Waiting {
    number: u64,
    /// The waker of the task, from the start of a wait until it is woken.
    waker: Option<Waker>,
}

/// A position in the queue. Dropping it leaves the queue.
pub struct Ticket<'q> {
    queue: &'q WaitQueue,
    number: u64,
}

impl WaitQueue {
    /// Returns true when no task waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// Joins at the end of the queue.
    pub fn join(&self) -> Ticket<'_> {
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        self.waiting.borrow_mut().push_back(Waiting { number, waker: None });
        Ticket { queue: self, number }
    }

    /// Wakes the task at the front, if it waits.
    pub fn wake_front(&self) {
        // A statement of its own, so that the queue is not borrowed when the waker is dropped: it
        // may be the last reference to its task, and the task may hold a ticket.
        let waker = self.waiting.borrow_mut().front_mut().and_then(|front| front.waker.take());
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Ticket<'_> {
    /// Returns true when this ticket is at the front.
    pub fn is_front(&self) -> bool {
        self.queue.waiting.borrow().front().is_some_and(|front| front.number == self.number)
    }

    /// Waits until this ticket is at the front and is woken. A wake-up before the first poll does
    /// not count, so the caller checks first whether it has to wait. May be dropped at any time.
    pub fn woken(&self) -> impl Future<Output = ()> {
        let mut has_begun = false;
        poll_fn(move |cx| {
            let mut waiting = self.queue.waiting.borrow_mut();
            let own = self.position(&waiting).and_then(|position| waiting.get_mut(position));
            let own = own.expect("a ticket is in the queue until it is dropped");
            if std::mem::replace(&mut has_begun, true) && own.waker.is_none() {
                return Poll::Ready(());
            }
            let replaced = own.waker.replace(cx.waker().clone());
            drop(waiting);
            drop(replaced);
            Poll::Pending
        })
    }

    fn position(&self, waiting: &VecDeque<Waiting>) -> Option<usize> {
        waiting.binary_search_by_key(&self.number, |waiting| waiting.number).ok()
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting.borrow_mut();
        let position = self.position(&waiting);
        let removed = position.and_then(|position| waiting.remove(position));
        drop(waiting);
        drop(removed);
        if position == Some(0) {
            self.queue.wake_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{on_each_driver, poll};
    use super::*;
    use std::rc::Rc;

    #[test]
    fn places_are_taken_in_the_order_of_arrival() {
        on_each_driver(async || {
            let queue = Rc::new(WaitQueue::default());
            let served = Rc::new(RefCell::new(String::new()));
            let free = Rc::new(Cell::new(0));
            let mut tasks = Vec::new();
            let first = queue.join();
            for name in ['a', 'b', 'c', 'd'] {
                let (queue, served, free) =
                    (Rc::clone(&queue), Rc::clone(&served), Rc::clone(&free));
                tasks.push(monoio::spawn(async move {
                    let ticket = queue.join();
                    while !ticket.is_front() || free.get() == 0 {
                        ticket.woken().await;
                    }
                    free.set(free.get() - 1);
                    served.borrow_mut().push(name);
                }));
            }
            // The runtime's ready queue is first in, first out: after this task all others are in
            // the queue.
            monoio::spawn(async {}).await;
            free.set(2);
            drop(first);
            for task in tasks.drain(..2) {
                task.await;
            }
            assert_eq!(*served.borrow(), "ab");
            free.set(2);
            queue.wake_front();
            for task in tasks {
                task.await;
            }
            assert_eq!(*served.borrow(), "abcd");
            assert!(queue.is_empty());
        });
    }

    #[test]
    fn a_waiter_that_is_dropped_wakes_the_next_one_if_it_was_at_the_front() {
        on_each_driver(async || {
            let queue = WaitQueue::default();
            let [first, second, third] = [(); 3].map(|()| queue.join());
            let mut waits = Box::pin(third.woken());
            assert!(poll(&mut waits).await.is_pending());
            drop(second);
            assert!(!third.is_front() && poll(&mut waits).await.is_pending());
            drop(first);
            assert!(third.is_front() && poll(&mut waits).await.is_ready());
        });
    }

    #[test]
    fn a_task_that_is_woken_and_dropped_passes_the_wake_up_on() {
        on_each_driver(async || {
            let queue = WaitQueue::default();
            let (first, second) = (queue.join(), queue.join());
            let (mut one, mut two) = (Box::pin(first.woken()), Box::pin(second.woken()));
            assert!(poll(&mut one).await.is_pending() && poll(&mut two).await.is_pending());
            queue.wake_front();
            drop(one);
            drop(first);
            assert!(poll(&mut two).await.is_ready());
        });
    }

    #[test]
    fn a_wait_that_is_given_up_can_begin_again() {
        on_each_driver(async || {
            let queue = WaitQueue::default();
            let ticket = queue.join();
            let mut given_up = Box::pin(ticket.woken());
            assert!(poll(&mut given_up).await.is_pending());
            drop(given_up);
            queue.wake_front();
            let mut waits = Box::pin(ticket.woken());
            assert!(poll(&mut waits).await.is_pending(), "that wake-up came before this wait");
            assert!(poll(&mut waits).await.is_pending(), "a poll is no wake-up");
            queue.wake_front();
            assert!(poll(&mut waits).await.is_ready());
        });
    }
}
