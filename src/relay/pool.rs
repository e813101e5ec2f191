//! What the relays of one worker share: the buffer that a copy borrows, the pipes that splices
//! borrow, and the bounds on both.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;

use super::baton::Baton;
use crate::sys::{Errno, Outbox, Pipe, Stream, Turns};

/// Bytes of the borrowed buffer, and so the most that one copy moves.
pub const BUFFER_SIZE: usize = 256 * 1024;

/// Bytes of a pipe, as the kernel grants them. 1 MiB is its ceiling for users without
/// CAP_SYS_RESOURCE, who get 64 of these at most. Bulk costs 0.90 of the CPU that it costs with
/// 256 KiB, and 0.56 of that with 64 KiB (paired medians of 9 rounds, 16 flows).
const PIPE_SIZES: [usize; 2] = [1024 * 1024, 256 * 1024];

/// Empty pipes kept for the next bulk flow. More are no gain, with 256 flows or with 500: a flow
/// has a pipe only while it has a turn, or while bytes are stuck in it.
const SPARE_PIPES: usize = 16;

/// Bytes in user space that a worker keeps for its connections: read and not yet written, heads
/// that are not complete, responses that clients do not read. Pipes have a bound of their own.
pub const BUDGET: usize = 64 * 1024 * 1024;

/// What one connection may keep when the budget is spent. Relays then read so much at a time, and
/// what needs more, as a long request head in pieces, is refused.
pub const SMALL: usize = 4096;

/// Buffers and pipes of one worker.
pub struct Pool {
    buffer: RefCell<Box<[u8]>>,
    spare: RefCell<Vec<Pipe>>,
    /// Pipes in existence, spare ones included.
    open: Cell<usize>,
    max_open: usize,
    /// Bytes kept at present.
    kept: Cell<usize>,
    budget: usize,
    outbox: Option<Rc<Outbox>>,
    pub(super) baton: Baton,
    turns: Rc<Turns>,
}

impl Pool {
    /// At most `max_pipes` pipes exist at once; a flow that gets none is copied. `budget` bounds
    /// the bytes that connections keep: [`BUDGET`]. Without an outbox every message is a system
    /// call.
    pub fn new(
        max_pipes: usize,
        budget: usize,
        outbox: Option<Rc<Outbox>>,
        turns: Rc<Turns>,
    ) -> Rc<Pool> {
        Rc::new(Pool {
            buffer: RefCell::new(vec![0; BUFFER_SIZE].into_boxed_slice()),
            spare: RefCell::new(Vec::new()),
            open: Cell::new(0),
            max_open: max_pipes,
            kept: Cell::new(0),
            budget,
            outbox,
            baton: Baton::new(Rc::clone(&turns)),
            turns,
        })
    }

    /// The worker's buffer, to be given back before the next await.
    pub fn buffer(&self) -> RefMut<'_, Box<[u8]>> {
        self.buffer.borrow_mut()
    }

    /// How much may be read at a time for a destination that may be slow.
    pub fn read_size(&self) -> usize {
        if self.is_spent() { SMALL } else { BUFFER_SIZE }
    }

    /// The budget is spent: a connection may keep [`SMALL`] bytes and no more.
    pub fn is_spent(&self) -> bool {
        self.kept.get() >= self.budget
    }

    /// Where small messages go, as long as it takes any.
    pub fn outbox(&self) -> Option<&Rc<Outbox>> {
        self.outbox.as_ref().filter(|outbox| outbox.is_open())
    }

    /// Turns of the worker's tasks.
    pub fn turns(&self) -> &Rc<Turns> {
        &self.turns
    }

    /// Counts bytes that a connection keeps from now on.
    pub(super) fn keep(&self, bytes: usize) {
        self.kept.set(self.kept.get() + bytes);
    }

    pub(super) fn release(&self, bytes: usize) {
        self.kept.set(self.kept.get() - bytes);
    }

    /// An empty pipe, or none when there are enough already or the kernel has no decent one to
    /// give.
    pub(super) fn pipe(self: &Rc<Self>) -> Option<PipeLease> {
        let spare = self.spare.borrow_mut().pop();
        let pipe = match spare {
            Some(pipe) => pipe,
            None if self.open.get() < self.max_open => {
                let pipe = Pipe::new(&PIPE_SIZES).ok()?;
                self.open.set(self.open.get() + 1);
                pipe
            }
            None => return None,
        };
        Some(PipeLease { pipe: Some(pipe), pool: Rc::clone(self) })
    }
}

/// What one connection keeps outside its flows, counted in the worker's budget.
pub struct Charge {
    pool: Rc<Pool>,
    bytes: usize,
}

impl Charge {
    /// Nothing yet.
    pub fn new(pool: &Rc<Pool>) -> Charge {
        Charge { pool: Rc::clone(pool), bytes: 0 }
    }

    /// The connection keeps so many bytes now, in place of those before.
    pub fn set(&mut self, bytes: usize) {
        self.pool.release(self.bytes);
        self.pool.keep(bytes);
        self.bytes = bytes;
    }

    /// As [`Charge::set`], unless that is more than the budget allows; returns whether it is
    /// allowed. What was kept before stays counted where it is not.
    pub fn try_set(&mut self, bytes: usize) -> bool {
        let allowed = bytes <= SMALL.max(self.bytes) || !self.pool.is_spent();
        if allowed {
            self.set(bytes);
        }
        allowed
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.pool.release(self.bytes);
    }
}

/// A borrowed pipe. It goes back when it is empty; with bytes inside it is closed.
pub(super) struct PipeLease {
    /// `None` only while it is being dropped.
    pipe: Option<Pipe>,
    pool: Rc<Pool>,
}

impl PipeLease {
    pub(super) fn is_empty(&self) -> bool {
        self.pipe.as_ref().is_none_or(Pipe::is_empty)
    }

    pub(super) fn fill(&mut self, from: &Stream, max: usize) -> Result<usize, Errno> {
        self.get().fill(from, max)
    }

    pub(super) fn drain(&mut self, to: &Stream) -> Result<usize, Errno> {
        self.get().drain(to)
    }

    fn get(&mut self) -> &mut Pipe {
        self.pipe.as_mut().expect("the pipe is taken out by drop alone")
    }
}

impl Drop for PipeLease {
    fn drop(&mut self) {
        let Some(pipe) = self.pipe.take() else { return };
        let mut spare = self.pool.spare.borrow_mut();
        if pipe.is_empty() && spare.len() < SPARE_PIPES {
            spare.push(pipe);
        } else {
            self.pool.open.set(self.pool.open.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_budget(budget: usize, test: impl FnOnce(Rc<Pool>)) {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
        runtime.block_on(async { test(Pool::new(4, budget, None, Turns::start().unwrap())) });
    }

    #[test]
    fn all_connections_share_one_budget() {
        with_budget(10_000, |pool| {
            let (mut first, mut second) = (Charge::new(&pool), Charge::new(&pool));
            assert!(first.try_set(9_999) && second.try_set(8_000), "it is not spent before");
            assert!(pool.is_spent());
            assert_eq!(pool.read_size(), SMALL);
            assert!(!first.try_set(10_000), "more than it keeps, and more than a little");
            assert!(first.try_set(5_000), "less than it keeps");
            assert!(Charge::new(&pool).try_set(SMALL) && !Charge::new(&pool).try_set(SMALL + 1));
            drop(second);
            assert!(!pool.is_spent() && first.try_set(10_000));
            drop(first);
            assert_eq!((pool.kept.get(), pool.read_size()), (0, BUFFER_SIZE));
        });
    }
}
