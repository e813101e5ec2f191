//! What a worker counts of one listener. The cells belong to the worker; nothing is shared.

use std::cell::Cell;

use super::outcome::{End, Outcome};

/// The counts of one listener on one worker, since the listener exists.
#[derive(Debug)]
pub struct Counters {
    /// Connections and sessions that have begun.
    begun: Cell<u64>,
    /// Connections and sessions at present.
    open: Cell<u64>,
    bytes_up: Cell<u64>,
    bytes_down: Cell<u64>,
    /// Outcomes by their [`End`].
    ends: [Cell<u64>; End::COUNT],
    /// Handshakes of TLS that ends here.
    pub tls: TlsCounters,
}

/// Handshakes by their result.
#[derive(Debug, Default)]
pub struct TlsCounters {
    /// Full handshakes of TLS 1.2 and 1.3, then resumed ones.
    done: [Cell<u64>; 4],
    failed: Cell<u64>,
}

impl TlsCounters {
    /// Counts a handshake that is done.
    pub fn add(&self, version: &str, is_resumed: bool) {
        let count = &self.done[2 * usize::from(is_resumed) + usize::from(version == "1.3")];
        count.set(count.get() + 1);
    }

    /// Counts a handshake that has failed.
    pub fn add_failure(&self) {
        self.failed.set(self.failed.get() + 1);
    }

    /// Handshakes with this version, "1.2" or "1.3", that were full or resumed.
    pub fn done(&self, version: &str, is_resumed: bool) -> u64 {
        self.done[2 * usize::from(is_resumed) + usize::from(version == "1.3")].get()
    }

    /// Handshakes that have failed.
    pub fn failed(&self) -> u64 {
        self.failed.get()
    }
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            begun: Cell::new(0),
            open: Cell::new(0),
            bytes_up: Cell::new(0),
            bytes_down: Cell::new(0),
            ends: [const { Cell::new(0) }; End::COUNT],
            tls: TlsCounters::default(),
        }
    }
}

impl Counters {
    /// Counts a connection or session that begins.
    pub fn begin(&self) {
        self.begun.set(self.begun.get() + 1);
        self.open.set(self.open.get() + 1);
    }

    /// Counts the end of one that was begun.
    pub fn end(&self) {
        self.open.set(self.open.get() - 1);
    }

    /// Counts how something went.
    pub fn add(&self, outcome: &Outcome) {
        self.bytes_up.set(self.bytes_up.get() + outcome.bytes_up);
        self.bytes_down.set(self.bytes_down.get() + outcome.bytes_down);
        let count = &self.ends[outcome.end as usize];
        count.set(count.get() + 1);
    }

    /// Connections and sessions that have begun.
    pub fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Connections and sessions at present.
    pub fn open(&self) -> u64 {
        self.open.get()
    }

    /// Bytes from clients and to clients.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_up.get(), self.bytes_down.get())
    }

    /// Outcomes with this end.
    pub fn ended_by(&self, end: End) -> u64 {
        self.ends[end as usize].get()
    }
}
