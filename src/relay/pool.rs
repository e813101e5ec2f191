//! What the relays of one worker share: the buffer for copies, the pipes for splices, and the
//! bounds on both.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;

use crate::sched::{Bulk, Outbox, Yielder};
use crate::sys::{Errno, Pipe, Stream};

/// Bytes of the worker's buffer, which is also the most that one read of a copy takes.
pub const BUFFER_SIZE: usize = 256 * 1024;

/// Sizes of a pipe in bytes; the first that the kernel grants is used. 1 MiB is the kernel's limit
/// for users without CAP_SYS_RESOURCE, who get 64 of these at most. With 1 MiB bulk costs 0.90 of
/// the CPU that it costs with 256 KiB, and 0.56 of the CPU that it costs with 64 KiB (paired
/// medians of 9 rounds, 16 flows).
const PIPE_SIZES: [usize; 2] = [1024 * 1024, 256 * 1024];

/// Empty pipes kept for the next bulk flow. Keeping more gains nothing, with 256 flows or with 500:
/// a flow has a pipe only while it has a turn, or while bytes are stuck in it.
const SPARE_PIPES: usize = 16;

/// Bytes in user space that a worker keeps for its connections: bytes that are read and not yet
/// written, incomplete heads, and responses that clients do not read. Pipes have their own bound.
pub const BUDGET: usize = 64 * 1024 * 1024;

/// Bytes that one connection may keep when the budget is spent. Relays then read this much at a
/// time. What needs more is refused, for example a long request head in pieces.
pub const SMALL: usize = 4096;

/// Buffers and pipes of one worker.
pub struct Pool {
    buffer: RefCell<Box<[u8]>>,
    spare: RefCell<Vec<Pipe>>,
    /// Pipes in existence, spare ones included.
    open: Cell<usize>,
    max_open: usize,
    /// Bytes that connections keep at present.
    kept: Cell<usize>,
    budget: usize,
    outbox: Option<Rc<Outbox>>,
    pub(super) bulk: Bulk,
    yielder: Rc<Yielder>,
}

impl Pool {
    /// Makes a pool with at most `max_pipes` pipes at once; a flow that gets none is copied.
    /// `budget` bounds the bytes that connections keep (see [`BUDGET`]). Without an outbox every
    /// message takes a system call of its own.
    pub fn new(
        max_pipes: usize,
        budget: usize,
        outbox: Option<Rc<Outbox>>,
        yielder: Rc<Yielder>,
    ) -> Rc<Pool> {
        Rc::new(Pool {
            buffer: RefCell::new(vec![0; BUFFER_SIZE].into_boxed_slice()),
            spare: RefCell::new(Vec::new()),
            open: Cell::new(0),
            max_open: max_pipes,
            kept: Cell::new(0),
            budget,
            outbox,
            bulk: Bulk::new(Rc::clone(&yielder)),
            yielder,
        })
    }

    /// The worker's buffer. The borrow must end before the next await.
    pub fn buffer(&self) -> RefMut<'_, Box<[u8]>> {
        self.buffer.borrow_mut()
    }

    /// Bytes that may be read at a time for a destination that may be slow.
    pub fn read_size(&self) -> usize {
        if self.is_spent() { SMALL } else { BUFFER_SIZE }
    }

    /// Returns true when the budget is spent: a connection may then keep [`SMALL`] bytes and no
    /// more.
    pub fn is_spent(&self) -> bool {
        self.kept.get() >= self.budget
    }

    /// The outbox for small messages; `None` if there is none or it is closed.
    pub fn outbox(&self) -> Option<&Rc<Outbox>> {
        self.outbox.as_ref().filter(|outbox| outbox.is_open())
    }

    /// Lets the worker's tasks yield to each other.
    pub fn yielder(&self) -> &Rc<Yielder> {
        &self.yielder
    }

    /// Bytes that connections keep at present.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.kept.get()
    }

    /// Counts bytes that a connection keeps from now on.
    pub(super) fn keep(&self, bytes: usize) {
        self.kept.set(self.kept.get() + bytes);
    }

    pub(super) fn release(&self, bytes: usize) {
        self.kept.set(self.kept.get() - bytes);
    }

    /// An empty pipe. `None` if `max_open` pipes exist or the kernel grants none of a useful size.
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

/// Bytes that one connection keeps outside its flows, counted in the worker's budget.
pub struct Charge {
    pool: Rc<Pool>,
    bytes: usize,
}

impl Charge {
    /// Makes a charge of 0 bytes.
    pub fn new(pool: &Rc<Pool>) -> Charge {
        Charge { pool: Rc::clone(pool), bytes: 0 }
    }

    /// Replaces the charge: the connection now keeps this many bytes.
    pub fn set(&mut self, bytes: usize) {
        self.pool.release(self.bytes);
        self.pool.keep(bytes);
        self.bytes = bytes;
    }

    /// Like [`Charge::set`], if the budget allows it. Returns true when the charge was replaced;
    /// otherwise the old charge stays.
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

/// A borrowed pipe. Dropping it returns an empty pipe to the pool and closes one with bytes inside.
pub(super) struct PipeLease {
    /// `None` only during drop.
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
        runtime.block_on(async { test(Pool::new(4, budget, None, Yielder::start().unwrap())) });
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
