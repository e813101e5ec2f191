//! The control plane's side of the access log: opens the files, runs their threads and reports
//! losses.
//!
//! Each file has its own thread, because a thread that waits for a full pipe can do nothing else.
//! For the same reason one more thread reports losses. None of them delays the end of the process
//! for much longer than [`PATIENCE`].

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::super::log_file::{Counts, LogFile, Message, Target};
use super::sink::Sink;
use crate::error::Error;

/// Batches that a file's queue holds, from all workers: 8 MiB at the usual batch size, 32 MiB at
/// most.
pub(super) const QUEUE: usize = 128;

/// How long [`Writer::close`] waits for files that accept nothing more.
const PATIENCE: Duration = Duration::from_secs(2);

/// The time between two reports about the same file.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Reopens the files that were open when it was made.
pub struct Reopener(Vec<Weak<Sink>>);

impl Reopener {
    /// As [`Writer::reopen`].
    pub fn reopen(&self) {
        for sink in self.0.iter().filter_map(Weak::upgrade) {
            sink.counts.reopen.store(true, Ordering::Release);
            // If the queue is full, its messages wake the thread anyway.
            let _ = sink.queue.try_send(Message::Wake);
        }
    }
}

/// The open files of all access logs and the threads that write to them. Files can be added at any
/// time; a file is closed when its last [`Sink`] is dropped.
pub struct Writer {
    files: Vec<OpenFile>,
    reporter: Thread,
    /// The files that the reporter watches. Dropped to end it.
    reporting: Sender<Watched>,
}

/// Targets that are open, or are opened for a [`Writer`] by another thread: opening a file may
/// block, and for ever. So this keeps no file open.
pub struct Opening {
    /// Those that have a thread. A [`Kept`] of the same moment keeps them.
    known: HashMap<Target, Weak<Sink>>,
    /// Those that have none yet.
    files: HashMap<Target, File>,
}

/// Keeps the files open that were open when it was made.
pub struct Kept(#[expect(dead_code, reason = "it only owns them")] Vec<Arc<Sink>>);

/// The records that did not reach the files that were open when it was made.
#[derive(Clone)]
pub struct Losses(Vec<(String, Arc<Counts>)>);

impl Losses {
    /// The name of each log, the records that workers have dropped, because the writer could not
    /// keep up, and those that could not be written.
    pub fn each(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.0.iter().map(|(log, counts)| {
            let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
            (log.as_str(), number(&counts.dropped), number(&counts.lost))
        })
    }
}

struct OpenFile {
    target: Target,
    sink: Weak<Sink>,
    counts: Arc<Counts>,
    thread: Thread,
}

impl Writer {
    /// Starts the thread that reports losses. No file is open yet.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> Result<Writer, Error> {
        let (reporting, watched) = channel();
        let reporter = Thread::spawn("access-log-news", move || report(watched, News::say))?;
        Ok(Writer { files: Vec::new(), reporter, reporting })
    }

    /// Begins to open targets. Targets that are open already are not opened again: all records to
    /// one file go through one sink. Those must be kept until the sinks were taken ([`Kept`]).
    pub fn opening(&self) -> Opening {
        let open = self.files.iter().filter(|file| file.sink.strong_count() > 0);
        let known = open.map(|file| (file.target.clone(), Weak::clone(&file.sink)));
        Opening { known: known.collect(), files: HashMap::new() }
    }

    /// Keeps all files that are open now.
    pub fn keep(&self) -> Kept {
        Kept(self.files.iter().filter_map(|file| file.sink.upgrade()).collect())
    }

    /// Returns the sink of a target that `opening` has opened. Starts its thread if it is new. Does
    /// not block.
    ///
    /// # Errors
    /// The thread cannot be started, or the target was neither opened nor kept.
    pub fn sink(&mut self, target: &Target, opening: &mut Opening) -> Result<Arc<Sink>, Error> {
        if let Some(sink) = opening.known.get(target).and_then(Weak::upgrade) {
            return Ok(sink);
        }
        self.files.retain(|file| !file.is_closed());
        let file = opening.files.remove(target).ok_or_else(|| {
            Error::start(format!("cannot use the log {target}"), "it was closed meanwhile", "")
        })?;
        let counts = Arc::new(Counts::default());
        let (queue, batches) = sync_channel(QUEUE);
        let log_file = LogFile::new(target.clone(), file, Arc::clone(&counts));
        let thread = Thread::spawn("access-log", move || log_file.run(batches))?;
        // Fails only if the reporter has panicked.
        let _ = self.reporting.send(Watched::new(target, Arc::clone(&counts)));
        let sink = Arc::new(Sink { queue, counts: Arc::clone(&counts) });
        let (target, weak) = (target.clone(), Arc::downgrade(&sink));
        opening.known.insert(target.clone(), weak.clone());
        self.files.push(OpenFile { target, sink: weak, counts, thread });
        Ok(sink)
    }

    /// Opens a target. May block.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread cannot be started.
    pub fn open(&mut self, target: &Target) -> Result<Arc<Sink>, Error> {
        let mut opening = self.opening();
        opening.open(target)?;
        self.sink(target, &mut opening)
    }

    /// Opens every file's path again, after a log rotation has moved the old file. Returns at once:
    /// each file is reopened before its next batch is written. If that fails, the old file stays in
    /// use and a warning is logged.
    pub fn reopen(&self) {
        self.reopener().reopen();
    }

    /// Reopens the present files while this writer is in use elsewhere.
    pub fn reopener(&self) -> Reopener {
        Reopener(self.files.iter().map(|file| Weak::clone(&file.sink)).collect())
    }

    /// The losses of the files that are open, each once.
    pub fn losses(&self) -> Losses {
        let open = self.files.iter().filter(|file| file.sink.strong_count() > 0);
        let losses = open.map(|file| (file.target.to_string(), Arc::clone(&file.counts)));
        Losses(losses.collect())
    }

    /// The number of records that did not reach the files that are open: dropped by workers or lost
    /// in writing.
    pub fn lost(&self) -> u64 {
        self.files.iter().map(|file| missing(&file.counts)).sum()
    }

    /// Writes the batches that were handed over and ends the threads. All sinks must have been
    /// dropped before. A file that accepts nothing more is given up after two seconds, and its
    /// records are reported as lost.
    pub fn close(self) {
        let deadline = Instant::now() + PATIENCE;
        let threads: Vec<Thread> = self.files.into_iter().map(|file| file.thread).collect();
        for thread in threads {
            thread.join_until(deadline);
        }
        drop(self.reporting);
        // The reporter writes to stderr, which may be the same blocked pipe.
        self.reporter.join_until(deadline + REPORT_INTERVAL / 4);
    }
}

#[cfg(test)]
impl Writer {
    /// The number of files that are closed.
    pub(super) fn closed(&self) -> usize {
        self.files.iter().filter(|file| file.is_closed()).count()
    }
}

impl Opening {
    /// Opens a target unless it is open. May block.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(&mut self, target: &Target) -> Result<(), Error> {
        if !self.known.contains_key(target) && !self.files.contains_key(target) {
            self.files.insert(target.clone(), target.open()?);
        }
        Ok(())
    }
}

impl OpenFile {
    /// Returns true when no worker uses the file any more and everything is written.
    fn is_closed(&self) -> bool {
        self.sink.strong_count() == 0 && self.thread.handle.is_finished()
    }
}

fn missing(counts: &Counts) -> u64 {
    counts.dropped.load(Ordering::Relaxed) + counts.lost.load(Ordering::Relaxed)
}

/// A thread that can be joined with a deadline.
struct Thread {
    handle: JoinHandle<()>,
    /// Carries no message. It is disconnected when the thread has ended.
    ended: Receiver<Infallible>,
}

impl Thread {
    fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<Thread, Error> {
        let (alive, ended) = channel();
        let builder = thread::Builder::new().name(name.to_owned());
        let spawned = builder.spawn(move || {
            let _alive = alive;
            body();
        });
        let handle = spawned.map_err(|error| Error::start("cannot start a thread", error, ""))?;
        Ok(Thread { handle, ended })
    }

    /// Waits for the thread until the deadline. After that, the thread is left running.
    fn join_until(self, deadline: Instant) {
        let patience = deadline.saturating_duration_since(Instant::now());
        if let Err(RecvTimeoutError::Disconnected) = self.ended.recv_timeout(patience) {
            // The panic hook has reported a panic already.
            let _ = self.handle.join();
        }
    }
}

/// A file whose losses are reported.
struct Watched {
    name: String,
    counts: Arc<Counts>,
    /// The number of dropped records that have been reported.
    dropped: u64,
    /// The number of lost records that have been reported.
    lost: u64,
}

impl Watched {
    fn new(target: &Target, counts: Arc<Counts>) -> Watched {
        Watched { name: target.to_string(), counts, dropped: 0, lost: 0 }
    }

    /// The losses since the last call.
    fn news(&mut self) -> Vec<News> {
        let dropped = since(&self.counts.dropped, &mut self.dropped);
        let lost = since(&self.counts.lost, &mut self.lost);
        let errno = self.counts.errno.load(Ordering::Relaxed);
        let news = |records, what, error| News { records, log: self.name.clone(), what, error };
        let dropped = news(dropped, "access log: records dropped, the writer cannot keep up", None);
        let error = Some(io::Error::from_raw_os_error(errno));
        let lost = news(lost, "access log: records lost in writing", error);
        [dropped, lost].into_iter().filter(|news| news.records > 0).collect()
    }

    /// The records that are lost because the process ends.
    fn last_news(&self) -> Option<News> {
        let records = self.counts.waiting.load(Ordering::Relaxed);
        let what = "access log: records lost, it took nothing more at the end";
        let news = News { records, log: self.name.clone(), what, error: None };
        (records > 0).then_some(news)
    }
}

/// A loss of records, to be reported.
struct News {
    records: u64,
    /// The name of the log.
    log: String,
    what: &'static str,
    error: Option<io::Error>,
}

impl News {
    fn say(&self) {
        let News { records, log, what, error } = self;
        let error = error.as_ref().map(tracing::field::display);
        tracing::warn!(message = what, records, %log, error);
    }
}

fn since(count: &AtomicU64, told: &mut u64) -> u64 {
    let now = count.load(Ordering::Acquire);
    now - std::mem::replace(told, now)
}

/// Reports losses once a second; when it ends, reports the remaining ones.
fn report(files: Receiver<Watched>, say: impl Fn(&News)) {
    let mut watched: Vec<Watched> = Vec::new();
    let mut next = Instant::now() + REPORT_INTERVAL;
    loop {
        let patience = next.saturating_duration_since(Instant::now());
        let last = match files.recv_timeout(patience) {
            Ok(file) => {
                watched.push(file);
                continue;
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        next = Instant::now() + REPORT_INTERVAL;
        watched.retain_mut(|file| {
            // A file that is closed has no other reference to its counts. Looked up first, because
            // its thread may count a last loss meanwhile.
            let is_closed = Arc::strong_count(&file.counts) == 1;
            file.news().iter().for_each(&say);
            if is_closed && !last {
                file.last_news().iter().for_each(&say);
            }
            !is_closed || last
        });
        if last {
            break;
        }
    }
    for news in watched.iter().filter_map(Watched::last_news) {
        say(&news);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched() -> (Watched, Arc<Counts>) {
        let counts = Arc::new(Counts::default());
        (Watched::new(&Target::File("/var/log/access.log".into()), counts.clone()), counts)
    }

    #[test]
    fn losses_are_told_once_and_with_their_cause() {
        let (mut watched, counts) = watched();
        assert!(watched.news().is_empty());
        counts.dropped.store(7, Ordering::Relaxed);
        let [news] = &watched.news()[..] else { panic!("one kind of loss") };
        assert_eq!((news.records, &*news.log), (7, "/var/log/access.log"));
        assert!(news.what.contains("dropped") && news.error.is_none());
        assert!(watched.news().is_empty());

        counts.dropped.store(9, Ordering::Relaxed);
        counts.lost.store(3, Ordering::Relaxed);
        counts.errno.store(rustix::io::Errno::NOSPC.raw_os_error(), Ordering::Relaxed);
        let [dropped, lost] = &watched.news()[..] else { panic!("two kinds of loss") };
        assert_eq!((dropped.records, lost.records), (2, 3));
        assert!(lost.error.as_ref().unwrap().to_string().starts_with("No space"));
        assert!(watched.last_news().is_none());
        counts.waiting.store(4, Ordering::Relaxed);
        assert_eq!(watched.last_news().unwrap().records, 4);
    }

    #[test]
    fn losses_are_said_although_nothing_more_happens_and_again_at_the_end() {
        let (watched, counts) = watched();
        counts.dropped.store(7, Ordering::Relaxed);
        let (said, hear) = channel();
        let (reporting, files) = channel();
        reporting.send(watched).unwrap();
        let reporter = thread::spawn(move || {
            report(files, |news| said.send((news.records, news.what)).unwrap());
        });
        let hear_next = || {
            let (records, what) = hear.recv_timeout(Duration::from_secs(20)).unwrap();
            (records, what.contains("dropped"))
        };
        assert_eq!(hear_next(), (7, true));

        counts.dropped.store(8, Ordering::Relaxed);
        counts.waiting.store(3, Ordering::Relaxed);
        drop(reporting);
        assert_eq!([hear_next(), hear_next()], [(1, true), (3, false)]);
        reporter.join().unwrap();
        assert!(hear.recv().is_err());
    }

    #[test]
    fn the_last_loss_of_a_file_that_is_closed_is_said_before_it_is_forgotten() {
        let (watched, counts) = watched();
        counts.dropped.store(7, Ordering::Relaxed);
        counts.waiting.store(3, Ordering::Relaxed);
        drop(counts);
        let (said, hear) = channel();
        let (reporting, files) = channel();
        reporting.send(watched).unwrap();
        let reporter = thread::spawn(move || {
            report(files, |news| said.send(news.records).unwrap());
        });
        let hear_next = || hear.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!([hear_next(), hear_next()], [7, 3]);
        drop(reporting);
        reporter.join().unwrap();
        assert!(hear.recv().is_err(), "it is said once");
    }
}
