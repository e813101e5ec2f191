//! The worker's side of the access log: formats records into batches and hands them over.
//!
//! Nothing here waits. While the queue is full, the batch grows; beyond [`LIMIT`] new records are
//! dropped and counted. A log with a reported gap is better than a proxy that stops for its log.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use super::super::outlet::{Batch, Counts, Message};
use super::format::Format;
use super::record::Record;
use super::value::Clock;

/// A batch of this many bytes is handed over at once. The value is less than 64 KiB so that the
/// last record rarely makes the buffer grow.
const READY: usize = 60 * 1024;

/// A batch of this many bytes accepts no more records. A worker therefore holds at most this many
/// bytes and one record.
pub(super) const LIMIT: usize = 256 * 1024;

/// The number of emptied buffers that are kept for reuse.
const SPARE: usize = 8;

/// Formats the records of one worker. Dropping it hands over the remaining records.
pub struct Recorder {
    /// The lane of each sink. Sinks with the same file share a lane.
    lanes_by_sink: Arc<[usize]>,
    lanes: Vec<Lane>,
    clock: Clock,
}

impl Recorder {
    pub(super) fn new(lanes_by_sink: Arc<[usize]>, lanes: Vec<Lane>) -> Recorder {
        Recorder { lanes_by_sink, lanes, clock: Clock::default() }
    }

    /// Formats `record` into the batch of `sink`, which is a position in the list that the writer
    /// was started with. Never blocks: if the writer cannot keep up, the record is dropped and
    /// counted.
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

    /// Hands over the current batches. The worker calls this about every 50 ms; without records it
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

/// The connection of a recorder to one file.
pub(super) struct Lane {
    /// The current batch, which consists of whole lines.
    lines: Vec<u8>,
    /// The number of lines in the batch.
    records: u64,
    queue: SyncSender<Message>,
    /// The channel of emptied buffers. Each batch carries a clone of `home`, its sending end.
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

    /// Hands the batch to the writer. If the queue is full, the batch is kept.
    fn hand_over(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let (lines, records) = (mem::take(&mut self.lines), self.records);
        // Counted first, because the writer may finish the batch before `try_send` returns.
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
