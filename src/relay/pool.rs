//! What the relays of one worker share: the buffer for copies, the pipes for splices, and the
//! bounds on both.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;

use crate::sched::{BULK_BUDGET, Charge, Memory, Outbox, SMALL, Turns, Yielder};
use crate::sys::{Errno, File, Pipe, Stream};

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

/// Buffers and pipes of one worker.
pub struct Pool {
    buffer: RefCell<Box<[u8]>>,
    spare: RefCell<Vec<Pipe>>,
    /// Pipes in existence, spare ones included.
    open: Cell<usize>,
    max_open: Cell<usize>,
    memory: Rc<Memory>,
    outbox: Option<Rc<Outbox>>,
    pub(super) bulk: Turns,
    yielder: Rc<Yielder>,
}

impl Pool {
    /// Makes a pool with at most `max_pipes` pipes at once; a flow that gets none is copied.
    /// `budget` bounds the bytes that connections keep (see
    /// [`Memory`]). Without an outbox every
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
            max_open: Cell::new(max_pipes),
            memory: Memory::new(budget),
            outbox,
            bulk: Turns::new(Rc::clone(&yielder), BULK_BUDGET),
            yielder,
        })
    }

    /// Changes how many pipes there may be. Those that are open stay.
    pub fn set_max_pipes(&self, max_pipes: usize) {
        self.max_open.set(max_pipes);
    }

    /// The pipes that there are, and the most.
    pub fn pipes(&self) -> (usize, usize) {
        (self.open.get(), self.max_open.get())
    }

    /// The worker's buffer. The borrow must end before the next await.
    pub fn buffer(&self) -> RefMut<'_, Box<[u8]>> {
        self.buffer.borrow_mut()
    }

    /// Bytes that may be read at a time for a destination that may be slow.
    pub fn read_size(&self) -> usize {
        if self.is_spent() { SMALL } else { BUFFER_SIZE }
    }

    /// Returns true when the budget is spent: see [`Memory::is_spent`].
    pub fn is_spent(&self) -> bool {
        self.memory.is_spent()
    }

    /// What the worker keeps for its connections.
    pub fn memory(&self) -> &Rc<Memory> {
        &self.memory
    }

    /// Makes a charge for bytes that a connection keeps outside its flows.
    pub fn charge(&self) -> Charge {
        Charge::new(&self.memory)
    }

    /// The outbox for small messages; `None` if there is none or it is closed.
    pub fn outbox(&self) -> Option<&Rc<Outbox>> {
        self.outbox.as_ref().filter(|outbox| outbox.is_open())
    }

    /// Lets the worker's tasks yield to each other.
    pub fn yielder(&self) -> &Rc<Yielder> {
        &self.yielder
    }

    /// Decides which task may move bulk.
    pub fn bulk(&self) -> &Turns {
        &self.bulk
    }

    /// An empty pipe. `None` if `max_open` pipes exist or the kernel grants none of a useful size.
    pub fn pipe(self: &Rc<Self>) -> Option<PipeLease> {
        let spare = self.spare.borrow_mut().pop();
        let pipe = match spare {
            Some(pipe) => pipe,
            None if self.open.get() < self.max_open.get() => {
                let pipe = Pipe::new(&PIPE_SIZES).ok()?;
                self.open.set(self.open.get() + 1);
                pipe
            }
            None => return None,
        };
        Some(PipeLease { pipe: Some(pipe), pool: Rc::clone(self) })
    }
}

/// A borrowed pipe. Dropping it returns an empty pipe to the pool and closes one with bytes inside.
pub struct PipeLease {
    /// `None` only during drop.
    pipe: Option<Pipe>,
    pool: Rc<Pool>,
}

impl PipeLease {
    /// Returns true if no bytes are inside.
    pub fn is_empty(&self) -> bool {
        self.pipe.as_ref().is_none_or(Pipe::is_empty)
    }

    pub(super) fn fill(&mut self, from: &Stream, max: usize) -> Result<usize, Errno> {
        self.get().fill(from, max)
    }

    /// As [`Pipe::fill_from_file`].
    pub fn fill_from_file(
        &mut self,
        from: &File,
        position: &mut u64,
        max: usize,
    ) -> Result<usize, Errno> {
        self.get().fill_from_file(from, position, max)
    }

    /// As [`Pipe::drain`].
    pub fn drain(&mut self, to: &Stream) -> Result<usize, Errno> {
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
