//! Decides which task may do long work: one at a time, and after a budget all other ready tasks run
//! first. There is one [`Turns`] for each kind of long work, with a budget in units of that work:
//! bytes of bulk, signatures of TLS handshakes.
//!
//! A task does long work only with a [`Turn`], and it has one only inside of a function that does
//! not await. So there is never a second one, and no task keeps it while other tasks run.
//!
//! Without this each of 16 bulk flows moved its bytes between two polls of the ring. A small
//! message that arrived meanwhile waited for all of them, twice: p99 of 49–90 ms with turns of
//! 4 MiB. With it a small message waits for one turn of one flow: 2–7 ms.

use std::cell::Cell;
use std::rc::Rc;

use super::wait_queue::{Ticket, WaitQueue};
use super::yielder::Yielder;

/// Bytes of bulk that a worker moves before all other ready tasks run: half a millisecond of work,
/// or a little more.
///
/// The size is a compromise. A byte of bulk costs as much with 1 MiB as with 4 MiB, or a little
/// more (1.01 to 1.09 of the CPU, paired medians of 15 rounds). The p50 of a small message beside
/// it is 1.1 ms with 1 MiB, 1.2 ms with 2 MiB, 1.8 ms with 4 MiB.
pub const BULK_BUDGET: usize = 2 * 1024 * 1024;

/// Shared by the tasks of one worker that do one kind of long work.
pub struct Turns {
    yielder: Rc<Yielder>,
    budget: usize,
    /// Units of work done since all other ready tasks last ran.
    spent: Cell<usize>,
    /// Tasks that wait for their turn. The one at the front may wait for other ready tasks.
    queue: WaitQueue,
}

/// The right to do the work. While it lives no other task has one. Dropping it wakes the next task.
pub struct Turn<'t> {
    turns: &'t Turns,
    /// `None` for a task that did not have to wait.
    _ticket: Option<Ticket<'t>>,
}

impl Turns {
    /// Starts with the whole budget, in units of the work.
    pub fn new(yielder: Rc<Yielder>, budget: usize) -> Turns {
        Turns { yielder, budget, spent: Cell::new(0), queue: WaitQueue::default() }
    }

    /// Waits for the turn behind all tasks that wait already. If the budget is spent, all
    /// other ready tasks run first. Then calls `work` with the turn. The future may be dropped at
    /// any time.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
    pub fn turn<T>(&self, work: impl FnOnce(&mut Turn<'_>) -> T) -> impl Future<Output = T> {
        async move {
            let _ticket = self.acquire().await;
            work(&mut Turn { turns: self, _ticket })
        }
    }

    /// Waits until the calling task may work. Returns its ticket, if it had to join the queue.
    async fn acquire(&self) -> Option<Ticket<'_>> {
        if self.queue.is_empty() && self.left() > 0 {
            return None;
        }
        let ticket = self.queue.join();
        if !ticket.is_front() {
            ticket.woken().await;
        }
        // Checked after the wait: the tasks before this one have spent from the same budget. One
        // that is dropped while it yields leaves the yield to the next task.
        if self.left() == 0 {
            self.yielder.yield_now().await;
            self.spent.set(0);
        }
        Some(ticket)
    }

    fn left(&self) -> usize {
        self.budget.saturating_sub(self.spent.get())
    }
}

impl Turn<'_> {
    /// Units left of the budget; not 0 when a turn begins.
    pub fn left(&self) -> usize {
        self.turns.left()
    }

    /// Counts work that was done. The last of it may exceed the budget.
    pub fn spend(&mut self, units: usize) {
        self.turns.spent.set(self.turns.spent.get() + units);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{on_each_driver, poll};
    use super::*;
    use std::cell::RefCell;

    fn with_bulk(test: impl AsyncFn(Rc<Turns>)) {
        on_each_driver(async || {
            test(Rc::new(Turns::new(Yielder::start().unwrap(), BULK_BUDGET))).await
        });
    }

    /// A flow that moves `moved` bytes in each turn, and logs its name each time.
    async fn flow(bulk: Rc<Turns>, log: Rc<RefCell<String>>, name: char, turns: u32, moved: usize) {
        for _ in 0..turns {
            bulk.turn(|turn| {
                assert!(turn.left() > 0);
                turn.spend(moved);
                log.borrow_mut().push(name);
            })
            .await;
        }
    }

    #[test]
    fn ready_tasks_run_between_two_budgets_and_flows_take_turns() {
        with_bulk(async |bulk| {
            let log = Rc::new(RefCell::new(String::new()));
            bulk.turn(|turn| turn.spend(BULK_BUDGET)).await;
            // All flows wait behind this turn, so that the next ones are in their order.
            let mut first = Box::pin(bulk.turn(|_| ()));
            assert!(poll(&mut first).await.is_pending());
            let flows = ['A', 'B', 'C'].map(|name| {
                monoio::spawn(flow(Rc::clone(&bulk), Rc::clone(&log), name, 5, BULK_BUDGET))
            });
            first.await;
            let (small, yielder) = (Rc::clone(&log), Rc::clone(&bulk.yielder));
            monoio::spawn(async move {
                loop {
                    small.borrow_mut().push('.');
                    yielder.yield_now().await;
                }
            });
            for flow in flows {
                flow.await;
            }
            let log = log.borrow();
            let turns: String = log.chars().filter(|&name| name != '.').collect();
            assert_eq!(turns, "ABCABCABCABCABC");
            let pairs = log.as_bytes().windows(2);
            assert!(pairs.into_iter().all(|pair| pair.contains(&b'.')), "{log}");
        });
    }

    #[test]
    fn small_turns_share_one_budget() {
        with_bulk(async |bulk| {
            let log = Rc::new(RefCell::new(String::new()));
            let flows = ['A', 'B'].map(|name| {
                monoio::spawn(flow(Rc::clone(&bulk), Rc::clone(&log), name, 3, BULK_BUDGET / 4))
            });
            for flow in flows {
                flow.await;
            }
            assert_eq!(*log.borrow(), "AAABBB", "the budget is not spent before the fourth");
            assert_eq!(bulk.left(), BULK_BUDGET / 2);
        });
    }

    #[test]
    fn a_lone_flow_yields_only_when_the_budget_is_spent() {
        with_bulk(async |bulk| {
            let spend_all = |turn: &mut Turn<'_>| turn.spend(turn.left());
            let half = |turn: &mut Turn<'_>| turn.spend(BULK_BUDGET / 2);
            assert!(poll(&mut Box::pin(bulk.turn(half))).await.is_ready());
            assert!(poll(&mut Box::pin(bulk.turn(spend_all))).await.is_ready());
            let mut yields = Box::pin(bulk.turn(half));
            assert!(poll(&mut yields).await.is_pending());
            yields.await;
            assert_eq!(bulk.left(), BULK_BUDGET / 2);
        });
    }

    #[test]
    fn a_flow_that_is_dropped_while_it_yields_or_waits_holds_no_other_up() {
        with_bulk(async |bulk| {
            bulk.turn(|turn| turn.spend(BULK_BUDGET)).await;
            // The first flow yields, and two wait behind it.
            let mut yields = Box::pin(bulk.turn(|_| ()));
            assert!(poll(&mut yields).await.is_pending());
            let mut waits = Box::pin(bulk.turn(|_| ()));
            assert!(poll(&mut waits).await.is_pending());
            let last = monoio::spawn({
                let bulk = Rc::clone(&bulk);
                async move { bulk.turn(|turn| turn.left()).await }
            });
            bulk.yielder.yield_now().await;
            drop(waits);
            drop(yields);
            assert_eq!(last.await, BULK_BUDGET);
            assert!(bulk.queue.is_empty());
        });
    }

    #[test]
    fn a_flow_that_is_dropped_after_its_wake_up_passes_the_turn_on() {
        with_bulk(async |bulk| {
            bulk.turn(|turn| turn.spend(BULK_BUDGET)).await;
            let mut first = Box::pin(bulk.turn(|turn| turn.left()));
            let mut second = Box::pin(bulk.turn(|turn| turn.left()));
            let mut third = Box::pin(bulk.turn(|turn| turn.left()));
            assert!(poll(&mut first).await.is_pending());
            assert!(poll(&mut second).await.is_pending());
            assert!(poll(&mut third).await.is_pending());
            assert_eq!(first.await, BULK_BUDGET);
            // The end of the first turn has woken the second flow.
            drop(second);
            assert!(poll(&mut third).await.is_ready());
        });
    }
}
