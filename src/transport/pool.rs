//! What the TLS streams of one worker share: buffers, and the bounds on handshakes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::proto::tls::Output;
use crate::sched::{Memory, Outbox, Turns, Yielder};
use crate::sys::Stream;

/// Handshakes that a worker has in progress at most.
const MAX_HANDSHAKES: usize = 1024;
/// Microseconds of handshakes that a worker makes before all other ready tasks run. With 250 the
/// 99th percentile of small round trips beside a flood of handshakes is 1.1 ms. With 1,000 it is
/// 2.6 ms, for as many handshakes. A signature with a P-256 key and a key exchange take about 120,
/// a signature with an RSA key of 2048 bits 475.
const HANDSHAKE_BUDGET: usize = 250;

/// What the TLS streams of one worker share.
pub struct TlsPool {
    pub(super) memory: Rc<Memory>,
    pub(super) outbox: Option<Rc<Outbox>>,
    /// Decides which handshake may go on: its steps are long work.
    pub handshake_turns: Turns,
    /// Handshakes in progress, in the order of their numbers.
    handshakes: RefCell<VecDeque<InProgress>>,
    last_handshake: Cell<u64>,
    /// Records on their way to a socket.
    pub(super) wire: RefCell<Output>,
    /// For reads into small buffers. Empty until it is needed.
    pub(super) scratch: RefCell<Vec<u8>>,
}

impl TlsPool {
    /// Makes the pool of a worker. Small records go out by its outbox, if it has one.
    pub fn new(
        memory: &Rc<Memory>,
        yielder: &Rc<Yielder>,
        outbox: Option<&Rc<Outbox>>,
    ) -> Rc<TlsPool> {
        Rc::new(TlsPool {
            memory: Rc::clone(memory),
            outbox: outbox.map(Rc::clone),
            handshake_turns: Turns::new(Rc::clone(yielder), HANDSHAKE_BUDGET),
            handshakes: RefCell::default(),
            last_handshake: Cell::new(0),
            wire: RefCell::new(Output::default()),
            scratch: RefCell::new(Vec::new()),
        })
    }

    /// Begins one more handshake over this socket. If too many are in progress, the oldest one is
    /// cut off: a client that does not go on must not keep others out.
    pub fn begin_handshake(self: &Rc<Self>, socket: &Rc<Stream>) -> HandshakePermit {
        let number = self.last_handshake.get() + 1;
        self.last_handshake.set(number);
        let is_evicted = Rc::new(Cell::new(false));
        let mut handshakes = self.handshakes.borrow_mut();
        if handshakes.len() >= MAX_HANDSHAKES
            && let Some(oldest) = handshakes.pop_front()
        {
            oldest.is_evicted.set(true);
            oldest.socket.shutdown();
        }
        let socket = Rc::clone(socket);
        handshakes.push_back(InProgress { number, socket, is_evicted: Rc::clone(&is_evicted) });
        HandshakePermit { pool: Rc::clone(self), number, is_evicted }
    }
}

/// A handshake in progress as the pool knows it.
struct InProgress {
    number: u64,
    socket: Rc<Stream>,
    is_evicted: Rc<Cell<bool>>,
}

/// A handshake in progress. Dropping it makes room for another one.
pub struct HandshakePermit {
    pool: Rc<TlsPool>,
    number: u64,
    is_evicted: Rc<Cell<bool>>,
}

impl HandshakePermit {
    /// Returns true if the handshake was cut off to make room for another one.
    pub fn is_evicted(&self) -> bool {
        self.is_evicted.get()
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        let mut handshakes = self.pool.handshakes.borrow_mut();
        if let Ok(at) = handshakes.binary_search_by_key(&self.number, |one| one.number) {
            handshakes.remove(at);
        }
    }
}
