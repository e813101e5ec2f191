//! The memory that one worker keeps for its connections, and the bound on it.

use std::cell::Cell;
use std::rc::Rc;

/// Bytes in user space that a worker keeps for its connections: bytes that are read and not yet
/// written, incomplete heads, and responses that clients do not read. Pipes have their own bound.
pub const BUDGET: usize = 64 * 1024 * 1024;

/// Bytes that one connection may keep when the budget is spent. Relays then read this much at a
/// time. What needs more is refused, for example a long request head in pieces.
pub const SMALL: usize = 4096;

/// Counts what the connections of one worker keep.
pub struct Memory {
    kept: Cell<usize>,
    budget: usize,
}

impl Memory {
    /// Starts with nothing kept. `budget` is the bound in bytes (see [`BUDGET`]).
    pub fn new(budget: usize) -> Rc<Memory> {
        Rc::new(Memory { kept: Cell::new(0), budget })
    }

    /// Returns true when the budget is spent: a connection may then keep [`SMALL`] bytes and no
    /// more.
    pub fn is_spent(&self) -> bool {
        self.kept.get() >= self.budget
    }

    /// Bytes that connections keep at present.
    pub fn kept(&self) -> usize {
        self.kept.get()
    }

    /// Counts bytes that a connection keeps from now on.
    pub fn keep(&self, bytes: usize) {
        self.kept.set(self.kept.get() + bytes);
    }

    /// Counts bytes that a connection no longer keeps.
    pub fn release(&self, bytes: usize) {
        self.kept.set(self.kept.get() - bytes);
    }
}

/// Bytes that one connection keeps, counted in the worker's budget.
pub struct Charge {
    memory: Rc<Memory>,
    bytes: usize,
}

impl Charge {
    /// Makes a charge of 0 bytes.
    pub fn new(memory: &Rc<Memory>) -> Charge {
        Charge { memory: Rc::clone(memory), bytes: 0 }
    }

    /// Replaces the charge: the connection now keeps this many bytes.
    pub fn set(&mut self, bytes: usize) {
        self.memory.release(self.bytes);
        self.memory.keep(bytes);
        self.bytes = bytes;
    }

    /// Like [`Charge::set`], if the budget allows it. Returns true when the charge was replaced;
    /// otherwise the old charge stays.
    pub fn try_set(&mut self, bytes: usize) -> bool {
        let allowed = bytes <= SMALL.max(self.bytes) || !self.memory.is_spent();
        if allowed {
            self.set(bytes);
        }
        allowed
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.memory.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_share_one_budget() {
        let memory = Memory::new(10_000);
        let (mut first, mut second) = (Charge::new(&memory), Charge::new(&memory));
        assert!(first.try_set(9_999) && second.try_set(8_000), "it is not spent before");
        assert!(memory.is_spent());
        assert!(!first.try_set(10_000), "more than it keeps, and more than a little");
        assert!(first.try_set(5_000), "less than it keeps");
        assert!(Charge::new(&memory).try_set(SMALL) && !Charge::new(&memory).try_set(SMALL + 1));
        drop(second);
        assert!(!memory.is_spent() && first.try_set(10_000));
        drop(first);
        assert_eq!(memory.kept(), 0);
    }
}
