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

/// Bytes read that wait for slow destinations, over all copies of a worker, before reads become
/// small.
const MAX_SPILLED: usize = 64 * 1024 * 1024;

/// What a copy still reads at a time beyond [`MAX_SPILLED`].
const SMALL_READ: usize = 4096;

/// Buffers and pipes of one worker.
pub struct Pool {
    buffer: RefCell<Box<[u8]>>,
    spare: RefCell<Vec<Pipe>>,
    /// Pipes in existence, spare ones included.
    open: Cell<usize>,
    max_open: usize,
    spilled: Cell<usize>,
    outbox: Option<Rc<Outbox>>,
    pub(super) baton: Baton,
    turns: Rc<Turns>,
}

impl Pool {
    /// At most `max_pipes` pipes exist at once; a flow that gets none is copied. Without
    /// an outbox every message is a system call.
    pub fn new(max_pipes: usize, outbox: Option<Rc<Outbox>>, turns: Rc<Turns>) -> Rc<Pool> {
        Rc::new(Pool {
            buffer: RefCell::new(vec![0; BUFFER_SIZE].into_boxed_slice()),
            spare: RefCell::new(Vec::new()),
            open: Cell::new(0),
            max_open: max_pipes,
            spilled: Cell::new(0),
            outbox,
            baton: Baton::new(Rc::clone(&turns)),
            turns,
        })
    }

    /// The worker's buffer, to be given back before the next await.
    pub fn buffer(&self) -> RefMut<'_, Box<[u8]>> {
        self.buffer.borrow_mut()
    }

    /// How much a copy may read now, so that what slow destinations leave behind stays bounded.
    pub(super) fn read_size(&self) -> usize {
        if self.spilled.get() < MAX_SPILLED { BUFFER_SIZE } else { SMALL_READ }
    }

    /// Where small messages go, as long as it takes any.
    pub fn outbox(&self) -> Option<&Rc<Outbox>> {
        self.outbox.as_ref().filter(|outbox| outbox.is_open())
    }

    /// Turns of the worker's tasks.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    pub(super) fn spill(&self, bytes: usize) {
        self.spilled.set(self.spilled.get() + bytes);
    }

    pub(super) fn unspill(&self, bytes: usize) {
        self.spilled.set(self.spilled.get() - bytes);
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
