//! The processor time of one thread, read from another.

use std::time::Duration;

/// The clock that counts a thread's processor time.
#[derive(Clone, Copy, Debug)]
pub struct ThreadClock {
    id: libc::clockid_t,
}

impl ThreadClock {
    /// The clock of the calling thread; `None` if the system has none.
    pub fn current() -> Option<ThreadClock> {
        let mut id = 0;
        // SAFETY: pthread_self is the calling thread, which is alive, and the pointer is that of
        // `id`.
        let result = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut id) };
        (result == 0).then_some(ThreadClock { id })
    }

    /// The processor time that the thread has used so far; `None` if the thread has ended.
    pub fn used(self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is that of `time`. For a thread that has ended the call returns an
        // error.
        let result = unsafe { libc::clock_gettime(self.id, &raw mut time) };
        (result == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_what_another_thread_uses() {
        let (send, clock) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        let busy = std::thread::spawn(move || {
            send.send(ThreadClock::current().unwrap()).unwrap();
            while ends.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {}
        });
        let clock = clock.recv().unwrap();
        let start = clock.used().unwrap();
        while clock.used().unwrap() < start + Duration::from_millis(20) {
            std::thread::yield_now();
        }
        drop(end);
        busy.join().unwrap();
    }
}
