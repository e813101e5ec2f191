//! The threads that wait for disks, so that no worker does.
//!
//! A process has a few of them, and one bounded queue. If every thread hangs on a disk or on a
//! network file system, the queue fills up and further requests fail at once. A job of a request
//! that has ended meanwhile is skipped.
//!
//! A thread cannot wake a task of a worker, because the runtime's wakers belong to one thread. It
//! sends the number of the waiting task to the worker instead, and a byte through a socket pair. A
//! task of the worker reads that byte and wakes the task that waits.

#![expect(clippy::disallowed_types, reason = "the threads share a queue; no worker locks it")]

use std::cell::{OnceCell, RefCell};
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use slab::Slab;

use crate::sys::Stream;
use crate::timers::{Fired, Watch};

/// The threads of a process.
const THREADS: usize = 8;
/// Jobs that may wait for a thread.
const QUEUE: usize = 512;

type Job = Box<dyn FnOnce() + Send>;

/// The threads of a process that wait for disks. Clones share them. They end after the last clone
/// is dropped, each when its job is done.
#[derive(Clone)]
pub struct Threads {
    queue: SyncSender<Job>,
}

impl Threads {
    /// Starts the threads. Must be called on a thread that is not pinned to a CPU: they inherit
    /// that.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start() -> io::Result<Threads> {
        Threads::with(THREADS, QUEUE)
    }

    /// Starts this many threads with a queue of this length.
    pub(super) fn with(count: usize, length: usize) -> io::Result<Threads> {
        let (queue, jobs) = sync_channel(length);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..count {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new().name("files".into()).spawn(move || run(&jobs))?;
        }
        Ok(Threads { queue })
    }
}

/// The life of one thread.
fn run(jobs: &Mutex<Receiver<Job>>) {
    loop {
        // A statement of its own, so that the lock is free while the job runs.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

/// The way of one worker to the threads.
pub struct Disk {
    /// Empty until a configuration has files.
    threads: OnceCell<Threads>,
    /// The wakers of the tasks that wait, by their numbers.
    waiting: RefCell<Slab<Option<Waker>>>,
    finished: Arc<Finished>,
}

/// How a thread tells the worker that a job is done.
struct Finished {
    numbers: Sender<usize>,
    /// A byte that is written here wakes the worker.
    wake_up: UnixStream,
    /// Whether a byte is in the socket pair already.
    is_woken: AtomicBool,
}

/// Why a job has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoResult {
    /// All threads are busy, and the queue is full; or there are no threads.
    Busy,
    /// The watch has ended the wait: a limit, a drain or a reset.
    Fired(Fired),
}

impl Disk {
    /// Starts the worker's side, without threads so far. A worker does it when it starts, because
    /// later there may be no descriptors for it. Must be called on the worker's thread, inside its
    /// runtime.
    ///
    /// # Errors
    /// EMFILE or ENFILE from socketpair(2); the runtime's error if it cannot register the pair.
    pub fn start() -> io::Result<Rc<Disk>> {
        let (reader, wake_up) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        wake_up.set_nonblocking(true)?;
        let (numbers, finished) = channel();
        let disk = Rc::new(Disk {
            threads: OnceCell::new(),
            waiting: RefCell::default(),
            finished: Arc::new(Finished { numbers, wake_up, is_woken: AtomicBool::new(false) }),
        });
        let reader = Stream::from_fd(reader.into())?;
        monoio::spawn(wake_tasks(Rc::downgrade(&disk), reader, finished));
        Ok(disk)
    }

    /// Lets these threads do the work. They stay: a process has one set of threads.
    pub fn use_threads(&self, threads: &Threads) {
        self.threads.get_or_init(|| threads.clone());
    }

    /// Lets a thread do the work and waits for its result. The future may be dropped at any time;
    /// the work may be done nevertheless.
    ///
    /// # Errors
    /// There is no thread for it, or the watch has ended the wait.
    pub async fn run<T: Send + 'static>(
        &self,
        watch: &Watch,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoResult> {
        let mut running = self.begin(work)?;
        // The client is not read meanwhile.
        let _stall = watch.stall();
        poll_fn(|cx| match watch.poll_fired(cx.waker()) {
            Poll::Ready(fired) => Poll::Ready(Err(NoResult::Fired(fired))),
            Poll::Pending => running.poll(cx),
        })
        .await
    }

    fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Running<'_, T>, NoResult> {
        let number = self.waiting.borrow_mut().insert(None);
        let (sender, result) = channel();
        let wanted = Arc::new(());
        let running = Running { disk: self, number, result, _wanted: Arc::clone(&wanted) };
        let finished = Arc::clone(&self.finished);
        let job = Box::new(move || {
            // The other reference is that of the task.
            if Arc::strong_count(&wanted) > 1 && sender.send(work()).is_ok() {
                finished.tell(number);
            }
        });
        let threads = self.threads.get().ok_or(NoResult::Busy)?;
        threads.queue.try_send(job).map_err(|_| NoResult::Busy)?;
        Ok(running)
    }
}

impl Finished {
    fn tell(&self, number: usize) {
        // Fails if the worker has ended.
        let _ = self.numbers.send(number);
        if !self.is_woken.swap(true, Ordering::SeqCst) {
            // The socket pair holds one byte at most, so it is never full.
            let _ = (&self.wake_up).write(&[0]);
        }
    }
}

/// A job, as the task sees it. Dropping it gives the job up.
struct Running<'d, T> {
    disk: &'d Disk,
    number: usize,
    result: Receiver<T>,
    _wanted: Arc<()>,
}

impl<T> Running<'_, T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, NoResult>> {
        match self.result.try_recv() {
            Ok(result) => Poll::Ready(Ok(result)),
            // The thread has panicked.
            Err(TryRecvError::Disconnected) => Poll::Ready(Err(NoResult::Busy)),
            Err(TryRecvError::Empty) => {
                let waiting = &mut *self.disk.waiting.borrow_mut();
                waiting[self.number] = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Running<'_, T> {
    fn drop(&mut self) {
        let waker = self.disk.waiting.borrow_mut().remove(self.number);
        // Dropped where nothing is borrowed: it may be the last reference to its task.
        drop(waker);
    }
}

/// Wakes the tasks whose jobs are done. Ends after the worker and the last of its jobs have dropped
/// the other end.
async fn wake_tasks(disk: Weak<Disk>, reader: Stream, finished: Receiver<usize>) {
    loop {
        reader.readable().await;
        if reader.recv(&mut [0]) == Ok(0) {
            return;
        }
        let Some(disk) = disk.upgrade() else { return };
        // Before the check: a job that ends after it must cause another wake-up.
        disk.finished.is_woken.swap(false, Ordering::SeqCst);
        for number in finished.try_iter() {
            // The number may belong to another task by now, which then looks in vain.
            let waker = disk.waiting.borrow_mut().get_mut(number).and_then(Option::take);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}
