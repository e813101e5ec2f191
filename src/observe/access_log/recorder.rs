//! The worker's side of the access log: formats records into batches and hands them over.
//!
//! Nothing here waits. While the queue is full, the batch grows; beyond [`LIMIT`] new records are
//! dropped and counted. A log with a reported gap is better than a proxy that stops for its log.

use std::cell::RefCell;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use super::super::log_file::{Batch, Message};
use super::format::Format;
use super::record::Record;
use super::sink::Sink;
use super::value::Clock;

/// A batch of this many bytes is handed over at once. The value is less than 64 KiB so that the
/// last record rarely makes the buffer grow.
const READY: usize = 60 * 1024;

/// A batch of this many bytes accepts no more records. A worker therefore holds at most this many
/// bytes and one record.
pub(super) const LIMIT: usize = 256 * 1024;

/// The number of emptied buffers that are kept for reuse.
const SPARE: usize = 8;

/// The access logs of one worker.
#[derive(Default)]
pub struct Recorder {
    lanes: RefCell<Vec<Rc<Lane>>>,
}

impl Recorder {
    /// The lane to a sink. Listeners with the same sink share a lane.
    pub fn lane(&self, sink: &Arc<Sink>) -> Rc<Lane> {
        let mut lanes = self.lanes.borrow_mut();
        if let Some(lane) = lanes.iter().find(|lane| lane.leads_to(sink)) {
            return Rc::clone(lane);
        }
        let lane = Rc::new(Lane::new(sink));
        lanes.push(Rc::clone(&lane));
        lane
    }

    /// Hands over the current batches, and closes lanes that no listener uses any more. The worker
    /// calls this about every 50 ms; without records it costs nothing.
    pub fn flush(&self) {
        self.lanes.borrow_mut().retain(|lane| {
            lane.flush();
            Rc::strong_count(lane) > 1 || !lane.is_empty()
        });
    }

    /// Hands over what is left and closes all lanes. Later records are dropped: tasks that the
    /// runtime abandons keep their lanes alive, and the writer ends when the last lane is closed.
    pub fn close(&self) {
        self.lanes.take().iter().for_each(|lane| lane.close());
    }
}

/// The way of one worker's records to one sink.
pub struct Lane {
    /// `None` after the worker has ended.
    open: RefCell<Option<Open>>,
}

struct Open {
    sink: Arc<Sink>,
    /// The current batch. It consists of whole lines, up to `whole`.
    lines: Vec<u8>,
    /// The length of the whole lines. Others are behind it only after a panic while a record was
    /// formatted.
    whole: usize,
    /// The number of lines in the batch.
    records: u64,
    /// The channel of emptied buffers. Each batch carries a clone of `home`, its sending end.
    emptied: Receiver<Vec<u8>>,
    home: SyncSender<Vec<u8>>,
    clock: Clock,
}

impl Lane {
    fn new(sink: &Arc<Sink>) -> Lane {
        let (home, emptied) = sync_channel(SPARE);
        let open = Open {
            sink: Arc::clone(sink),
            lines: Vec::new(),
            whole: 0,
            records: 0,
            emptied,
            home,
            clock: Clock::default(),
        };
        Lane { open: RefCell::new(Some(open)) }
    }

    fn leads_to(&self, sink: &Arc<Sink>) -> bool {
        self.open.borrow().as_ref().is_some_and(|open| Arc::ptr_eq(&open.sink, sink))
    }

    /// Formats `record` into the current batch. Never blocks: if the writer cannot keep up, the
    /// record is dropped and counted.
    pub fn record(&self, format: &Format, record: &Record) {
        if let Some(open) = &mut *self.open.borrow_mut() {
            open.record(format, record);
        }
    }

    fn flush(&self) {
        if let Some(open) = &mut *self.open.borrow_mut() {
            open.hand_over();
        }
    }

    fn is_empty(&self) -> bool {
        self.open.borrow().as_ref().is_none_or(|open| open.lines.is_empty())
    }

    fn close(&self) {
        drop(self.open.take());
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.hand_over();
        self.sink.counts.dropped.fetch_add(self.records, Ordering::Relaxed);
    }
}

impl Open {
    fn record(&mut self, format: &Format, record: &Record) {
        if !self.has_room() {
            self.sink.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.lines.truncate(self.whole);
        format.write(record, &mut self.clock, &mut self.lines);
        self.whole = self.lines.len();
        self.records += 1;
        if self.lines.len() >= READY {
            self.hand_over();
        }
    }

    fn has_room(&mut self) -> bool {
        if self.lines.len() >= LIMIT {
            self.hand_over();
        }
        self.lines.len() < LIMIT
    }

    /// Hands the batch to the writer. If the queue is full, the batch is kept.
    fn hand_over(&mut self) {
        self.lines.truncate(self.whole);
        if self.lines.is_empty() {
            return;
        }
        let (lines, records) = (mem::take(&mut self.lines), self.records);
        // Counted first, because the writer may finish the batch before `try_send` returns.
        self.sink.counts.waiting.fetch_add(records, Ordering::Relaxed);
        let batch = Batch { lines, records, home: self.home.clone() };
        match self.sink.queue.try_send(Message::Batch(batch)) {
            Ok(()) => {
                self.lines = self.emptied.try_recv().unwrap_or_default();
                (self.whole, self.records) = (0, 0);
            }
            Err(TrySendError::Full(refused) | TrySendError::Disconnected(refused)) => {
                self.sink.counts.waiting.fetch_sub(records, Ordering::Relaxed);
                if let Message::Batch(batch) = refused {
                    self.lines = batch.lines;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::note;
    use super::super::{Target, Writer};
    use super::*;

    #[test]
    fn a_part_of_a_record_that_a_panic_has_left_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let mut writer = Writer::start().unwrap();
        let sink = writer.open(&Target::File(path.clone())).unwrap();
        let recorder = Recorder::default();
        let lane = recorder.lane(&sink);
        for (number, part) in [(1, "half of one"), (2, "half of another")] {
            note(&lane, "web", number);
            lane.open.borrow_mut().as_mut().unwrap().lines.extend_from_slice(part.as_bytes());
        }
        recorder.flush();
        note(&lane, "web", 3);
        drop(sink);
        recorder.close();
        writer.close();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains("half"), "{text}");
    }
}
