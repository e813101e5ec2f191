//! A worker's end of the access log: formats records into batches and hands them over.
//!
//! Nothing here waits. While the queue is full a batch grows; beyond [`LIMIT`] new records are
//! dropped and counted, because a proxy that stands still for its log is worse than a log with a
//! gap it admits to.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use super::super::outlet::{Batch, Counts, Message};
use super::format::Format;
use super::record::Record;
use super::value::Clock;

/// A batch of this many bytes goes at once; short of 64 KiB so that its last record rarely grows
/// the buffer.
const READY: usize = 60 * 1024;

/// A batch of this many bytes takes no more records, so a worker holds at most this and one record.
pub(super) const LIMIT: usize = 256 * 1024;

/// Emptied buffers that may wait for their next use.
const SPARE: usize = 8;

/// Formats the records of one worker. Dropping it hands over what is left.
pub struct Recorder {
    /// The lane of each sink; sinks with the same file share one.
    lanes_by_sink: Arc<[usize]>,
    lanes: Vec<Lane>,
    clock: Clock,
}

impl Recorder {
    pub(super) fn new(lanes_by_sink: Arc<[usize]>, lanes: Vec<Lane>) -> Recorder {
        Recorder { lanes_by_sink, lanes, clock: Clock::default() }
    }

    /// Writes `record` into the batch of `sink`, a position in the list the writer was started
    /// with. Never blocks; where the writer cannot keep up the record is dropped and counted.
    pub fn record(&mut self, sink: usize, format: &Format, record: &Record) {
        let lane = &mut self.lanes[self.lanes_by_sink[sink]];
        if !lane.has_room() {
            lane.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        format.write(record, &mut self.clock, &mut lane.lines);
        lane.records += 1;
        if lane.lines.len() >= READY {
            lane.hand_over();
        }
    }

    /// Hands over what has gathered. The worker calls it every 50 ms or so; without records it
    /// costs nothing.
    pub fn flush(&mut self) {
        for lane in &mut self.lanes {
            lane.hand_over();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
        for lane in &self.lanes {
            lane.counts.dropped.fetch_add(lane.records, Ordering::Relaxed);
        }
    }
}

/// A recorder's way to one file.
pub(super) struct Lane {
    /// The batch: whole lines only.
    lines: Vec<u8>,
    /// How many lines.
    records: u64,
    queue: SyncSender<Message>,
    /// Where emptied buffers come back, and the other end to send along.
    emptied: Receiver<Vec<u8>>,
    home: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

impl Lane {
    pub(super) fn new(queue: SyncSender<Message>, counts: Arc<Counts>) -> Lane {
        let (home, emptied) = sync_channel(SPARE);
        Lane { lines: Vec::new(), records: 0, queue, emptied, home, counts }
    }

    fn has_room(&mut self) -> bool {
        if self.lines.len() >= LIMIT {
            self.hand_over();
        }
        self.lines.len() < LIMIT
    }

    /// Gives the batch to the writer; keeps it where the queue is full.
    fn hand_over(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let (lines, records) = (mem::take(&mut self.lines), self.records);
        // Counted first: the other side may be done with the batch before try_send returns.
        self.counts.waiting.fetch_add(records, Ordering::Relaxed);
        let batch = Batch { lines, records, home: self.home.clone() };
        match self.queue.try_send(Message::Batch(batch)) {
            Ok(()) => {
                self.lines = self.emptied.try_recv().unwrap_or_default();
                self.records = 0;
            }
            Err(TrySendError::Full(refused) | TrySendError::Disconnected(refused)) => {
                self.counts.waiting.fetch_sub(records, Ordering::Relaxed);
                if let Message::Batch(batch) = refused {
                    self.lines = batch.lines;
                }
            }
        }
    }
}
